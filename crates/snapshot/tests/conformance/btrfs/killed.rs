//! Rollbacks of which the process is killed between any two system calls.

use snapshot::id::Id;

use super::Subvolume;
use crate::process::killed_before_call;
use crate::suite::{Fixture as _, assert_in_place};
use crate::tree::{assert_same, change, describe, fill};

fn is_finished_or_taken_back_when_killed(shop: &Subvolume) {
    fill(&shop.directory);
    let provider = shop.open();
    let then = describe(&shop.directory, &shop.apart);
    let handle = provider.create(Id::random()).unwrap();
    change(&shop.directory);
    let now = describe(&shop.directory, &shop.apart);
    let mut changed = 0;
    let mut calls = 0;
    loop {
        let provider = shop.open();
        let steps = provider.plan_switch(&handle, Id::random()).unwrap();
        let killed = killed_before_call(calls, || steps.iter().for_each(|step| provider.perform(step).unwrap()));
        let provider = shop.open();
        changed += u32::from(killed && describe(&shop.directory, &shop.apart) != now);
        if calls % 2 == 0 {
            steps.iter().for_each(|step| provider.perform(step).unwrap());
            let which = format!("killed before call {calls}, and finished");
            assert_same(&describe(&shop.directory, &shop.apart), &then, &which);
            assert_in_place(&shop.directory, &shop.apart, &which);
        }
        steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
        let which = format!("killed before call {calls}, and taken back");
        assert_same(&describe(&shop.directory, &shop.apart), &now, &which);
        assert_in_place(&shop.directory, &shop.apart, &which);
        if !killed {
            break;
        }
        calls += 1;
    }
    // What is looked up before the first change, and what is closed after the last one, are calls too.
    assert!(calls > 10 && changed > 0, "{calls} calls, {changed} of them after a change");
}

#[test]
fn a_rollback_that_is_killed_at_any_moment_is_finished_or_taken_back() {
    is_finished_or_taken_back_when_killed(&Subvolume::in_another_subvolume().furnished());
}

#[test]
fn a_rollback_of_mounts_that_is_killed_at_any_moment_is_finished_or_taken_back() {
    is_finished_or_taken_back_when_killed(&Subvolume::of_its_own_mount("--make-shared").furnished());
}
