//! kill -9 before every step: what was cut short is finished or put back, and nothing is lost.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment when to die")]

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use snapshot::adopt::{Ended, Job};

use crate::disk::{assert_same, shell};
use crate::site::{Site, ext4};

const ROOT: &str = "SNAPBACK_TEST_ROOT";
const DIES_AT: &str = "SNAPBACK_TEST_DIES_AT";
const GOES_BACK: &str = "SNAPBACK_TEST_GOES_BACK";

/// Moves the directory in another process, which kills itself before the step of this number. `false` if there is no
/// such step, for all was done before.
fn moves_and_dies(test: &str, root: &Path, goes_back: bool, at: usize) -> bool {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(ROOT, root).env(DIES_AT, at.to_string());
    child.env(GOES_BACK, if goes_back { "yes" } else { "no" });
    let status = child.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
    assert!(status.success() || status.signal() == Some(9), "the child ended with {status}");
    !status.success()
}

/// What the child does; does not return if it is to die.
fn be_the_child() -> bool {
    let (Some(root), Ok(at)) = (env::var_os(ROOT), env::var(DIES_AT)) else { return false };
    let (site, at) = (Site::at(Path::new(&root)), at.parse::<usize>().unwrap());
    let plan = if env::var(GOES_BACK).as_deref() == Ok("yes") { site.plan_back() } else { site.plan() };
    let mut steps = 0;
    let mut observe = |_: &str| {
        if steps == at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        steps += 1;
    };
    plan.job.run(&site.lock(), &site.commands, &mut observe).unwrap();
    true
}

fn unfinished(site: &Site) -> Option<Job> {
    let mut jobs = Job::unfinished(&site.state()).unwrap();
    assert!(jobs.len() <= 1);
    jobs.pop()
}

#[derive(Clone, Copy, PartialEq)]
enum Then {
    Finish,
    Settle,
}

fn go_on(site: &Site, then: Then, when: &str) -> Option<Ended> {
    let job = unfinished(site)?;
    let lock = site.lock();
    let ended = match then {
        Then::Finish => job.finish(&lock, &site.commands, &mut |_| {}).map(|()| Ended::Finished),
        Then::Settle => job.settle(&lock, &site.commands, &mut |_| {}),
    };
    Some(ended.unwrap_or_else(|error| panic!("{when}: {error}")))
}

/// Gives how often it was put back, and how often it was finished.
fn moves(test: &str, goes_back: bool, then: Then) -> Option<(u32, u32)> {
    if be_the_child() {
        return None;
    }
    let disk = ext4();
    let site = Site::new(&disk);
    if goes_back {
        site.adopt().unwrap();
    }
    let (mut reverted, mut finished) = (0, 0);
    for at in 0.. {
        shell(&site.directory(), &format!("echo {at} >> counted; echo {at} > made-{at}; touch -d 2003-03-03 ."));
        let before = site.describe();
        let died = moves_and_dies(test, &site.root, goes_back, at);
        let when = format!("killed before step {at}");
        let ended = go_on(&site, then, &when);
        assert_same(&site.describe(), &before);
        shell(&site.directory(), "echo writable > file; rm file");
        let is_reverted = ended == Some(Ended::Reverted);
        match goes_back == is_reverted {
            true => site.assert_with_volume(&when),
            false => site.assert_without_volume(&when),
        }
        reverted += u32::from(is_reverted);
        finished += u32::from(!is_reverted);
        match goes_back {
            _ if is_reverted => {}
            true => site.adopt().unwrap(),
            false => site.go_back().unwrap(),
        }
        if !died {
            break;
        }
    }
    Some((reverted, finished))
}

#[test]
fn a_move_that_was_killed_is_finished() {
    let ended = moves("kill::a_move_that_was_killed_is_finished", false, Then::Finish);
    assert!(ended.is_none_or(|ended| ended == (0, 15)), "{ended:?}");
}

#[test]
fn a_move_that_was_killed_is_put_back_before_the_switch() {
    let ended = moves("kill::a_move_that_was_killed_is_put_back_before_the_switch", false, Then::Settle);
    assert!(ended.is_none_or(|ended| ended == (10, 5)), "{ended:?}");
}

#[test]
fn a_move_back_that_was_killed_is_finished() {
    let ended = moves("kill::a_move_back_that_was_killed_is_finished", true, Then::Finish);
    assert!(ended.is_none_or(|ended| ended == (0, 13)), "{ended:?}");
}

#[test]
fn a_move_back_that_was_killed_is_put_back_before_the_switch() {
    let ended = moves("kill::a_move_back_that_was_killed_is_put_back_before_the_switch", true, Then::Settle);
    assert!(ended.is_none_or(|ended| ended == (8, 5)), "{ended:?}");
}
