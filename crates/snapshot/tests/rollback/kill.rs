//! kill -9 at every moment of a rollback: the next start leaves exactly the old state or exactly the new one.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment when to die")]

use std::env;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use snapshot::manage;
use snapshot::provider::{Handle, Provider as _};
use snapshot::rollback::recover::recover;
use snapshot::rollback::run::run;
use snapshot::rollback::{Request, newest_safety};

use crate::site::{Commands, NOW, Site, fill, look};

const ROOT: &str = "SNAPBACK_TEST_ROOT";
const DIES_AT: &str = "SNAPBACK_TEST_DIES_AT";

/// Performs a rollback in another process, which kills itself before the act of this number. `false` if there is no
/// such act, for all was done before.
fn rollback_that_dies(test: &str, root: &Path, at: usize) -> bool {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(ROOT, root).env(DIES_AT, at.to_string());
    let status = child.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
    assert!(status.success() || status.signal() == Some(9), "the child ended with {status}");
    !status.success()
}

/// What the child does; does not return if it is to die.
fn be_the_child(keeps_old_tree: bool, request: Request) -> bool {
    let (Some(root), Some(at)) = (env::var_os(ROOT), env::var(DIES_AT).ok()) else { return false };
    let (site, at) = (Site::at(Path::new(&root), keeps_old_tree), at.parse::<usize>().unwrap());
    let commands = Commands::default();
    let to = site.state.find("latest", None).unwrap();
    let plan = site.plan(&commands, &to, request);
    let mut acts = 0;
    let mut observe = |_: &str| {
        if acts == at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        acts += 1;
    };
    run(&site.lock(), &site.plain, &commands, plan, NOW, &mut observe).unwrap();
    true
}

fn survives_at_every_moment(test: &str, keeps_old_tree: bool, request: Request) {
    if be_the_child(keeps_old_tree, request) {
        return;
    }
    let (mut old_states, mut new_states) = (0, 0);
    for at in 0.. {
        let root = tempfile::tempdir().unwrap();
        let site = Site::at(root.path(), keeps_old_tree);
        fill(&site.plain.directory, true);
        let target = site.snapshot();
        let target_tree = look(&site.plain.directory);
        fill(&site.plain.directory, false);
        let old_tree = look(&site.plain.directory);

        let died = rollback_that_dies(test, root.path(), at);

        let mut interrupted = 0;
        for recovered in recover(&site.lock(), &Commands::default(), &site.open(), &mut |_| {}).unwrap() {
            recovered.ending.unwrap();
            interrupted += 1;
        }
        // Recovering again finds nothing to do.
        assert!(recover(&site.lock(), &Commands::default(), &site.open(), &mut |_| {}).unwrap().is_empty());
        let now = look(&site.plain.directory);
        let Some(Handle::Reflink { path }) = &target.handle else { unreachable!() };
        assert_eq!(look(path), target_tree, "the snapshot is as it was (killed before act {at})");
        let lies_there = site.plain.list().unwrap();
        let known: Vec<_> = site.state.records().unwrap();
        assert_eq!(known.len(), lies_there.len(), "records and snapshots match (killed before act {at})");
        assert!(known.iter().all(|record| lies_there.contains(&(record.id, record.handle.clone().unwrap()))));
        if now == old_tree {
            old_states += 1;
            assert_eq!(lies_there.len(), 1, "nothing is left over (killed before act {at})");
        } else {
            new_states += 1;
            assert_eq!(now, target_tree, "neither the old nor the new state (killed before act {at})");
            let safety = newest_safety(&site.state, &site.plain.directory).unwrap();
            let Some(Handle::Reflink { path }) = &safety.handle else { unreachable!() };
            assert_eq!(look(path), old_tree, "the old state is kept (killed before act {at})");
        }
        // All goes on as ever.
        manage::delete(&site.lock(), &site.plain, target.id).unwrap();
        if !died {
            assert_eq!((&now, interrupted), (&target_tree, 0));
            break;
        }
    }
    assert!(old_states >= 6 && new_states >= 2, "killed in {old_states} old and {new_states} new states");
}

fn with_units_and_probe() -> Request {
    Request { stop: vec!["shop.service".into()], probe: vec!["true".into()], ..Request::default() }
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_or_the_new_state() {
    survives_at_every_moment(
        "kill::a_kill_at_any_moment_leaves_the_old_or_the_new_state",
        true,
        with_units_and_probe(),
    );
}

#[test]
fn a_kill_at_any_moment_is_survived_where_the_present_state_is_copied_first() {
    survives_at_every_moment(
        "kill::a_kill_at_any_moment_is_survived_where_the_present_state_is_copied_first",
        false,
        Request { restart: vec!["shop.service".into()], ..Request::default() },
    );
}
