//! Rollbacks of which the process is killed between any two system calls.

use std::time::Duration;

use snapshot::id::Id;

use super::Subvolume;
use crate::process::killed_after;
use crate::suite::{Fixture as _, assert_in_place};
use crate::tree::{assert_same, change, describe, fill};

fn is_finished_or_taken_back_when_killed(shop: &Subvolume) {
    fill(&shop.directory);
    let provider = shop.open();
    let then = describe(&shop.directory, &shop.apart);
    let handle = provider.create(Id::random()).unwrap();
    change(&shop.directory);
    let now = describe(&shop.directory, &shop.apart);
    let mut was_cut_off = 0;
    for attempt in 0..24_u32 {
        let provider = shop.open();
        let steps = provider.plan_switch(&handle, Id::random()).unwrap();
        let whole = Duration::from_millis(25);
        killed_after(whole * attempt / 24, || steps.iter().for_each(|step| provider.perform(step).unwrap()));
        let provider = shop.open();
        was_cut_off += u32::from(describe(&shop.directory, &shop.apart) != then);
        if attempt % 2 == 0 {
            steps.iter().for_each(|step| provider.perform(step).unwrap());
            let which = format!("after attempt {attempt} was finished");
            assert_same(&describe(&shop.directory, &shop.apart), &then, &which);
            assert_in_place(&shop.directory, &shop.apart, &which);
        }
        steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
        let which = format!("after attempt {attempt} was taken back");
        assert_same(&describe(&shop.directory, &shop.apart), &now, &which);
        assert_in_place(&shop.directory, &shop.apart, &which);
    }
    assert!(was_cut_off > 3, "it was cut off {was_cut_off} times only");
}

#[test]
fn a_rollback_that_is_killed_at_any_moment_is_finished_or_taken_back() {
    is_finished_or_taken_back_when_killed(&Subvolume::in_another_subvolume().furnished());
}

#[test]
fn a_rollback_of_mounts_that_is_killed_at_any_moment_is_finished_or_taken_back() {
    is_finished_or_taken_back_when_killed(&Subvolume::of_its_own_mount("--make-shared").furnished());
}
