//! `snapback snapshot create`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use engine::config::Project;
use engine::database::held;
use engine::job::snapshots;
use jiff::Timestamp;
use snapshot::manage::{self, Request};
use snapshot::provider::Handle;
use snapshot::record::{Purpose, Record};

use super::document::Document;
use crate::configuration::{self, Target};
use crate::databases;
use crate::global::Global;
use crate::human;
use crate::jobs;
use crate::output::{Output, printable};
use crate::snapshots::Session;

/// Take a snapshot of a directory or of a project: a point in time on the same disk, to roll back to within hours.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints the snapshot's id, which every other command takes. A snapshot is no backup: it goes with its
disk, and it keeps whatever is replaced or deleted, so that the disk fills the longer it lives.")]
pub(crate) struct Command {
    /// The directory, or a project: of all its directories together
    #[arg(value_name = "PROJECT|DIR")]
    directory: PathBuf,

    /// What it is for, to be read in the list
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,

    /// How long it lives, such as 30m, 4h, 2d, or never; 4h if neither this nor the project says
    #[arg(long, value_name = "DURATION", value_parser = Life::parse)]
    expire: Option<Life>,

    /// Keep it from being deleted until it is released
    #[arg(long)]
    hold: bool,
}

/// Of which nobody said how long it lives.
const LIFE: Duration = Duration::from_secs(4 * 3600);

/// How long a snapshot lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    For(Duration),
    Unlimited,
}

impl Life {
    pub(crate) fn parse(text: &str) -> Result<Life, String> {
        match text {
            "never" => Ok(Life::Unlimited),
            _ => human::parse_duration(text).map(Life::For),
        }
    }

    /// When expiry may delete what is made now.
    pub(crate) fn end(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            // A life of ten thousand years is none that ends.
            Life::For(time) => now.checked_add(time).ok(),
            Life::Unlimited => None,
        }
    }
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    if let Target::Project(project) = Target::find(&command.directory, global)? {
        return of_project(command, &project, global, output);
    }
    let session = Session::open(global, output)?;
    let begun = Instant::now();
    let provider = session.nets.provider(&command.directory)?;
    let project = configuration::project_of(provider.directory(), global, output);
    let record = held::around(project.as_ref(), &[&*provider], |around| {
        let lock = session.lock()?;
        session.warn_before(&*provider);
        let request = command.request(LIFE, session.now);
        Ok::<_, anyhow::Error>(manage::create_around(&lock, &*provider, request, session.now, around)?)
    })?;
    databases::tell(&record, output);
    session.warn_after(&*provider);
    if output.json {
        output.json(&Document::new(&record, None))?;
    } else {
        output.line(record.id)?;
        output.message(told(&record, begun.elapsed(), session.now));
    }
    Ok(ExitCode::SUCCESS)
}

impl Command {
    fn request(&self, life: Duration, now: Timestamp) -> Request {
        let expires = self.expire.unwrap_or(Life::For(life)).end(now);
        Request { note: self.note.clone(), expires, is_held: self.hold, purpose: Purpose::Asked }
    }
}

/// Of all directories of a project, together.
fn of_project(command: &Command, project: &Project, global: &Global, output: &Output) -> Result<ExitCode> {
    jobs::with_context(global, output, false, |context| {
        let begun = Instant::now();
        let now = context.clock.wall();
        let request = command.request(project.snapshot.expire, now);
        let made = snapshots::create(context, project, &request)?;
        let took = begun.elapsed();
        for (path, error) in &made.without {
            let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            output.warning(format_args!("no snapshot of {}: {error}{hint}", printable(path)));
        }
        if !made.is_atomic {
            output.warning("files of some directories were cloned one after the other, not at one moment");
        }
        if let Some(first) = made.records.first() {
            databases::tell(first, output);
        }
        for record in &made.records {
            if output.json {
                output.json(&Document::new(record, None))?;
            } else {
                output.line(record.id)?;
                output.message(told(record, took, now));
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Of what, how fast, and when it goes.
pub(crate) fn told(record: &Record, took: Duration, now: Timestamp) -> String {
    let end = match (record.is_held, record.expires) {
        (true, _) => "held until it is released".to_owned(),
        (false, None) => "kept until it is deleted".to_owned(),
        (false, Some(expires)) => format!("expires {}", human::until(now, expires)),
    };
    let millis = took.as_secs_f64() * 1000.0;
    let directory = printable(&record.directory);
    match record.handle {
        Some(Handle::Backup { .. }) => format!("backup of {directory} taken as net in {millis:.0} ms; {end}"),
        _ => {
            let still = databases::stood_still(record);
            format!("snapshot of {directory} taken in {millis:.0} ms{still}; {end}")
        }
    }
}
