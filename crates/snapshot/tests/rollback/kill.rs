//! kill -9 at every moment of a rollback: the next start leaves exactly the old state or exactly the new one.
//!
//! The moments are before each act of the rollback, the notes in the journal among them; where the provider is the
//! tests' own, also the beginning and the end of each of its acts.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment when to die")]

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use snapshot::btrfs::{self, Place};
use snapshot::manage;
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Open, Provider};
use snapshot::reflink::provider::Reflink;
use snapshot::rollback::recover::recover;
use snapshot::rollback::run::run;
use snapshot::rollback::{Member, Request, gather, newest_safety};
use snapshot::state::{Lock, State};

use crate::disk::{Disk, shell};
use crate::plain::Plain;
use crate::site::{Commands, NOW, asked, fill, look};

pub(super) const ROOT: &str = "SNAPBACK_TEST_ROOT";
pub(super) const ROLE: &str = "SNAPBACK_TEST_ROLE";
pub(super) const DIES_AT: &str = "SNAPBACK_TEST_DIES_AT";

/// Counts moments, and kills this process at one of them.
pub(super) type Clock = Arc<dyn Fn() + Send + Sync>;

pub(super) fn deadly_clock(at: usize) -> Clock {
    let moments = AtomicUsize::new(0);
    Arc::new(move || {
        if moments.fetch_add(1, Ordering::SeqCst) == at {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    })
}

/// A directory to roll back, on some storage; the paths are the same for parent and child.
trait Ground {
    /// Makes it, and everything else that is needed, in a directory of its own.
    fn prepare(&self, root: &Path);
    fn directory(&self, root: &Path) -> PathBuf;
    fn state(&self, root: &Path) -> State;
    fn provider(&self, root: &Path, clock: Option<Clock>) -> Box<dyn Provider>;
    /// The probe fails, and all is taken back.
    fn fails(&self) -> bool {
        false
    }
}

/// Performs a rollback or a recovery in another process, which kills itself at a moment. `false` if there is no such
/// moment, for all was done before.
pub(super) fn dies(test: &str, role: &str, root: &Path, at: usize) -> bool {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(ROOT, root).env(ROLE, role).env(DIES_AT, at.to_string());
    let status = child.stdout(Stdio::null()).stderr(Stdio::inherit()).status().unwrap();
    assert!(status.success() || status.signal() == Some(9), "the child ended with {status}");
    !status.success()
}

/// What the child does; does not return if it is to die.
fn be_the_child(ground: &dyn Ground, request: Request) -> bool {
    let (Some(root), Ok(role), Ok(at)) = (env::var_os(ROOT), env::var(ROLE), env::var(DIES_AT)) else { return false };
    let root = Path::new(&root);
    let clock = deadly_clock(at.parse().unwrap());
    let lock = ground.state(root).lock(&mut || {}).unwrap();
    let mut observe = |_: &str| clock();
    if role == "rollback" {
        let provider = ground.provider(root, Some(Arc::clone(&clock)));
        let to = lock.state().find("latest", None).unwrap();
        let commands = Commands { failing: ground.fails().then_some("true "), ..Commands::default() };
        let plan = gather(lock.state(), &[Member::new(&*provider, &to)], &commands, request).unwrap();
        let outcome = run(&lock, &[&*provider], &commands, plan, NOW, &mut observe);
        assert_eq!(outcome.is_err(), ground.fails(), "{outcome:?}");
    } else {
        let open = |_: &Path, _: &Handle| Ok(ground.provider(root, Some(Arc::clone(&clock))));
        recover_all(&lock, &open, &mut observe);
    }
    true
}

/// How many there were.
pub(super) fn recover_all(lock: &Lock, open: &Open<'_>, observe: &mut dyn FnMut(&str)) -> usize {
    let recovered = recover(lock, &Commands::default(), open, observe).unwrap();
    let number = recovered.len();
    recovered.into_iter().for_each(|recovered| drop(recovered.ending.unwrap()));
    number
}

/// What a tree looks like, without what a snapshot of it does not have: nested subvolumes and mounts.
fn own(root: &Path) -> Vec<String> {
    let is_own = |line: &String| !["nested", "point"].iter().any(|name| line.starts_with(name));
    look(root).into_iter().filter(is_own).collect()
}

/// A rollback killed at each moment, and recovered. After every so many of them,
/// `recoveries`, the recovery is killed at each of its moments, too; never if that is 0.
fn survives(test: &str, root: &Path, ground: &dyn Ground, request: Request, recoveries: usize) {
    if be_the_child(ground, request) {
        return;
    }
    let (mut old_states, mut new_states, mut number) = (0, 0, 0);
    let mut is_over = false;
    for at in 0.. {
        for recovery_at in 0.. {
            let case = format!("killed at moment {at}, recovery at moment {recovery_at}");
            let root = root.join(number.to_string());
            number += 1;
            fs::create_dir(&root).unwrap();
            ground.prepare(&root);
            let (directory, state) = (ground.directory(&root), ground.state(&root));
            let provider = ground.provider(&root, None);
            fill(&directory, true);
            let target = manage::create(&state.lock(&mut || {}).unwrap(), &*provider, asked(), NOW).unwrap();
            let (target_tree, target_alone) = (look(&directory), own(&directory));
            fill(&directory, false);
            let (old_tree, old_alone) = (look(&directory), own(&directory));

            let died = dies(test, "rollback", &root, at);
            let died_again = recoveries > 0 && at % recoveries == 0 && dies(test, "recovery", &root, recovery_at);

            let lock = state.lock(&mut || {}).unwrap();
            let open = |_: &Path, _: &Handle| Ok(ground.provider(&root, None));
            let interrupted = recover_all(&lock, &open, &mut |_| {});
            assert_eq!(recover_all(&lock, &open, &mut |_| {}), 0, "all is done ({case})");

            let now = look(&directory);
            let provider = ground.provider(&root, None);
            let tree_of = |handle: &Option<Handle>| own(provider.view(handle.as_ref().unwrap()).unwrap().path());
            let lies_there = provider.list().unwrap();
            let known = state.records().unwrap();
            assert_eq!(known.len(), lies_there.len(), "records and snapshots match ({case})");
            assert!(known.iter().all(|record| lies_there.contains(&(record.id, record.handle.clone().unwrap()))));
            let is_used_up = now != old_tree && !provider.abilities().keeps_snapshot;
            if !is_used_up {
                assert_eq!(tree_of(&target.handle), target_alone, "the snapshot is as it was ({case})");
            }
            if now == old_tree {
                old_states += 1;
                assert_eq!(lies_there.len(), 1, "nothing is left over ({case})");
            } else {
                new_states += 1;
                assert_eq!(now, target_tree, "it is the new state ({case})");
                let safety = newest_safety(&state, &directory).unwrap();
                assert_eq!(tree_of(&safety.handle), old_alone, "the old state is kept ({case})");
            }
            // All goes on as ever.
            assert_eq!(manage::delete(&lock, &*provider, target.id).is_err(), is_used_up, "{case}");
            manage::create(&lock, &*provider, asked(), NOW).unwrap();
            if !died {
                assert_eq!((&now, interrupted), (if ground.fails() { &old_tree } else { &target_tree }, 0));
                is_over = true;
            }
            if !died_again {
                break;
            }
        }
        if is_over {
            break;
        }
    }
    let is_as_expected = if ground.fails() { new_states == 0 } else { new_states >= 2 };
    assert!(old_states >= 6 && is_as_expected, "killed in {old_states} old and {new_states} new states");
}

pub(super) fn with_units_and_probe() -> Request {
    Request { stop: vec!["shop.service".into()], probe: vec!["true".into()], ..Request::default() }
}

/// A directory in memory: there are hundreds of rollbacks, and none waits for a disk.
pub(super) fn quick() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}

/// The tests' own provider.
struct Directories {
    keeps_old_tree: bool,
    fails: bool,
}

impl Ground for Directories {
    fn prepare(&self, root: &Path) {
        fs::create_dir(root.join("live")).unwrap();
        fs::create_dir(root.join("store")).unwrap();
    }

    fn directory(&self, root: &Path) -> PathBuf {
        root.join("live")
    }

    fn state(&self, root: &Path) -> State {
        State::open(root.join("state")).unwrap()
    }

    fn provider(&self, root: &Path, clock: Option<Clock>) -> Box<dyn Provider> {
        let (directory, store) = (root.join("live"), root.join("store"));
        Box::new(Plain { directory, store, keeps_old_tree: self.keeps_old_tree, clock })
    }

    fn fails(&self) -> bool {
        self.fails
    }
}

#[test]
fn a_kill_at_any_moment_leaves_the_old_or_the_new_state() {
    let root = quick();
    let test = "kill::a_kill_at_any_moment_leaves_the_old_or_the_new_state";
    let ground = Directories { keeps_old_tree: true, fails: false };
    survives(test, &root.path().canonicalize().unwrap(), &ground, with_units_and_probe(), 2);
}

#[test]
fn a_kill_at_any_moment_is_survived_where_the_present_state_is_copied_first() {
    let root = quick();
    let test = "kill::a_kill_at_any_moment_is_survived_where_the_present_state_is_copied_first";
    let request = Request { restart: vec!["shop.service".into()], ..Request::default() };
    survives(
        test,
        &root.path().canonicalize().unwrap(),
        &Directories { keeps_old_tree: false, fails: false },
        request,
        0,
    );
}

#[test]
fn a_kill_at_any_moment_of_taking_back_leaves_the_old_state() {
    let root = quick();
    let test = "kill::a_kill_at_any_moment_of_taking_back_leaves_the_old_state";
    let ground = Directories { keeps_old_tree: true, fails: true };
    survives(test, &root.path().canonicalize().unwrap(), &ground, with_units_and_probe(), 0);
}

/// A subvolume of a real btrfs with a nested subvolume and a mount below it, in the mounted top level or as a mount of
/// its own.
struct Subvolume {
    is_mounted: bool,
}

impl Ground for Subvolume {
    fn prepare(&self, root: &Path) {
        let directory = self.directory(root);
        shell(root, "btrfs -q subvolume create @live");
        if self.is_mounted {
            fs::create_dir(&directory).unwrap();
            let script = r#"
                device=$(findmnt -n -o SOURCE -T . | sed 's/\[.*//'); subvolume=$(btrfs subvolume show @live | head -n 1)
                mount -o "subvol=$subvolume" "$device" live
            "#;
            shell(root, script);
        }
        shell(&directory, "mkdir point; mount -t tmpfs none point; echo stays > point/stays");
        shell(&directory, "btrfs -q subvolume create nested; echo stays > nested/stays");
    }

    fn directory(&self, root: &Path) -> PathBuf {
        root.join(if self.is_mounted { "live" } else { "@live" })
    }

    fn state(&self, root: &Path) -> State {
        State::open(root.join("state")).unwrap()
    }

    fn provider(&self, root: &Path, _: Option<Clock>) -> Box<dyn Provider> {
        match btrfs::open(&self.directory(root), &mounts().unwrap()).unwrap() {
            Some(Place::Subvolume(provider)) => Box::new(provider),
            other => panic!("{other:?}"),
        }
    }
}

fn survives_on_btrfs(test: &str, is_mounted: bool) {
    let ground = Subvolume { is_mounted };
    if be_the_child(&ground, with_units_and_probe()) {
        return;
    }
    let disk = Disk::btrfs();
    // The more is to be switched, the more can go wrong when it is taken back.
    survives(test, &disk.path(), &ground, with_units_and_probe(), if is_mounted { 4 } else { 0 });
}

/// A directory on a real XFS, with a mount below it.
struct Clones;

impl Ground for Clones {
    fn prepare(&self, root: &Path) {
        shell(root, "mkdir -p live/point; mount -t tmpfs none live/point; echo stays > live/point/stays");
    }

    fn directory(&self, root: &Path) -> PathBuf {
        root.join("live")
    }

    fn state(&self, root: &Path) -> State {
        State::open(root.join("state")).unwrap()
    }

    fn provider(&self, root: &Path, _: Option<Clock>) -> Box<dyn Provider> {
        Box::new(Reflink::open(&self.directory(root)).unwrap())
    }
}

#[test]
fn a_kill_at_any_moment_is_survived_by_clones_on_a_real_xfs() {
    if be_the_child(&Clones, with_units_and_probe()) {
        return;
    }
    let (disk, test) = (Disk::xfs(), "kill::a_kill_at_any_moment_is_survived_by_clones_on_a_real_xfs");
    survives(test, &disk.path(), &Clones, with_units_and_probe(), 0);
}

#[test]
fn a_kill_at_any_moment_is_survived_by_a_subvolume_of_a_real_btrfs() {
    survives_on_btrfs("kill::a_kill_at_any_moment_is_survived_by_a_subvolume_of_a_real_btrfs", false);
}

#[test]
fn a_kill_at_any_moment_is_survived_by_a_mounted_subvolume_of_a_real_btrfs() {
    survives_on_btrfs("kill::a_kill_at_any_moment_is_survived_by_a_mounted_subvolume_of_a_real_btrfs", true);
}
