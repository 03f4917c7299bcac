//! `snapback list PROJECT`: all points in time of a project.

use std::process::ExitCode;

use anyhow::Result;
use engine::catalog::{PROJECT_TAG, Verified, Way};
use engine::config::Project;
use engine::redact;
use engine::timeline::{Net, Point, Request, Subject, Timeline, View};
use jiff::Timestamp;
use serde::Serialize;
use snapshot::record::Record;

use crate::commands::catalog::recorder;
use crate::commands::snapshot::list::note;
use crate::configuration;
use crate::configured::Repositories;
use crate::global::Global;
use crate::human;
use crate::output::{Output, numbers, printable, words};
use crate::snapshots::Session;

pub(super) fn run(name: &str, is_offline: bool, global: &Global, output: &Output) -> Result<ExitCode> {
    let configuration = configuration::load(global)?;
    let project = configuration::project(&configuration, name)?;
    let session = Session::open(global, output)?;
    let recorder = recorder(&session, output);
    let spaces = |records: &[Record]| session.spaces(records);
    let line = Repositories::of(Some(&configuration)).with_sources(|sources| {
        let subject = Subject { name: &project.name, paths: &project.paths };
        let request = Request { subject, sources, is_offline, spaces: &spaces };
        Timeline::gather(&request, &session.state, &recorder, session.now)
    });
    for problem in &line.problems {
        output.warning(redact::text(problem));
    }
    if output.json {
        output.json(&Document::new(project, &line))?;
    } else if line.points.is_empty() {
        output.message(format_args!("no snapshots and no backups of {name}"));
    } else {
        table(&line.points, session.now, output)?;
        output.message(summary(&line.points));
    }
    tell_views(&line, session.now, output);
    Ok(ExitCode::SUCCESS)
}

fn summary(points: &[Point]) -> String {
    let snapshots = points.iter().filter(|point| matches!(point.net, Net::Snapshot { .. })).count() as u64;
    let backups = points.len() as u64 - snapshots;
    format!("{}, {}", human::counted(snapshots, "snapshot"), human::counted(backups, "backup"))
}

/// What is not shown as it is now.
fn tell_views(line: &Timeline, now: Timestamp, output: &Output) {
    for (name, view) in &line.repositories {
        let unreachable = |reason: &str| format!("repository {name} cannot be looked at: {}", redact::text(reason));
        let as_of = |time: &Timestamp| {
            let age = human::age(now.as_second(), time.as_second());
            format!("its backups are shown as of {} ({age})", human::clock_time(*time, output.verbose))
        };
        match view {
            View::Now => {}
            View::AsOf { time, reason: None } => output.message(format_args!("{name}: {}", as_of(time))),
            View::AsOf { time, reason: Some(reason) } => {
                output.warning(format_args!("{}; {}", unreachable(reason), as_of(time)));
            }
            View::Unknown { reason: None } => output.message(format_args!("{name}: nothing is known of it yet")),
            View::Unknown { reason: Some(reason) } => {
                output.warning(format_args!("{}; nothing is known of what it has", unreachable(reason)));
            }
        }
    }
}

fn table(points: &[Point], now: Timestamp, output: &Output) -> Result<()> {
    let columns = [
        words("Time"),
        words("Age").less_important(),
        words("Kind"),
        words("ID"),
        words("Where"),
        numbers("Size").less_important(),
        numbers("Grown or added").less_important(),
        words("Verified"),
        words("Note"),
    ];
    let rows = points.iter().map(|point| {
        let time = human::clock_time(point.time, output.verbose);
        let age = human::age(now.as_second(), point.time.as_second());
        let size = |bytes: Option<u64>| bytes.map(human::size).unwrap_or_default();
        match &point.net {
            Net::Snapshot { records, space } => vec![
                time,
                age,
                "snapshot".to_owned(),
                records.iter().map(|record| record.id.to_string()).collect::<Vec<_>>().join(", "),
                "this disk".to_owned(),
                String::new(),
                size(space.and_then(|space| space.grown)),
                String::new(),
                snapshot_note(records, now, output.verbose),
            ],
            Net::Backup { repository, backup, verified, is_incomplete } => vec![
                time,
                age,
                "backup".to_owned(),
                if output.verbose { backup.id.to_string() } else { backup.id.short() },
                repository.clone(),
                size(backup.bytes),
                size(backup.added_bytes),
                verified_words(*verified, now),
                backup_note(&backup.tags, *is_incomplete),
            ],
        }
    });
    output.table(&columns, rows.collect())?;
    Ok(())
}

fn verified_words(verified: Verified, now: Timestamp) -> String {
    let age = |at: Timestamp| human::age(now.as_second(), at.as_second());
    match verified {
        Verified::No => "no".to_owned(),
        Verified::Partly { at, percent } => format!("{percent:.0} % read {}", age(at)),
        Verified::Yes { at, way: Way::Data } => format!("read {}", age(at)),
        Verified::Yes { at, way: Way::Drill } => format!("restored {}", age(at)),
        Verified::Failed { at } => format!("DAMAGED {}", age(at)),
    }
}

fn snapshot_note(records: &[Record], now: Timestamp, is_whole: bool) -> String {
    let expires = records.iter().filter_map(|record| record.expires).min();
    let mut words = Vec::new();
    if records.iter().any(|record| record.is_held) {
        words.push("held".to_owned());
    } else if let Some(expires) = expires {
        words.push(format!("expires {}", human::until(now, expires)));
    }
    words.push(note(&records[0], is_whole));
    words.retain(|word| !word.is_empty());
    words.join(", ")
}

/// The project's own tag says nothing here; the others come first, as whoever set them did so to find them again.
fn backup_note(tags: &[String], is_incomplete: bool) -> String {
    let mut words: Vec<String> =
        tags.iter().filter(|tag| !tag.starts_with(PROJECT_TAG)).map(|tag| printable(tag.as_ref())).collect();
    if is_incomplete && !words.iter().any(|word| word == "incomplete") {
        words.push("incomplete".to_owned());
    }
    words.join(", ")
}

/// As `--json` shows it.
#[derive(Serialize)]
struct Document<'a> {
    project: &'a str,
    points: Vec<PointDocument<'a>>,
    repositories: Vec<ViewDocument<'a>>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum PointDocument<'a> {
    Snapshot {
        id: String,
        time: Timestamp,
        /// One for each directory.
        snapshots: Vec<MemberDocument<'a>>,
        grown: Option<u64>,
        reclaimable: Option<u64>,
        expires: Option<Timestamp>,
        held: bool,
        note: String,
    },
    Backup {
        id: String,
        time: Timestamp,
        repository: &'a str,
        host: &'a str,
        paths: &'a [String],
        files: Option<u64>,
        size: Option<u64>,
        added: Option<u64>,
        verified: Verified,
        tags: &'a [String],
        live: bool,
        incomplete: bool,
    },
}

#[derive(Serialize)]
struct MemberDocument<'a> {
    id: String,
    directory: std::borrow::Cow<'a, str>,
}

#[derive(Serialize)]
struct ViewDocument<'a> {
    name: &'a str,
    /// `now`, `as-of` or `unknown`.
    view: &'static str,
    as_of: Option<Timestamp>,
    error: Option<String>,
}

impl<'a> Document<'a> {
    fn new(project: &'a Project, line: &'a Timeline) -> Self {
        let views = line.repositories.iter().map(|(name, view)| {
            let (view, as_of, reason) = match view {
                View::Now => ("now", None, None),
                View::AsOf { time, reason } => ("as-of", Some(*time), reason.as_deref()),
                View::Unknown { reason } => ("unknown", None, reason.as_deref()),
            };
            ViewDocument { name, view, as_of, error: reason.map(redact::text) }
        });
        Document {
            project: &project.name,
            points: line.points.iter().map(PointDocument::new).collect(),
            repositories: views.collect(),
        }
    }
}

impl<'a> PointDocument<'a> {
    fn new(point: &'a Point) -> Self {
        let (id, time) = (point.id(), point.time);
        match &point.net {
            Net::Snapshot { records, space } => PointDocument::Snapshot {
                id,
                time,
                snapshots: records
                    .iter()
                    .map(|record| MemberDocument {
                        id: record.id.to_string(),
                        directory: record.directory.to_string_lossy(),
                    })
                    .collect(),
                grown: space.and_then(|space| space.grown),
                reclaimable: space.and_then(|space| space.reclaimable),
                expires: records.iter().filter_map(|record| record.expires).min(),
                held: records.iter().any(|record| record.is_held),
                note: note(&records[0], true),
            },
            Net::Backup { repository, backup, verified, is_incomplete } => PointDocument::Backup {
                id,
                time,
                repository,
                host: &backup.host,
                paths: &backup.paths,
                files: backup.files,
                size: backup.bytes,
                added: backup.added_bytes,
                verified: *verified,
                tags: &backup.tags,
                live: backup.is_live(),
                incomplete: *is_incomplete,
            },
        }
    }
}
