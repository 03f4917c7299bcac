//! Backups from snapshots, and from where there are none.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use backup::archive;
use backup::attributes::Zone;
use engine::catalog::{LIVE_TAG, Outcome, Task};
use engine::job::lock::ProjectLock;
use engine::job::{Backups, Error, Made, Walk};
use policy::{Count, Keep};
use repository::blob_writer::Destination;
use repository::id::Id;
use repository::lock::Lock;
use snapshot::manage::{self, Request};
use snapshot::provider::Provider;
use snapshot::record::Purpose;
use snapshot::runner::System;
use snapshot::{detect, mounts};

use crate::site::{Site, holder};

fn made(backups: &Backups) -> &Made {
    backups.into[0].backup.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

/// That of the project's directory in a backup: what lies above it is everybody's.
fn shop_in(site: &Site, root: Id) -> Id {
    let repository = site.open("offsite");
    let index = repository.load_index().unwrap();
    let found = backup::read::find_path(&mut repository.reader(&index), root, &site.shop());
    found.unwrap().tree().unwrap()
}

/// The tree that a walk of the live directory gives.
fn live_tree(site: &Site) -> Id {
    struct Strict;
    impl backup::progress::Progress for Strict {
        fn error(&self, path: &std::path::Path, error: &dyn std::fmt::Display) {
            panic!("{}: {error}", path.display());
        }
    }
    let repository = site.open("offsite");
    let lock = Arc::new(Lock::acquire(&repository, false, &holder()).unwrap());
    let index = Arc::new(repository.load_index().unwrap());
    let options = archive::Options {
        paths: vec![site.shop()],
        elsewhere: Vec::new(),
        exclude: None,
        exclude_caches: false,
        exclude_larger_than: None,
        one_file_system: false,
        parent: None,
        changed: None,
        zone: Zone::new(jiff::tz::TimeZone::UTC),
        progress: &Strict,
    };
    let outcome = archive::archive(&repository, &index, Destination::Repository(lock), &options).unwrap();
    shop_in(site, outcome.tree.unwrap())
}

#[test]
fn a_project_is_backed_up_from_snapshots_of_all_its_subvolumes_under_its_own_paths() {
    let site = Site::new();
    let backups = site.back_up().unwrap();
    let made = made(&backups);
    assert_eq!(made.record.tags, ["project=shop"], "{}", site.told.all());
    assert_eq!(made.record.paths.iter().map(PathBuf::from).collect::<Vec<_>>(), [site.shop()]);
    assert_eq!(made.summary.total_files_processed, 2, "that of the subvolume in the subvolume, too");
    assert_eq!(shop_in(&site, made.record.tree), live_tree(&site), "as if it had been read where it is");
    let snapshots = site.snapshots();
    assert_eq!(snapshots.len(), 2, "one of each subvolume stays as the base: {snapshots:?}");
    for snapshot in &snapshots {
        assert_eq!((snapshot.project.as_deref(), snapshot.expires), (Some("shop"), None));
        assert_eq!((snapshot.purpose, snapshot.group), (Purpose::Backup, snapshots[0].group));
    }
}

#[test]
fn the_next_backup_looks_only_at_what_changed_and_every_so_often_at_everything() {
    let mut site = Site::new();
    site.plan().backup.as_mut().unwrap().full_walk = 3;
    let mut bases = Vec::new();
    for (round, is_full) in [(0, true), (1, false), (2, false), (3, true), (4, false)] {
        site.write("db/table", &format!("round {round}"));
        let backups = site.back_up().unwrap();
        let made = made(&backups);
        assert_eq!(matches!(made.walk, Walk::Full { .. }), is_full, "round {round}: {:?}", made.walk);
        assert_eq!(shop_in(&site, made.record.tree), live_tree(&site));
        let ids: Vec<_> = site.snapshots().iter().map(|record| record.id).collect();
        assert_eq!(ids.len(), 2, "the base of before is gone");
        assert!(ids.iter().all(|id| !bases.contains(id)));
        bases = ids;
    }
}

#[test]
fn any_doubt_leads_to_a_look_at_everything() {
    let mut site = Site::new();
    site.back_up().unwrap();
    let why = |site: &Site| match &made(&site.back_up().unwrap()).walk {
        Walk::Full { why } => why.clone(),
        Walk::Changed => "none".to_owned(),
    };
    assert_eq!(why(&site), "none");
    site.project().exclude = vec!["*.tmp".to_owned()];
    assert!(why(&site).contains("have changed"));
    assert_eq!(why(&site), "none");
    let lock = site.state.lock(&mut || {}).unwrap();
    let record = site.snapshots().remove(0);
    let handle = record.handle.as_ref().unwrap();
    let provider = detect::reopen(&record.directory, handle, &mounts::mounts().unwrap(), Arc::new(System)).unwrap();
    manage::delete(&lock, &*provider, record.id).unwrap();
    drop(lock);
    assert!(why(&site).contains("no snapshot"), "somebody deleted the base");
    assert_eq!(why(&site), "none");
    let repository = site.open("offsite");
    let (records, _) = repository.backups().unwrap();
    let newest = repository::storage::StoredFile::new(repository::storage::FileKind::Backup, records.last().unwrap().0);
    repository.storage().remove(&newest).unwrap();
    assert!(why(&site).contains("is gone"), "somebody removed the base's backup");
    site.looks_at_everything = true;
    assert!(why(&site).contains("asked for"));
}

#[test]
fn where_there_are_no_snapshots_the_live_tree_is_read_and_the_backup_says_so() {
    let site = Site::plain();
    let backups = site.back_up().unwrap();
    assert_eq!(made(&backups).record.tags, ["project=shop", LIVE_TAG]);
    assert_eq!(shop_in(&site, made(&backups).record.tree), live_tree(&site));
    assert_eq!(backups.live[0].0, site.shop());
    assert!(site.snapshots().is_empty());
}

#[test]
fn what_a_killed_job_left_goes_with_the_next_one() {
    let site = Site::new();
    let left = {
        let lock = site.state.lock(&mut || {}).unwrap();
        let provider = detect::provider(&site.shop(), &mounts::mounts().unwrap(), Arc::new(System)).unwrap();
        let request = Request { note: String::new(), expires: None, is_held: false, purpose: Purpose::Backup };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let providers: [&dyn Provider; 1] = [&*provider];
        manage::create_together(&lock, &providers, "shop", &request, now, None).unwrap().remove(0)
    };
    site.back_up().unwrap();
    assert!(site.snapshots().iter().all(|record| record.id != left.id), "{}", site.told.all());
    assert_eq!(site.snapshots().len(), 2);
}

#[test]
fn one_repository_that_fails_does_not_stop_the_others() {
    let mut site = Site::new();
    site.add_repository("usb");
    std::fs::rename(site.path("offsite"), site.path("away")).unwrap();
    let backups = site.back_up().unwrap();
    let error = backups.into[0].backup.as_ref().unwrap_err().to_string();
    assert!(error.contains("\"offsite\"") && error.contains("no repository"), "{error}");
    assert!(backups.into[1].backup.is_ok());
    assert_eq!(backups.outcome(), Outcome::Failed);
    // It comes back: its next backup looks at everything, that of the other one does not.
    std::fs::rename(site.path("away"), site.path("offsite")).unwrap();
    let backups = site.back_up().unwrap();
    let walks: Vec<_> = backups.into.iter().map(|into| into.backup.as_ref().unwrap().walk.clone()).collect();
    assert!(matches!(walks[0], Walk::Full { .. }) && walks[1] == Walk::Changed, "{walks:?}");
    assert_eq!(site.snapshots().len(), 2, "one snapshot of each subvolume is the base for both");
}

#[test]
fn a_failing_hook_before_stops_the_job_and_the_one_after_hears_how_it_ended() {
    let mut site = Site::new();
    let heard = site.path("heard");
    site.project().hooks.after =
        vec![format!(r#"echo "$SNAPBACK_JOB $SNAPBACK_OUTCOME $SNAPBACK_TO" >> {}"#, heard.display())];
    site.back_up().unwrap();
    assert_eq!(std::fs::read_to_string(&heard).unwrap(), "backup succeeded offsite\n");
    site.project().hooks.before = vec!["exit 7".to_owned()];
    let error = site.back_up().unwrap_err();
    assert!(matches!(error, Error::Hook { .. }), "{error}");
    assert!(error.to_string().contains("exit status: 7") && error.to_string().contains("was not begun"));
    assert_eq!(std::fs::read_to_string(&heard).unwrap().lines().count(), 1);
    let jobs = site.recorder.catalog().unwrap().jobs(Task::default(), 10).unwrap();
    let outcomes: Vec<_> = jobs.iter().map(|job| job.end.as_ref().unwrap().outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Succeeded]);
}

#[test]
fn one_job_of_a_project_at_a_time() {
    let site = Site::plain();
    let held = ProjectLock::take(site.state.root(), "shop", "drill").unwrap().unwrap();
    let error = site.back_up().unwrap_err();
    assert!(error.to_string().contains("under way: drill"), "{error}");
    drop(held);
    site.back_up().unwrap();
}

#[test]
fn a_cancelled_job_leaves_no_snapshot_and_no_lock() {
    let site = Site::new();
    site.is_cancelled.store(true, std::sync::atomic::Ordering::Relaxed);
    let backups = site.back_up().unwrap();
    assert_eq!(backups.outcome(), Outcome::Cancelled);
    assert!(site.snapshots().is_empty());
    site.is_cancelled.store(false, std::sync::atomic::Ordering::Relaxed);
    site.back_up().unwrap();
}

#[test]
fn a_repository_in_the_project_is_not_backed_up_into_itself() {
    let mut site = Site::plain();
    let inner = site.shop().join("repository");
    std::fs::rename(site.path("offsite"), &inner).unwrap();
    site.config.repositories.get_mut("offsite").unwrap().url = inner.to_str().unwrap().to_owned();
    let backups = site.back_up().unwrap();
    assert_eq!(made(&backups).summary.total_files_processed, 1);
}

#[test]
fn a_path_that_is_empty_all_at_once_makes_the_backup_incomplete() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    let good = site.back_up().unwrap().into.remove(0).backup.unwrap().id;
    // As if its file system was not mounted.
    let away = site.shop().with_extension("away");
    fs::rename(site.shop(), &away).unwrap();
    fs::create_dir(site.shop()).unwrap();
    for _ in 0..2 {
        let backups = site.back_up().unwrap();
        assert_eq!(backups.outcome(), Outcome::Incomplete);
        assert!(backups.into[0].backup.as_ref().unwrap().record.tags.iter().any(|tag| tag == "incomplete"));
    }
    assert!(site.told.all().contains("is its file system not mounted?"), "{}", site.told.all());
    assert!(site.open("offsite").backups().unwrap().0.iter().any(|(id, _)| *id == good), "the good one stays");
    fs::remove_dir(site.shop()).unwrap();
    fs::rename(&away, site.shop()).unwrap();
    assert_eq!(site.back_up().unwrap().outcome(), Outcome::Succeeded);
}
