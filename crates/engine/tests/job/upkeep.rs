//! What keeps repositories in order, and snapshots of a project.

use std::process::Command;

use engine::catalog::{JobKind, Task};
use engine::job::{Pruned, check, snapshots};
use policy::{Count, Keep};
use snapshot::manage::Request;
use snapshot::record::Purpose;

use crate::site::Site;

/// Content of a file, in each round its own, and more than the rest: whichever packs its pieces come into, removing them is
/// worth a prune.
fn noise(round: u32) -> String {
    (0..200_000_u32).map(|number| format!("{:x} ", number.wrapping_mul(2_654_435_761 + round))).collect()
}

#[test]
fn retention_follows_each_backup_and_a_prune_comes_when_it_pays() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    for round in 0..3 {
        site.write("index", &noise(round));
        let mut backups = site.back_up().unwrap();
        let into = backups.into.remove(0);
        let retained = into.retained.unwrap().unwrap();
        assert_eq!((retained.kept, retained.removed.len()), (1, usize::from(round > 0)));
        let pruned = into.pruned.unwrap().unwrap();
        assert_eq!(matches!(pruned, Pruned::Freed(bytes) if bytes > 100_000), round > 0, "{pruned:?}");
    }
    let jobs = |kind| {
        let task = Task { kind: Some(kind), ..Task::default() };
        site.recorder.catalog().unwrap().jobs(task, 10).unwrap().len()
    };
    assert_eq!([JobKind::Backup, JobKind::Retention, JobKind::Prune].map(jobs), [3, 2, 2]);
}

#[test]
fn a_prune_is_in_nobodys_way() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    site.write("index", &noise(1));
    site.back_up().unwrap();
    // As a backup of another project into the same repository does.
    let id = site.open("offsite").config().id;
    let wanted = site.state.root().join(format!("repository/{id}.wanted"));
    let wanted = std::fs::File::open(wanted).unwrap();
    rustix::fs::flock(&wanted, rustix::fs::FlockOperation::LockShared).unwrap();
    let pruned = |round: u32| {
        site.write("index", &noise(round));
        site.back_up().unwrap().into.remove(0).pruned.unwrap().unwrap()
    };
    assert_eq!(pruned(2), Pruned::InUse);
    // Closing it would not do while another test starts a child.
    rustix::fs::flock(&wanted, rustix::fs::FlockOperation::Unlock).unwrap();
    // One of another machine has a lock.
    let repository = site.open("offsite");
    let lock = repository::lock::Lock::acquire(&repository, false, &crate::site::holder()).unwrap();
    assert_eq!(pruned(3), Pruned::InUse);
    drop(lock);
    // What was not done is remembered.
    let pruned = pruned(4);
    assert!(matches!(pruned, Pruned::Freed(_)), "{pruned:?}");
}

#[test]
fn backups_younger_than_the_least_depth_stay_and_that_is_told() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    site.plan().min_depth = "7d".parse().unwrap();
    site.back_up().unwrap();
    let mut backups = site.back_up().unwrap();
    let retained = backups.into.remove(0).retained.unwrap().unwrap();
    assert_eq!((retained.kept, retained.kept_by_depth, retained.removed.len()), (2, 1, 0));
}

#[test]
fn backups_of_others_in_the_same_repository_are_not_touched() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    site.back_up().unwrap();
    let repository = site.open("offsite");
    let (records, _) = repository.backups().unwrap();
    for (hostname, tag) in [("another", "project=shop"), ("test", "project=blog"), ("test", "by hand")] {
        let mut record = records[0].1.clone();
        record.hostname = hostname.to_owned();
        record.tags = vec![tag.to_owned()];
        repository.save_record(&record).unwrap();
    }
    site.back_up().unwrap();
    let (records, _) = repository.backups().unwrap();
    assert_eq!(records.len(), 4);
}

#[test]
fn a_check_finds_damage_and_is_recorded() {
    let site = Site::plain();
    site.back_up().unwrap();
    let look = || {
        let repository = &site.config.repositories["offsite"];
        site.with_context(|context| check::run(context, repository, Some(50.0))).unwrap()
    };
    let report = look();
    assert!(report.is_clean() && report.figures.bytes_read > 0, "{report:?}");
    let remove = Command::new("find").arg(site.path("offsite/data")).args(["-type", "f", "-delete"]).status();
    assert!(remove.unwrap().success());
    assert!(!look().is_clean());
    let task = Task { kind: Some(JobKind::Check), ..Task::default() };
    let newest = site.recorder.catalog().unwrap().jobs(task, 1).unwrap().remove(0);
    assert!(newest.end.unwrap().error.unwrap().contains("errors"));
}

#[test]
fn snapshots_of_a_project_are_taken_together_of_all_that_can_have_one() {
    let mut site = Site::new();
    let request = Request { note: "before".to_owned(), expires: None, is_held: false, purpose: Purpose::Asked };
    let plain = site.path("plain");
    std::fs::create_dir(&plain).unwrap();
    let shop = site.shop();
    site.project().paths = vec![shop.clone(), shop.join("db"), plain.clone()];
    let project = &site.config.projects["shop"];
    let made = site.with_context(|context| snapshots::create(context, project, &request)).unwrap();
    let directories: Vec<_> = made.records.iter().map(|record| record.directory.clone()).collect();
    assert_eq!(directories, [shop.clone(), shop.join("db")]);
    assert_eq!(made.records[0].group, made.records[1].group);
    assert_eq!(made.without[0].0, plain);
    let is_known = || made.records.iter().all(|record| site.snapshots().contains(record));
    assert!(is_known());
    // A backup takes its own, and leaves these.
    site.back_up().unwrap();
    assert!(is_known());
}

#[test]
fn from_a_repository_that_is_append_only_nothing_is_removed() {
    let mut site = Site::plain();
    site.plan().keep = Keep { last: Some(Count::AtMost(1)), ..Keep::default() };
    site.config.repositories.get_mut("offsite").unwrap().append_only = true;
    for text in ["one", "two"] {
        site.write("index", text);
        let into = site.back_up().unwrap().into.remove(0);
        assert!(into.backup.is_ok() && into.retained.is_none() && into.pruned.is_none(), "{into:?}");
    }
}
