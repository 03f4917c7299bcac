//! `snapback snapshot list`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use snapshot::expire::{self, Limits, Warning};
use snapshot::manage::{self, Listed};
use snapshot::provider::{Handle, Space};
use snapshot::record::{Purpose, Record};

use super::document::Document;
use crate::configuration::Target;
use crate::databases;
use crate::global::Global;
use crate::human;
use crate::output::{Output, numbers, printable, words};
use crate::snapshots::Session;

/// A snapshot is for hours, and keeps all that was replaced since.
const LIMITS: Limits = Limits { age: SignedDuration::from_hours(24), grown: 20_000_000_000, free: 10_000_000_000 };
/// On a small file system this part of it is room enough.
const FREE_PART: u64 = 10;

/// Where the column of the databases is, if any snapshot has one.
const DATABASES: usize = 6;

/// List the snapshots, oldest first.
#[derive(Args, Debug)]
#[command(after_help = "\
\"Grown since\" is what was written to the directory since. \"Reclaimable\" is what deleting the snapshot
would give back, estimated. The one says nothing about the other.")]
pub(crate) struct Command {
    /// Only of this project or directory
    #[arg(value_name = "PROJECT|DIR")]
    directory: Option<PathBuf>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let mut listed = manage::list(&session.state, session.now)?;
    if let Some(named) = &command.directory {
        let target = Target::find(named, global)?;
        // It may be gone, and its snapshots still be there.
        let whole = |directory: &PathBuf| directory.canonicalize().or_else(|_| std::path::absolute(directory));
        let directories: Vec<PathBuf> = target.directories().iter().map(whole).collect::<Result<_, _>>()?;
        listed.retain(|listed| directories.contains(&listed.record.directory));
    }
    let records: Vec<Record> = listed.iter().map(|listed| listed.record.clone()).collect();
    let spaces = session.spaces(&records);
    if output.json {
        let documents = listed.iter().zip(&spaces).map(|(listed, space)| Document::new(&listed.record, *space));
        output.json(&documents.collect::<Vec<_>>())?;
    } else if listed.is_empty() {
        output.message("no snapshots");
    } else {
        table(&listed, &spaces, session.now, output)?;
        output.message(human::counted(listed.len() as u64, "snapshot"));
    }
    warn(&records, &spaces, session.now, output);
    Ok(ExitCode::SUCCESS)
}

fn table(listed: &[Listed], spaces: &[Option<Space>], now: Timestamp, output: &Output) -> Result<()> {
    let any = listed.iter().any(|listed| listed.record.around.is_some());
    let mut columns = vec![
        words("ID"),
        words("Directory"),
        words("Age"),
        numbers("Grown since").less_important(),
        numbers("Reclaimable").less_important(),
        words("Expires"),
        words("Note"),
    ];
    if any {
        columns.insert(DATABASES, words("Databases").less_important());
    }
    let rows = listed.iter().zip(spaces).map(|(Listed { record, .. }, space)| {
        let figure = |figure: fn(&Space) -> Option<u64>| space.as_ref().and_then(figure).map(human::size);
        let age = match output.verbose {
            true => human::clock_time(record.created, true),
            false => human::age(now.as_second(), record.created.as_second()),
        };
        let mut row = vec![
            record.id.to_string(),
            printable(&record.directory),
            age,
            figure(|space| space.grown).unwrap_or_default(),
            figure(|space| space.reclaimable).unwrap_or_default(),
            expiry(record, now),
            note(record, output.verbose),
        ];
        if any {
            row.insert(DATABASES, databases::brief(record));
        }
        row
    });
    output.table(&columns, rows.collect())?;
    Ok(())
}

fn expiry(record: &Record, now: Timestamp) -> String {
    match (record.is_held, record.expires) {
        (true, _) => "held".to_owned(),
        (false, None) => "never".to_owned(),
        (false, Some(expires)) => human::until(now, expires),
    }
}

/// Hooks write whole lists of packages.
pub(crate) fn note(record: &Record, is_whole: bool) -> String {
    const SHOWN: usize = 60;
    let note = match (record.note.as_str(), record.purpose) {
        ("", Purpose::Safety { rolled_back_to }) => format!("before the rollback to {rolled_back_to}"),
        ("", Purpose::Undo { brought_back_from }) => format!("before files came back from {brought_back_from}"),
        (_, Purpose::Backup) if record.expires.is_none() => "what the next backup is compared with".to_owned(),
        (note, _) => note.to_owned(),
    };
    let note = match (&record.handle, note.as_str()) {
        (Some(Handle::Backup { .. }), "") => "a backup as net".to_owned(),
        (Some(Handle::Backup { .. }), note) => format!("a backup as net, {note}"),
        _ => note,
    };
    let note: String = note.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    match note.char_indices().nth(SHOWN) {
        Some((end, _)) if !is_whole => format!("{}…", &note[..end]),
        _ => note,
    }
}

fn warn(records: &[Record], spaces: &[Option<Space>], now: Timestamp, output: &Output) {
    let of = |record: &Record| records.iter().position(|other| other.id == record.id).and_then(|at| spaces[at]);
    let free = |directory: &Path| {
        let size = rustix::fs::statvfs(directory).map(|all| all.f_blocks.saturating_mul(all.f_frsize)).ok()?;
        expire::free_space(directory).ok().filter(|free| *free < size / FREE_PART)
    };
    for warning in expire::warnings(records, now, LIMITS, &of, &free) {
        match warning {
            Warning::Old { id, age_secs } => output.warning(format_args!(
                "snapshot {id} is {} old: a snapshot is for hours, `snapback backup` for longer",
                human::rough_duration(age_secs.unsigned_abs())
            )),
            Warning::Grown { id, grown } => output.warning(format_args!(
                "since snapshot {id} {} were written: what it keeps of them fills the disk",
                human::size(grown)
            )),
            Warning::LowSpace { directory, free } => output.warning(format_args!(
                "{} are free under {}: `snapback snapshot delete` gives room back",
                human::size(free),
                printable(&directory)
            )),
        }
    }
}
