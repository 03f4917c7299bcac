//! Jobs whose disks run full, and prunes that are in somebody's way after they have begun.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::job::{Pruned, check};
use policy::{Count, Keep};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use snapshot::state::State;

use crate::site::{Phases, Site};

/// A small file system in memory, unmounted when this is dropped.
struct Small(PathBuf);

impl Small {
    fn at(path: PathBuf, size: &str) -> Small {
        fs::create_dir(&path).unwrap();
        let data = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("none", &path, "tmpfs", MountFlags::empty(), Some(&*data)).unwrap();
        Small(path)
    }

    /// Fills it but for so many pages.
    fn fill(&self, free_pages: usize) {
        let mut filler = File::create(self.filler()).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
        let length = filler.metadata().unwrap().len();
        filler.set_len(length.saturating_sub(free_pages as u64 * 4096)).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// What compresses to no less.
fn noise(seed: u32) -> String {
    (0..200_000_u32).map(|number| format!("{:x} ", number.wrapping_mul(2_654_435_761).rotate_left(seed))).collect()
}

fn is_whole(site: &Site, repository: &str) -> bool {
    let repository = &site.config.repositories[repository];
    site.with_context(|context| check::run(context, repository, Some(100.0))).unwrap().errors.is_empty()
}

#[test]
fn a_repository_whose_disk_runs_full_fails_alone_and_is_whole_when_there_is_room() {
    let mut site = Site::new();
    let small = Small::at(site.path("small"), "4m");
    site.add_repository("small");
    small.fill(64);
    site.write("index", &noise(1));
    let backups = site.back_up().unwrap();
    assert!(backups.into[0].backup.is_ok(), "the other one has its backup");
    let error = backups.into[1].backup.as_ref().unwrap_err().to_string();
    assert!(error.contains("No space left on device") && error.contains("small"), "{error}");
    assert_eq!(fs::read_dir(site.path("small/locks")).unwrap().count(), 0, "nobody has to unlock it");
    assert_eq!(fs::read_dir(site.path("small/snapshots")).unwrap().count(), 0);
    fs::remove_file(small.filler()).unwrap();
    assert!(site.back_up().unwrap().into.iter().all(|into| into.backup.is_ok()));
    assert!(is_whole(&site, "small"));
    assert_eq!(site.snapshots().len(), 2, "one snapshot of each subvolume is the base for both");
}

#[test]
fn a_state_directory_whose_disk_is_full_at_any_point_loses_nothing() {
    let mut site = Site::new();
    let small = Small::at(site.path("small"), "512k");
    site.state = State::open(site.path("small/state")).unwrap();
    site.back_up().unwrap();
    for free_pages in 0..12 {
        small.fill(free_pages);
        site.write("index", &free_pages.to_string());
        // Without room for what is known of snapshots, the live tree is read: a backup is worth more than its moment.
        match site.back_up() {
            Ok(backups) => assert!(backups.into[0].backup.is_ok(), "{:?}", backups.into[0].backup),
            Err(error) => assert!(error.to_string().contains("No space left on device"), "{error} ({free_pages} free)"),
        }
        fs::remove_file(small.filler()).unwrap();
        site.back_up().unwrap().into.remove(0).backup.unwrap();
        assert_eq!(site.snapshots().len(), 2, "what was cut short is gone ({free_pages} free)");
        assert_eq!(snapshots_on(site.shop().parent().unwrap()), 2, "on the storage, too ({free_pages} free)");
    }
    let told = site.told.all();
    assert!(told.contains("No space left on device"), "it never was full, or nobody said so: {told}");
    assert!(is_whole(&site, "offsite"));
}

fn snapshots_on(top: &Path) -> usize {
    fs::read_dir(top.join(".snapback")).unwrap().count()
}

#[test]
fn a_prune_gives_way_in_whichever_phase_a_backup_wants_the_repository() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    site.write("index", &noise(1));
    site.back_up().unwrap();
    let id = site.open("offsite").config().id;
    let wanted = Arc::new(File::open(site.state.root().join(format!("repository/{id}.wanted"))).unwrap());
    let mut gave_way = 0;
    for at in 0.. {
        let (phase, wants) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&wanted));
        let Phases(act) = &site.told.2;
        *act.lock().unwrap() = Some(Box::new(move || {
            if phase.fetch_add(1, Ordering::Relaxed) == at {
                rustix::fs::flock(&wants, rustix::fs::FlockOperation::LockShared).unwrap();
            }
        }));
        site.write("index", &noise(at as u32 + 2));
        let pruned = site.back_up().unwrap().into.remove(0).pruned.unwrap().unwrap();
        rustix::fs::flock(&wanted, rustix::fs::FlockOperation::Unlock).unwrap();
        assert!(is_whole(&site, "offsite"), "after {pruned:?} in phase {at}");
        assert_eq!(fs::read_dir(site.path("offsite/locks")).unwrap().count(), 0);
        match pruned {
            Pruned::GaveWay => gave_way += 1,
            // It has no such phase, or its last one is too short to ask once more.
            Pruned::Freed(_) => break,
            other => panic!("{other:?} in phase {at}"),
        }
    }
    assert!(gave_way >= 2, "only in {gave_way} phases");
}
