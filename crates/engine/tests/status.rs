//! What is said of how well things are, for all kinds of facts.
#![allow(missing_docs)]

use std::path::PathBuf;

use engine::place::{Nearness, Relation};
use engine::status::assess::About;
use engine::status::facts::{
    Exposure, Facts, Failure, Filesystem, Growth, Guard, GuardPhase, Project, Repository, Snapshots, Task, TaskKind,
    Unreachable,
};
use engine::status::survival::Answer;
use engine::status::{Status, assess};
use jiff::{SignedDuration, Timestamp};
use policy::Forecast;
use snapshot::provider::Kind;

const HOUR: i64 = 3600;

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn ago(secs: i64) -> Timestamp {
    now() - SignedDuration::from_secs(secs)
}

fn repository(nearness: Nearness) -> Repository {
    Repository {
        lacks: None,
        name: "usb".to_owned(),
        url: "/mnt/usb".to_owned(),
        arguments: "-r /mnt/usb".to_owned(),
        relation: Relation { nearness, doubt: None },
        is_in_memory: false,
        exposure: Exposure::Full,
        backups: 14,
        newest: Some(ago(7 * HOUR)),
        size_bytes: Some(38_100_000_000),
        checked: None,
        unreachable: None,
        is_unlisted: false,
    }
}

fn task(kind: TaskKind, due: Timestamp) -> Task {
    let repository = (kind != TaskKind::Snapshot).then(|| "usb".to_owned());
    Task { kind, repository, last: Some(ago(7 * HOUR)), due: Some(due), is_running: false, failure: None }
}

/// A project with snapshots, and backups on another machine, of which the next is due in an hour.
fn shop() -> Project {
    Project {
        name: "shop".to_owned(),
        paths: vec![PathBuf::from("/srv/shop")],
        snapshots: Snapshots {
            mechanism: Some(Kind::Btrfs),
            kept: 3,
            newest: Some(ago(12 * 60)),
            next_expires: None,
            growth: None,
        },
        repositories: vec![repository(Nearness::Elsewhere)],
        tasks: vec![task(TaskKind::Backup, now() + SignedDuration::from_hours(1))],
        ..Project::default()
    }
}

fn facts(project: Project) -> Facts {
    Facts {
        config: PathBuf::from("/etc/snapback/snapback.toml"),
        projects: vec![project],
        is_served: Some(true),
        ..Facts::default()
    }
}

fn status(project: Project) -> Status {
    assess(&facts(project), now())
}

/// The one thing that needs attention: what it is about, what is said, and what to do.
#[track_caller]
fn attention(project: Project) -> (About, String, String) {
    let status = status(project);
    assert!(!status.is_well);
    let [found] = &status.projects[0].attention[..] else { panic!("{:?}", status.projects[0].attention) };
    (found.about, found.problem.clone(), found.command.clone())
}

fn answers(project: Project) -> [Answer; 5] {
    let survives = &status(project).projects[0].survives;
    [&survives.bad_update, &survives.deleted_files, &survives.dead_disk, &survives.lost_server, &survives.malware]
        .map(|verdict| verdict.answer)
}

#[test]
fn what_would_be_survived_follows_from_where_the_backups_lie() {
    use Answer::{No, Unknown, Yes};
    let with = |repositories: Vec<Repository>| Project { repositories, ..shop() };
    let doubtful = |nearness| Repository {
        relation: Relation { nearness, doubt: Some("it cannot be seen".to_owned()) },
        ..repository(nearness)
    };
    let empty = Repository { backups: 0, newest: None, ..repository(Nearness::Elsewhere) };
    let in_memory = Repository { is_in_memory: true, ..repository(Nearness::SameMachine) };
    let append_only = Repository { exposure: Exposure::AppendOnly, ..repository(Nearness::Elsewhere) };
    let connected = Repository { exposure: Exposure::Offline, ..repository(Nearness::SameMachine) };
    let away = Unreachable { since: Some(ago(6 * HOUR)), reason: "it is not there".to_owned(), is_new: false };
    let offline = Repository { unreachable: Some(away), ..connected.clone() };
    let no_snapshot = |project: Project| Project { snapshots: Snapshots::default(), ..project };
    for (what, project, expected) in [
        ("snapshots alone are no backup", with(vec![]), [Yes, Yes, No, No, No]),
        ("nothing at all", no_snapshot(with(vec![])), [No; 5]),
        ("same file system", with(vec![repository(Nearness::SameFilesystem)]), [Yes, Yes, No, No, No]),
        ("same disk, or a member of the same RAID", with(vec![repository(Nearness::SameDisk)]), [Yes, Yes, No, No, No]),
        ("other disk", with(vec![repository(Nearness::SameMachine)]), [Yes, Yes, Yes, No, No]),
        ("other machine", with(vec![repository(Nearness::Elsewhere)]), [Yes, Yes, Yes, Yes, No]),
        ("backups alone", no_snapshot(shop()), [Yes, Yes, Yes, Yes, No]),
        ("a disk nobody can see", with(vec![doubtful(Nearness::SameDisk)]), [Yes, Yes, Unknown, No, No]),
        (
            "one of two is enough",
            with(vec![doubtful(Nearness::SameDisk), repository(Nearness::SameMachine)]),
            [Yes, Yes, Yes, No, No],
        ),
        ("an empty repository saves nothing", no_snapshot(with(vec![empty])), [No; 5]),
        ("memory is gone with the power", with(vec![in_memory]), [Yes, Yes, No, No, No]),
        ("append-only", with(vec![append_only]), [Yes; 5]),
        ("offline", with(vec![offline]), [Yes, Yes, Yes, No, Yes]),
        ("offline, and connected just now", with(vec![connected]), [Yes, Yes, Yes, No, Unknown]),
    ] {
        assert_eq!(answers(project), expected, "{what}");
    }
}

#[test]
fn the_reason_names_the_repository_and_the_time_one_would_come_back_to() {
    let mut second = repository(Nearness::SameMachine);
    (second.name, second.newest) = ("disk".to_owned(), Some(ago(HOUR)));
    let project = Project { repositories: vec![second, repository(Nearness::Elsewhere)], ..shop() };
    let survives = status(project).projects[0].survives.clone();
    assert_eq!((survives.bad_update.why.as_str(), survives.bad_update.as_of), ("there is a snapshot", Some(ago(720))));
    assert_eq!(survives.dead_disk.why, "the repository disk lies on another disk");
    assert_eq!(survives.dead_disk.as_of, Some(ago(HOUR)), "of two that help, the newer");
    assert_eq!((survives.lost_server.as_of, survives.malware.as_of), (Some(ago(7 * HOUR)), None));
}

#[test]
fn a_plan_with_snapshots_where_there_can_be_none_is_told_with_the_way_out() {
    let nowhere = Project { snapshots: Snapshots::default(), ..shop() };
    let of = |kind| status(Project { tasks: vec![task(kind, now())], ..nowhere.clone() });
    let is_told = |kind| of(kind).projects[0].attention.iter().any(|told| told.command == "snapback adopt /srv/shop");
    assert!(is_told(TaskKind::Snapshot) && !is_told(TaskKind::Backup));
}

#[test]
fn all_well_needs_no_attention() {
    let status = status(shop());
    assert!(status.is_well, "{:?}", status.projects[0].attention);
    assert!(!status.projects[0].next[0].is_overdue);
}

#[test]
fn what_is_missing_is_said_one_thing_at_a_time() {
    let with = |repositories: Vec<Repository>| Project { repositories, tasks: vec![], ..shop() };
    let doubt = Some("whether the host keeps vda and vdb on one disk cannot be seen".to_owned());
    let doubtful =
        Repository { relation: Relation { nearness: Nearness::SameDisk, doubt }, ..repository(Nearness::SameDisk) };
    let empty = Repository { backups: 0, newest: None, ..repository(Nearness::Elsewhere) };
    let in_memory = Repository { is_in_memory: true, ..repository(Nearness::SameMachine) };
    for (repositories, about, words) in [
        (vec![], About::Plan, "no plan backs it up"),
        (vec![Repository { is_unlisted: true, ..empty.clone() }], About::Unseen, "which backups usb has"),
        (vec![empty], About::Coverage, "no backup yet"),
        (vec![repository(Nearness::SameFilesystem)], About::Coverage, "off this disk"),
        (vec![repository(Nearness::SameDisk)], About::Coverage, "off this disk"),
        (vec![repository(Nearness::SameMachine)], About::Coverage, "off this machine"),
        (vec![doubtful], About::Coverage, "keeps vda and vdb on one disk cannot be seen"),
        (vec![in_memory], About::Coverage, "in memory"),
    ] {
        let (found, problem, command) = attention(with(repositories));
        assert!(found == about && problem.contains(words), "{words}: {problem}");
        assert!(!command.is_empty());
    }
}

#[test]
fn runs_that_are_late_failed_or_never_were_are_told_apart() {
    let with = |task: Task| Project { tasks: vec![task], ..shop() };
    let late = task(TaskKind::Backup, ago(3 * HOUR));
    let failure = Failure { count: 1, since: ago(600), at: ago(600), message: "disk full\nat line 2".to_owned() };
    let failed = |count, since| Some(Failure { count, since, ..failure.clone() });
    for (task, about, problem, command) in [
        (late.clone(), About::Overdue, "the backup to usb is overdue by 3 h", "snapback backup shop --to usb"),
        (
            Task { last: None, ..late.clone() },
            About::NeverRun,
            "the backup to usb has never run",
            "snapback backup shop --to usb",
        ),
        (
            Task { failure: failed(1, ago(600)), ..late.clone() },
            About::Failed,
            "the backup to usb failed 10 min ago: disk full",
            "snapback backup shop --to usb",
        ),
        (
            Task { failure: failed(5, ago(30 * HOUR)), ..task(TaskKind::Snapshot, ago(60)) },
            About::Failed,
            "the snapshot failed 5 times, first 30 h ago: disk full",
            "snapback snapshot create shop",
        ),
        (
            task(TaskKind::Check, ago(72 * HOUR)),
            About::Overdue,
            "the check of usb is overdue by 3 days",
            "snapback repo check -r /mnt/usb",
        ),
    ] {
        assert_eq!(attention(with(task)), (about, problem.to_owned(), command.to_owned()));
    }
    for well in
        [task(TaskKind::Backup, ago(HOUR - 1)), Task { is_running: true, ..late.clone() }, Task { due: None, ..late }]
    {
        assert!(status(with(well.clone())).is_well, "{well:?}");
    }
}

#[test]
fn a_repository_that_cannot_be_reached_is_one_thing_to_look_at_and_not_two() {
    let unreachable = |is_new, since| Some(Unreachable { since, reason: "no such directory".to_owned(), is_new });
    let failure = Failure { count: 9, since: ago(HOUR), at: ago(60), message: "no such directory".to_owned() };
    let with = |unreachable| Project {
        repositories: vec![Repository { unreachable, ..repository(Nearness::Elsewhere) }],
        tasks: vec![Task { failure: Some(failure.clone()), ..task(TaskKind::Backup, ago(20 * HOUR)) }],
        ..shop()
    };
    let (about, problem, command) = attention(with(unreachable(false, Some(ago(26 * HOUR)))));
    assert_eq!(about, About::Unreachable);
    assert_eq!(problem, "the repository usb cannot be reached for 26 h: no such directory");
    assert_eq!(command, "snapback repo check -r /mnt/usb");
    let (_, problem, command) = attention(with(unreachable(true, None)));
    assert_eq!(
        (problem.as_str(), command.as_str()),
        ("there is no repository usb yet", "snapback repo init -r /mnt/usb")
    );
}

#[test]
fn a_guard_that_waits_comes_first_and_one_that_runs_needs_nobody() {
    let guard = |phase, is_unwatched| Guard {
        id: "7f3a".to_owned(),
        command: "apt upgrade".to_owned(),
        phase,
        remaining_secs: Some(200),
        is_unwatched,
    };
    let with = |guard| Project { guards: vec![guard], ..shop() };
    assert!(status(with(guard(GuardPhase::Running, false))).is_well);
    let (about, problem, command) = attention(with(guard(GuardPhase::Waiting, false)));
    assert_eq!((about, command.as_str()), (About::Guard, "snapback confirm 7f3a"));
    assert!(problem.contains("within 3 min"), "{problem}");
    assert_eq!(attention(with(guard(GuardPhase::Running, true))).2, "snapback guard --resume");
    let both =
        Project { tasks: vec![task(TaskKind::Backup, ago(3 * HOUR))], ..with(guard(GuardPhase::Waiting, false)) };
    assert_eq!(status(both).projects[0].attention[0].about, About::Guard);
}

#[test]
fn a_disk_that_is_full_or_soon_will_be() {
    let filesystem = |free, forecast| Filesystem {
        point: PathBuf::from("/srv"),
        total: 1_000_000_000_000,
        free,
        holds: vec!["shop".to_owned()],
        forecast,
    };
    let full_in = |days: i64| Some(Forecast::Full { at: ago(-days * 24 * HOUR), per_day: 1e9 });
    for (filesystem, expected) in [
        (filesystem(4_000_000_000, None), Some("/srv is nearly full (shop)")),
        (filesystem(6_000_000_000, Some(Forecast::Steady)), None),
        (filesystem(500_000_000_000, full_in(10)), Some("/srv will be full in 10 days (shop)")),
        (filesystem(500_000_000_000, full_in(100)), None),
        (filesystem(500_000_000_000, Some(Forecast::Unknown)), None),
    ] {
        let status = assess(&Facts { filesystems: vec![filesystem], ..facts(shop()) }, now());
        assert_eq!(status.attention.first().map(|found| found.problem.as_str()), expected);
        assert_eq!(status.is_well, expected.is_none());
    }
    // A small one is not full as long as a twentieth of it is free.
    let small = Filesystem { total: 10_000_000_000, ..filesystem(600_000_000, None) };
    assert!(assess(&Facts { filesystems: vec![small], ..facts(shop()) }, now()).is_well);
}

#[test]
fn plans_that_nobody_runs_and_what_could_not_be_seen() {
    let about = |facts: Facts| -> Vec<About> {
        let status = assess(&facts, now());
        assert_eq!(status.is_well, status.attention.is_empty());
        status.attention.iter().map(|found| found.about).collect()
    };
    assert_eq!(about(Facts { is_served: Some(false), ..facts(shop()) }), [About::Daemon]);
    assert_eq!(about(Facts { is_served: None, ..facts(shop()) }), []);
    assert_eq!(about(Facts { unseen: vec!["the catalog is damaged".to_owned()], ..facts(shop()) }), [About::Unseen]);
    assert_eq!(about(Facts::default()), [About::Plan]);
}

#[test]
fn growth_is_told_by_the_day_but_not_from_minutes() {
    let grown = |bytes, secs| {
        let growth = Some(Growth { bytes, since: ago(secs) });
        let project = shop();
        status(Project { snapshots: Snapshots { growth, ..project.snapshots.clone() }, ..project }).projects[0]
            .growth_per_day
    };
    assert_eq!(grown(1_200_000_000, 12 * HOUR), Some(2_400_000_000));
    assert_eq!(grown(1_200_000_000, 60), None);
}

#[test]
fn what_comes_next_is_in_the_order_of_time_and_what_runs_is_first() {
    let soon = |hours| now() + SignedDuration::from_hours(hours);
    let running = Task { is_running: true, ..task(TaskKind::Check, soon(50)) };
    let tasks = vec![task(TaskKind::Backup, soon(9)), running, task(TaskKind::Snapshot, soon(2))];
    let status = status(Project { tasks, ..shop() });
    let kinds: Vec<TaskKind> = status.projects[0].next.iter().map(|next| next.task.kind).collect();
    assert_eq!(kinds, [TaskKind::Check, TaskKind::Snapshot, TaskKind::Backup]);
}
