//! A snapshot before each run of a package manager, with what it is about to do as its note.
//!
//! A run is one process of the package manager: it may call its hook many times, once before each run of dpkg for
//! example, and gets one snapshot of each directory. A hook never stands in the package manager's way: what goes wrong
//! is told to the caller, who goes on.
//!
//! Does not know where package managers keep their configuration.

pub mod apt;
pub mod dnf;

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use snapshot::id::Id;
use snapshot::manage::{self, Request};
use snapshot::provider::Provider;
use snapshot::record::{Purpose, Record};
use snapshot::state::Lock;

use crate::process::Process;
use snapshot::error::Error;

const KIND: &str = "hook";

/// How a hook is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation<'a> {
    /// This program's file.
    pub program: &'a Path,
    /// Of what snapshots are taken.
    pub directories: &'a [PathBuf],
    /// The state directory, if it is not the usual one.
    pub state: Option<&'a Path>,
    /// How long they live, in seconds.
    pub grace_secs: u64,
    /// Whether the package manager shall stop if there can be no snapshot.
    pub is_strict: bool,
}

/// One run of a package manager.
#[derive(Clone, Debug)]
pub struct Run {
    /// The package manager itself.
    pub process: Process,
    /// How it was called.
    pub command: String,
    /// What it is about to do, as far as it said.
    pub packages: Vec<String>,
}

/// What a hook did.
#[derive(Debug)]
pub struct Done {
    /// The snapshots that were made now; none if the run had its own already.
    pub made: Vec<Record>,
    /// Why of other directories there is none.
    pub failed: Vec<Error>,
}

/// What is written down of a run: one file in the state directory, `hook/ID.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    process: Process,
    snapshots: Vec<Id>,
    packages: Vec<String>,
}

/// Finds the mechanism of a directory.
pub type Find<'a> = dyn Fn(&Path) -> Result<Box<dyn Provider>, snapshot::error::Error> + 'a;

/// Makes sure that a run has a snapshot of each directory, and that their notes say what it does.
pub fn before(
    lock: &Lock,
    run: &Run,
    directories: &[PathBuf],
    find: &Find<'_>,
    expires: Option<Timestamp>,
    now: Timestamp,
) -> Result<Done, Error> {
    if let Some((id, mut known)) = known(lock, &run.process)? {
        let new: Vec<&String> = run.packages.iter().filter(|package| !known.packages.contains(package)).collect();
        if !new.is_empty() {
            known.packages.extend(new.into_iter().cloned());
            write_notes(lock, &known, &run.command)?;
            lock.state().write(KIND, id, &known)?;
        }
        return Ok(Done { made: Vec::new(), failed: Vec::new() });
    }
    let mut done = Done { made: Vec::new(), failed: Vec::new() };
    for directory in directories {
        let note = note(&run.command, &run.packages);
        let request = Request { note, expires, is_held: false, purpose: Purpose::Hook };
        match find(directory).and_then(|provider| manage::create(lock, &*provider, request, now)) {
            Ok(record) => done.made.push(record),
            Err(error) => done.failed.push(error),
        }
    }
    // Written down also if none was made: the run's next dpkg must not make one of a state half-way.
    let snapshots = done.made.iter().map(|record| record.id).collect();
    let known = Known { process: run.process.clone(), snapshots, packages: run.packages.clone() };
    lock.state().write(KIND, Id::random(), &known)?;
    Ok(done)
}

/// What is known of the run of a process; what is known of those that have ended is forgotten.
fn known(lock: &Lock, process: &Process) -> Result<Option<(Id, Known)>, Error> {
    let directory = lock.state().root().join(KIND);
    match std::fs::create_dir(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(Error::io("create", &directory))?,
    }
    let mut found = None;
    for (id, known) in lock.state().documents::<Known>(KIND)? {
        if known.process == *process {
            found = Some((id, known));
        } else if !known.process.is_alive() {
            lock.state().remove(KIND, id)?;
        }
    }
    Ok(found)
}

/// Snapshots that are gone by now stay gone.
fn write_notes(lock: &Lock, known: &Known, command: &str) -> Result<(), Error> {
    for id in &known.snapshots {
        if let Ok(mut record) = lock.state().record(*id) {
            record.note = note(command, &known.packages);
            lock.state().save(&record)?;
        }
    }
    Ok(())
}

fn note(command: &str, packages: &[String]) -> String {
    match packages {
        [] => command.to_owned(),
        packages => format!("{command}: {}", packages.join(", ")),
    }
}

/// The hook's command, for the shell in a package manager's configuration.
fn command_line(manager: &str, parent: &str, installation: &Installation<'_>) -> Result<String, Error> {
    let mut line = format!("{} hook run {manager} --parent {parent}", plain(installation.program)?);
    for directory in installation.directories {
        line.push_str(" --directory ");
        line.push_str(plain(directory)?);
    }
    if let Some(state) = installation.state {
        line.push_str(" --state-dir ");
        line.push_str(plain(state)?);
    }
    line.push_str(&format!(" --grace {}s", installation.grace_secs));
    if installation.is_strict {
        line.push_str(" --strict");
    }
    Ok(line)
}

/// A path that can stand in a configuration and in a shell's line as it is.
fn plain(path: &Path) -> Result<&str, Error> {
    let bytes = path.as_os_str().as_bytes();
    let is_plain = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/_.,+@%-".contains(byte));
    match path.to_str() {
        Some(text) if is_plain && !text.is_empty() => Ok(text),
        _ => {
            let message = format!("a package manager's configuration cannot hold the path {:?}", path.display());
            Err(Error::refused(message).or("use a path of letters, digits and /_.,+@%-"))
        }
    }
}
