//! The timeline and the rebuilt catalog, over repositories that restic itself made and wrote to.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use engine::catalog::{Catalog, FILE_NAME, Job, JobKind, Outcome, Recorder, Source, Verification, Verified, Way};
use engine::guard::document::{Guard, Phase};
use engine::process::Process;
use engine::timeline::{Net, Request, Subject, Timeline, View};
use jiff::{SignedDuration, Timestamp};
use repository::Repository;
use repository::storage::Local;
use snapshot::id::Id;
use snapshot::provider::{Handle, Space};
use snapshot::record::{Purpose, Record};
use snapshot::state::State;

const PASSWORD: &str = "correct horse";

/// A state directory, and repositories of restic's beside it.
struct Site {
    directory: tempfile::TempDir,
    state: State,
    said: Mutex<Vec<String>>,
}

impl Site {
    fn new() -> Site {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("shop")).unwrap();
        fs::write(directory.path().join("shop/order"), "one\n").unwrap();
        let state = State::open(directory.path().join("state")).unwrap();
        Site { directory, state, said: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn restic(&self, repository: &str, arguments: &[&str]) {
        let mut command = Command::new("restic");
        command.args(["--no-cache", "--quiet"]).args(arguments).current_dir(self.directory.path());
        command.env("RESTIC_REPOSITORY", self.path(repository)).env("RESTIC_PASSWORD", PASSWORD);
        let said = command.output().expect("restic is needed for this test");
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
    }

    /// As restic makes it of the directory `shop`, at an hour of a day in 2026.
    fn backup(&self, repository: &str, hour: i8, tag: &str) {
        let time = format!("2026-01-01 {hour:02}:00:00");
        self.restic(repository, &["backup", "shop", "--host", "server", "--tag", tag, "--time", &time]);
    }

    fn snapshot(&self, hour: i8, directory: &str, project: Option<&str>, group: Option<Id>) -> Record {
        let record = Record {
            id: Id::random(),
            directory: self.path(directory),
            created: at(hour),
            note: String::new(),
            expires: None,
            is_held: false,
            purpose: Purpose::Asked,
            project: project.map(str::to_owned),
            group,
            handle: Some(Handle::Zfs { dataset: "tank".to_owned(), name: "x".to_owned(), guid: "1".to_owned() }),
            old_tree: None,
            around: None,
        };
        self.state.save(&record).unwrap();
        record
    }

    fn recorder(&self) -> Recorder<'_> {
        let say = |text: &str| self.said.lock().unwrap().push(text.to_owned());
        Recorder::open(&self.state.root().join(FILE_NAME), at(12), say)
    }

    /// What is seen of the project with these repositories.
    fn look(&self, repositories: &[&str], is_offline: bool, recorder: &Recorder<'_>) -> Timeline {
        let paths = [self.path("shop")];
        with_sources(self.directory.path(), repositories, |sources| {
            let subject = Subject { name: "shop", paths: &paths };
            let space = Some(Space { grown: Some(5), reclaimable: None });
            let spaces = |records: &[Record]| vec![space; records.len()];
            let request = Request { subject, sources, is_offline, spaces: &spaces };
            Timeline::gather(&request, &self.state, recorder, at(12))
        })
    }

    fn rebuild(&self, catalog: &Catalog, repositories: &[&str]) -> engine::catalog::Rebuilt {
        with_sources(self.directory.path(), repositories, |sources| {
            catalog.rebuild(&self.state, sources, at(12)).unwrap()
        })
    }
}

/// Each as the configuration would have it.
fn with_sources<T>(directory: &Path, names: &[&str], act: impl FnOnce(&[Source<'_>]) -> T) -> T {
    let url = |name: &str| directory.join(name).display().to_string();
    let urls: Vec<String> = names.iter().map(|name| url(name)).collect();
    let opens: Vec<_> = urls
        .iter()
        .map(|url| {
            move || {
                let storage = Arc::new(Local::new(url.as_str()));
                Repository::open(storage, PASSWORD.as_bytes()).map(Arc::new).map_err(|error| error.to_string())
            }
        })
        .collect();
    let both = names.iter().zip(&urls).zip(&opens);
    let sources: Vec<Source<'_>> = both.map(|((name, url), open)| Source { name, url, open }).collect();
    act(&sources)
}

fn at(hour: i8) -> Timestamp {
    jiff::civil::date(2026, 1, 1).at(hour, 0, 0, 0).to_zoned(jiff::tz::TimeZone::system()).unwrap().timestamp()
}

/// Each point in a few letters.
fn told(line: &Timeline) -> Vec<String> {
    let tell = |net: &Net| match net {
        Net::Snapshot { records, space } => format!("snapshot of {} grown {:?}", records.len(), space.unwrap().grown),
        Net::Backup { repository, backup, is_incomplete, .. } => {
            let live = if backup.is_live() { " live" } else { "" };
            format!("{repository}{live}{}", if *is_incomplete { " incomplete" } else { "" })
        }
    };
    line.points.iter().map(|point| tell(&point.net)).collect()
}

/// Two repositories with backups of the project, and snapshots in between.
fn busy() -> Site {
    let site = Site::new();
    for repository in ["usb", "offsite"] {
        site.restic(repository, &["init"]);
    }
    site.backup("usb", 1, "project=shop");
    site.backup("offsite", 3, "project=shop,live");
    site.backup("usb", 5, "project=blog");
    site.backup("usb", 7, "project=shop");
    site.snapshot(2, "shop", None, None);
    let group = Some(Id::random());
    site.snapshot(6, "shop", Some("shop"), group);
    site.snapshot(6, "database", Some("shop"), group);
    site.snapshot(8, "blog", None, None);
    site.snapshot(9, "shop", Some("blog"), None);
    site
}

const BUSY: [&str; 5] = ["usb", "snapshot of 2 grown Some(10)", "offsite live", "snapshot of 1 grown Some(5)", "usb"];

#[test]
fn points_of_both_nets_are_one_line_newest_first() {
    let site = busy();
    let line = site.look(&["usb", "offsite"], false, &site.recorder());
    assert_eq!(told(&line), BUSY);
    assert!(line.points.is_sorted_by(|one, other| one.time >= other.time));
    assert!(line.repositories.iter().all(|(_, view)| *view == View::Now));
    assert_eq!((line.problems, site.said.into_inner().unwrap()), (Vec::<String>::new(), Vec::<String>::new()));
}

#[test]
fn a_repository_that_cannot_be_reached_is_shown_as_it_was_seen() {
    let site = busy();
    site.look(&["usb", "offsite"], false, &site.recorder());
    fs::rename(site.path("offsite"), site.path("elsewhere")).unwrap();

    let line = site.look(&["usb", "offsite"], false, &site.recorder());
    assert_eq!(told(&line), BUSY);
    assert_eq!(line.repositories[0].1, View::Now);
    let View::AsOf { time, reason: Some(reason) } = &line.repositories[1].1 else { panic!("{line:?}") };
    assert_eq!(*time, at(12));
    assert!(reason.contains("offsite"), "{reason}");

    let line = site.look(&["usb", "offsite"], true, &site.recorder());
    assert_eq!(told(&line), BUSY, "nor were they looked at");
    assert!(line.repositories.iter().all(|(_, view)| matches!(view, View::AsOf { reason: None, .. })));
}

#[test]
fn without_a_catalog_the_line_is_the_same_and_what_is_unknown_is_said() {
    let site = busy();
    let line = site.look(&["usb", "offsite"], false, &Recorder::none());
    assert_eq!(told(&line), BUSY);
    let line = site.look(&["usb", "gone"], false, &Recorder::none());
    assert_eq!(told(&line).len(), 4);
    assert!(matches!(&line.repositories[1].1, View::Unknown { reason: Some(_) }), "{line:?}");
}

#[test]
fn a_damaged_record_of_a_snapshot_hides_nothing_else() {
    let site = busy();
    let recorder = site.recorder();
    recorder.note(|catalog| catalog.replace_snapshots(|| site.state.records())).unwrap().unwrap();
    fs::write(site.state.root().join("snapshots/0123456789ab.json"), "{").unwrap();
    let line = site.look(&["usb", "offsite"], false, &recorder);
    assert_eq!(told(&line), BUSY, "as the catalog knows them");
    assert_eq!(line.problems.len(), 1);
    assert!(line.problems[0].contains("0123456789ab.json"), "{line:?}");
}

#[test]
fn what_was_verified_and_what_is_incomplete_is_on_the_line_also_after_tags_were_changed() {
    let site = busy();
    let recorder = site.recorder();
    let ids = |line: &Timeline| -> Vec<String> { line.points.iter().map(engine::timeline::Point::id).collect() };
    let line = site.look(&["usb", "offsite"], false, &recorder);
    let newest = ids(&line)[0].clone();
    let job = Job::begin(JobKind::Backup, Some("shop"), Some("usb"), at(7)).unwrap();
    let job = job.ended(at(8), Outcome::Incomplete).with_point(&newest);
    recorder.note(|catalog| catalog.record_job(&job)).unwrap();
    let repository = "usb".to_owned();
    let look = Verification { repository, backup: None, at: at(4), way: Way::Data, percent: 100.0, is_good: true };
    recorder.note(|catalog| catalog.record_verification(&look)).unwrap();

    site.restic("usb", &["tag", "--add", "good", &newest]);
    let line = site.look(&["usb", "offsite"], false, &recorder);
    assert_ne!(ids(&line)[0], newest, "restic gave it another id");
    assert_eq!(told(&line)[0], "usb incomplete");
    let verified = |number: usize| match &line.points[number].net {
        Net::Backup { verified, .. } => *verified,
        Net::Snapshot { .. } => panic!("a snapshot"),
    };
    assert_eq!(verified(0), Verified::No, "made after the look");
    assert_eq!(verified(4), Verified::Yes { at: at(4), way: Way::Data });
    assert_eq!(verified(2), Verified::No, "another repository");
}

#[test]
fn a_lost_catalog_is_rebuilt_from_the_state_directory_and_the_repositories() {
    let site = busy();
    let path = site.state.root().join(FILE_NAME);
    let guard = Guard {
        id: Id::random(),
        directory: site.path("shop"),
        others: Vec::new(),
        command: "mysql -phunter2".to_owned(),
        started: at(1),
        grace_secs: 1,
        services: engine::rollback::Services::default(),
        process: Process::current().unwrap(),
        watchdog: None,
        confirm: None,
        phase: Phase::Running,
    };
    fs::create_dir(site.state.root().join("guard")).unwrap();
    site.state.write("guard", guard.id, &guard).unwrap();

    fs::write(&path, "no database").unwrap();
    let catalog = Catalog::open(&path, at(12)).unwrap();
    let rebuilt = site.rebuild(&catalog, &["usb", "offsite"]);
    assert!(rebuilt.is_whole(), "{rebuilt:?}");
    assert_eq!((rebuilt.snapshots, rebuilt.guards), (5, 1));
    assert_eq!(rebuilt.repositories, [("usb".to_owned(), Ok(3)), ("offsite".to_owned(), Ok(1))]);
    assert_eq!(catalog.guards(9).unwrap()[0].program, "mysql", "and not its arguments");
    assert_eq!(catalog.snapshots().unwrap().len(), 5);
    let newest = catalog.newest_backup("shop", None).unwrap().unwrap();
    assert_eq!((newest.0.as_str(), newest.1.time), ("usb", at(7)));
    let size = catalog.sizes("usb", at(0)).unwrap()[0];
    assert!(size.bytes > 0 && size.backups == 3, "{size:?}");
    drop(catalog);
    let bytes = fs::read(path.with_file_name("catalog.sqlite-wal")).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}

#[test]
fn a_rebuild_keeps_what_is_known_of_a_repository_that_is_away_and_drops_what_was_forgotten() {
    let site = busy();
    let catalog = Catalog::open(site.state.root().join(FILE_NAME), at(12)).unwrap();
    site.rebuild(&catalog, &["usb", "offsite"]);
    fs::rename(site.path("offsite"), site.path("elsewhere")).unwrap();
    site.restic("usb", &["forget", "--tag", "project=shop", "--keep-last", "1"]);
    let gone = site.state.records().unwrap()[0].id;
    site.state.forget(gone).unwrap();

    let rebuilt = site.rebuild(&catalog, &["usb", "offsite"]);
    assert!(!rebuilt.is_whole());
    assert_eq!(rebuilt.repositories[0].1, Ok(2));
    assert!(rebuilt.repositories[1].1.as_ref().is_err_and(|reason| reason.contains("offsite")));
    let known: Vec<_> = catalog
        .backups(Some("shop"), None)
        .unwrap()
        .into_iter()
        .map(|(repository, of)| (repository, of.time))
        .collect();
    assert_eq!(known, [("usb".to_owned(), at(7)), ("offsite".to_owned(), at(3))]);
    assert_eq!(catalog.snapshots().unwrap().len(), 4);
    assert_eq!(catalog.repositories().unwrap()[1].seen, Some(at(12)));
    assert!(at(12).duration_since(known[1].1) > SignedDuration::from_hours(1));
}
