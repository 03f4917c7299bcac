use std::path::{Path, PathBuf};

use engine::catalog::{
    Catalog, Event, Figures, Job, JobKind, KnownBackup, Level, Outcome, Size, Task, Verification, Way,
};
use jiff::Timestamp;
use repository::id::Id;
use snapshot::provider::Handle;
use snapshot::record::{Purpose, Record};

/// A directory with a catalog in it.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("catalog.sqlite")
    }

    pub(crate) fn open(&self) -> Catalog {
        Catalog::open(self.path(), at(0)).unwrap()
    }

    /// What lies in the directory, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = self.directory.path().read_dir().unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Databases that were moved aside.
    pub(crate) fn damaged(&self) -> Vec<String> {
        let is_damaged = |name: &String| name.contains(".damaged-") && !name.ends_with("-wal");
        self.names().into_iter().filter(is_damaged).collect()
    }
}

/// Some seconds after a day in 2026.
pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + secs).unwrap()
}

pub(crate) fn job(secs: i64) -> Job {
    Job::begin(JobKind::Backup, Some("shop"), Some("usb"), at(secs)).unwrap()
}

pub(crate) fn backup(number: u8, secs: i64) -> KnownBackup {
    KnownBackup {
        id: Id([number; 32]),
        time: at(secs),
        host: "server".to_owned(),
        paths: vec!["/srv/shop".to_owned()],
        tags: vec!["project=shop".to_owned()],
        files: Some(7),
        bytes: Some(8),
        added_bytes: Some(9),
        original: None,
    }
}

pub(crate) fn snapshot(secs: i64) -> Record {
    Record {
        id: snapshot::id::Id::random(),
        directory: PathBuf::from("/srv/shop"),
        created: at(secs),
        note: "a note".to_owned(),
        expires: None,
        is_held: false,
        purpose: Purpose::Asked,
        project: Some("shop".to_owned()),
        group: None,
        handle: Some(Handle::Zfs { dataset: "tank/shop".to_owned(), name: "x".to_owned(), guid: "1".to_owned() }),
        old_tree: None,
        around: None,
    }
}

/// Some of everything, on several pages of each table.
pub(crate) fn fill(catalog: &Catalog) {
    for number in 0..45_u8 {
        let secs = i64::from(number);
        let job = job(secs).ended(at(secs + 1), Outcome::Succeeded).with_error("x".repeat(200));
        catalog.record_job(&job).unwrap();
        catalog.record_backup("usb", &backup(number, secs)).unwrap();
        catalog.record_snapshot(&snapshot(secs)).unwrap();
    }
    use_all(catalog);
}

/// Everything that can be asked of it and told to it.
pub(crate) fn use_all(catalog: &Catalog) {
    assert!(is_recorded_by_all(catalog), "what was recorded is there");
}

/// As [`use_all`]; tells whether a job that was recorded is there. Nothing fails in any case.
pub(crate) fn is_recorded_by_all(catalog: &Catalog) -> bool {
    let task = Task { kind: Some(JobKind::Backup), project: Some("shop"), repository: Some("usb") };
    catalog.jobs(Task::default(), 1000).unwrap();
    catalog.running_jobs().unwrap();
    catalog.end_dead_jobs(at(9)).unwrap();
    catalog.last_success(task).unwrap();
    catalog.failures_in_a_row(task).unwrap();
    catalog.events(None, 1000).unwrap();
    catalog.snapshots().unwrap();
    catalog.guards(1000).unwrap();
    catalog.repositories().unwrap();
    catalog.backups(Some("shop"), None).unwrap();
    catalog.newest_backup("shop", Some("usb")).unwrap();
    catalog.sizes("usb", at(0)).unwrap();
    catalog.verifications("usb").unwrap();

    let figures = Figures { files: Some(1), ..Figures::default() };
    let job = job(500).ended(at(501), Outcome::Failed).with_figures(figures);
    catalog.record_job(&job).unwrap();
    let event = Event { at: at(1), level: Level::Info, project: None, repository: None, text: "y".repeat(100) };
    catalog.record_event(&event).unwrap();
    catalog.record_snapshot(&snapshot(500)).unwrap();
    catalog.record_repository("usb", "/mnt/usb").unwrap();
    catalog.record_backup("usb", &backup(200, 500)).unwrap();
    catalog.record_size("usb", Size { at: at(1), bytes: 1 << 40, backups: 3 }).unwrap();
    let verification = Verification {
        repository: "usb".to_owned(),
        backup: None,
        at: at(600),
        way: Way::Data,
        percent: 12.5,
        is_good: true,
    };
    catalog.record_verification(&verification).unwrap();
    let listing = catalog.begin_listing("usb").unwrap();
    let known: Vec<KnownBackup> = catalog.backups(None, Some("usb")).unwrap().into_iter().map(|(_, of)| of).collect();
    catalog.end_listing(&listing, &known, at(700)).unwrap();
    catalog.jobs(Task::default(), 1000).unwrap().contains(&job)
}

/// Takes what is in the log into the file, so that the file is all there is.
pub(crate) fn settle(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    let pragma = "PRAGMA wal_checkpoint(TRUNCATE)";
    let is_busy: i64 = connection.query_row(pragma, [], |row| row.get(0)).unwrap();
    assert_eq!(is_busy, 0);
}
