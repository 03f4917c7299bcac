//! What is shown, word by word. `UPDATE_TEXTS=1` writes the files anew.

use std::fs;
use std::path::{Path, PathBuf};

use engine::place::{Nearness, Relation};
use engine::status::assess;
use engine::status::facts::{
    Exposure, Facts, Failure, Filesystem, Growth, Guard, GuardPhase, Project, Repository, Snapshots, Task, TaskKind,
    Unreachable,
};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use policy::Forecast;
use snapshot::provider::Kind;

use super::text::{Reader, lines};

fn now() -> Timestamp {
    "2026-03-04T12:12:00Z".parse().unwrap()
}

fn minutes(minutes: i64) -> Timestamp {
    now() + SignedDuration::from_mins(minutes)
}

fn repository(name: &str, nearness: Nearness, doubt: Option<&str>) -> Repository {
    Repository {
        lacks: None,
        name: name.to_owned(),
        url: format!("/mnt/{name}/repository"),
        arguments: format!("-r /mnt/{name}/repository"),
        relation: Relation { nearness, doubt: doubt.map(str::to_owned) },
        is_in_memory: false,
        exposure: Exposure::Full,
        backups: 14,
        newest: Some(minutes(-7 * 60)),
        size_bytes: Some(38_100_000_000),
        checked: Some(minutes(-2 * 24 * 60)),
        unreachable: None,
        is_unlisted: false,
    }
}

fn task(kind: TaskKind, repository: Option<&str>, due: i64) -> Task {
    let repository = repository.map(str::to_owned);
    Task { kind, repository, last: None, due: Some(minutes(due)), is_running: false, failure: None }
}

/// The shop of the manual, and a wiki for which nearly everything is wrong.
fn facts() -> Facts {
    let shop = Project {
        name: "shop".to_owned(),
        paths: vec![PathBuf::from("/srv/shop")],
        snapshots: Snapshots {
            mechanism: Some(Kind::Btrfs),
            kept: 3,
            newest: Some(minutes(-12)),
            next_expires: Some(minutes(108)),
            growth: Some(Growth { bytes: 1_200_000_000, since: minutes(-12 * 60) }),
        },
        repositories: vec![repository("usb", Nearness::SameMachine, None)],
        tasks: vec![
            task(TaskKind::Snapshot, None, 108),
            task(TaskKind::Backup, Some("usb"), 14 * 60 + 18),
            task(TaskKind::Check, Some("usb"), 3 * 24 * 60),
        ],
        ..Project::default()
    };
    let doubt = "whether the virtual machine's host keeps vda and vdb on one disk cannot be seen";
    let reason = "/mnt/offsite/repository does not exist".to_owned();
    let failure = Failure {
        count: 3,
        since: minutes(-300),
        at: minutes(-5),
        message: "hook: database\x1b[2J is down".to_owned(),
    };
    let wiki = Project {
        name: "wiki-of-the-company".to_owned(),
        paths: vec![PathBuf::from("/srv/wiki"), PathBuf::from("/etc/wiki")],
        repositories: vec![
            repository("local", Nearness::SameDisk, Some(doubt)),
            Repository {
                backups: 2,
                size_bytes: None,
                checked: None,
                unreachable: Some(Unreachable { since: Some(minutes(-26 * 60)), reason, is_new: false }),
                ..repository("offsite", Nearness::Elsewhere, None)
            },
        ],
        tasks: vec![
            Task { failure: Some(failure), ..task(TaskKind::Backup, Some("local"), -300) },
            Task { is_running: true, ..task(TaskKind::Check, Some("local"), -3) },
        ],
        guards: vec![Guard {
            id: "7f3a".to_owned(),
            command: "apt-get install -y php8.4".to_owned(),
            phase: GuardPhase::Waiting,
            remaining_secs: Some(200),
            is_unwatched: false,
        }],
        ..Project::default()
    };
    let disk = |point: &str, free, forecast, holds: &[&str]| Filesystem {
        point: PathBuf::from(point),
        total: 1_000_000_000_000,
        free,
        holds: holds.iter().map(|name| (*name).to_owned()).collect(),
        forecast: Some(forecast),
    };
    Facts {
        config: PathBuf::from("/etc/snapback/snapback.toml"),
        projects: vec![shop, wiki],
        filesystems: vec![
            disk(
                "/",
                50_000_000_000,
                Forecast::Full { at: minutes(9 * 24 * 60), per_day: 5_500_000_000.0 },
                &["wiki", "local"],
            ),
            disk("/mnt/usb", 912_000_000_000, Forecast::Full { at: minutes(400 * 24 * 60), per_day: 2e9 }, &["usb"]),
            disk("/srv", 412_000_000_000, Forecast::Steady, &["shop"]),
        ],
        is_served: Some(false),
        unseen: Vec::new(),
    }
}

#[test]
fn the_status_is_the_one_that_was_read_and_approved() {
    let status = assess(&facts(), now());
    let reader = |width, has_colors, wants_all| Reader { width, has_colors, wants_all, zone: TimeZone::UTC };
    for (name, reader) in [
        ("80", reader(Some(80), false, false)),
        ("120", reader(Some(120), false, false)),
        ("pipe", reader(None, false, false)),
        ("verbose", reader(Some(100), false, true)),
        ("colours", reader(Some(120), true, false)),
    ] {
        let shown = lines(&status, &reader);
        for line in &shown {
            let is_command = line.trim_start().starts_with("try:");
            let fits = reader.width.is_none_or(|width| line.chars().count() <= width);
            assert!(reader.has_colors || is_command || fits, "too wide for {name}: {line}");
        }
        approved(&format!("{name}.txt"), &(shown.join("\n") + "\n"));
    }
}

#[track_caller]
fn approved(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status").join(name);
    if std::env::var_os("UPDATE_TEXTS").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let approved = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, approved, "{} differs; UPDATE_TEXTS=1 writes it anew", file.display());
}
