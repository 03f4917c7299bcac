//! A state directory that runs full or turns read-only at any moment: a clear error, and the state of before.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{IFlags, ioctl_setflags};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use snapshot::error::Error;
use snapshot::manage;
use snapshot::rollback::Request;
use snapshot::rollback::recover::recover;
use snapshot::rollback::run::run;
use snapshot::state::State;
use tempfile::TempDir;

use crate::disk::Disk;
use crate::site::{Commands, NOW, Site, asked, fill, look};

/// A small file system in memory for the state directory, unmounted when this is dropped.
struct Small(TempDir);

impl Small {
    fn new() -> Small {
        let small = Small(tempfile::tempdir().unwrap());
        mount("none", small.0.path(), "tmpfs", MountFlags::empty(), Some(c"size=64k")).unwrap();
        small
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run_full(&self) {
        let mut filler = File::create(self.path().join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    fn mend(&self) {
        let _ = fs::remove_file(self.path().join("filler"));
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

/// Breaks a state directory before each act of a rollback, and mends it then.
fn rolls_back_or_not(keeps_old_tree: bool, says: &str, make: impl Fn() -> (State, Break)) {
    let mut errors = 0;
    for at in 0.. {
        let root = tempfile::tempdir().unwrap();
        let mut site = Site::at(root.path(), keeps_old_tree);
        let (state, set_broken) = make();
        site.state = state;
        fill(&site.plain.directory, false);
        let (to, then) = (site.snapshot(), look(&site.plain.directory));
        fill(&site.plain.directory, true);
        let before = look(&site.plain.directory);
        let commands = Commands::default();
        let plan = site.plan(&commands, &to, Request { probe: vec!["true".into()], ..Request::default() });
        let mut acts = 0;
        let mut observe = |_: &str| {
            if acts == at {
                set_broken(true);
            }
            acts += 1;
        };
        let lock = site.lock();
        let outcome = run(&lock, &[&site.plain], &commands, plan, NOW, &mut observe);
        let now = look(&site.plain.directory);
        match outcome {
            Ok(_) => assert_eq!(now, then),
            Err(error) => {
                errors += 1;
                assert!(error.to_string().contains(says), "{error} (broken before act {at})");
                // Of what is switched, only the journal may be left to clear.
                assert!(now == before || (now == then && matches!(error, Error::Io { .. })), "{error} (act {at})");
            }
        }
        set_broken(false);
        for one in recover(&lock, &commands, &site.open(), &mut |_| {}).unwrap() {
            one.ending.unwrap();
        }
        assert_eq!(look(&site.plain.directory), now, "recovery leaves the state that was told (act {at})");
        let left = site.state.records().unwrap().len();
        assert_eq!(left, if now == before { 1 } else { 2 }, "act {at}");
        // All goes on as ever.
        manage::create(&lock, &site.plain, asked(), NOW).unwrap();
        if acts <= at {
            break;
        }
    }
    assert!(errors > 3, "only {errors} errors");
}

/// Breaks it, or mends it.
type Break = Box<dyn Fn(bool)>;

#[test]
fn a_state_directory_that_runs_full_at_any_moment() {
    for keeps_old_tree in [true, false] {
        rolls_back_or_not(keeps_old_tree, "No space left on device", || {
            let small = Small::new();
            let state = State::open(small.path().join("state")).unwrap();
            (state, Box::new(move |is_full| if is_full { small.run_full() } else { small.mend() }))
        });
    }
}

#[test]
fn a_state_directory_that_cannot_be_changed_from_any_moment_on() {
    let (disk, number) = (Disk::ext4(), AtomicUsize::new(0));
    for keeps_old_tree in [true, false] {
        rolls_back_or_not(keeps_old_tree, "Operation not permitted", || {
            let state = disk.path().join(number.fetch_add(1, Ordering::Relaxed).to_string());
            let state = State::open(state).unwrap();
            let directories = ["journal", "snapshots"].map(|name| File::open(state.root().join(name)).unwrap());
            let set = move |is_broken| {
                let flags = if is_broken { IFlags::IMMUTABLE } else { IFlags::empty() };
                directories.iter().for_each(|directory| ioctl_setflags(directory, flags).unwrap());
            };
            (state, Box::new(set))
        });
    }
}

#[test]
fn a_read_only_state_directory_is_told_before_anything_begins() {
    let small = Small::new();
    let state = State::open(small.path()).unwrap();
    mount_remount(small.path(), MountFlags::RDONLY, "").unwrap();
    let error = state.lock(&mut || {}).unwrap_err();
    let lock = small.path().join("lock");
    assert_eq!(error.to_string(), format!("cannot open {}: Read-only file system (os error 30)", lock.display()));
}

#[test]
fn a_creation_that_cannot_be_recorded_leaves_nothing() {
    let (root, small) = (tempfile::tempdir().unwrap(), Small::new());
    let mut site = Site::at(root.path(), true);
    site.state = State::open(small.path().join("state")).unwrap();
    let lock = site.lock();
    small.run_full();
    let error = manage::create(&lock, &site.plain, asked(), NOW).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    assert_eq!(fs::read_dir(&site.plain.store).unwrap().count(), 0);
    small.mend();
    assert!(site.state.records().unwrap().is_empty());
    manage::create(&lock, &site.plain, asked(), NOW).unwrap();
}
