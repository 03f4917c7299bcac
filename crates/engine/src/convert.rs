//! Making a directory on btrfs a subvolume of its own, by a journal that survives a crash at any moment.
//!
//! Until the last step is noted everything can be taken back, and a crash takes it back; from then on the old
//! directory is only in the way, and a crash goes on removing it. Refused while anybody holds the directory: they would
//! go on writing to the old one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snapshot::btrfs::convert::Conversion;
use snapshot::error::Error;
use snapshot::holders::{self, Holder, Tree};
use snapshot::id::Id;
use snapshot::journal::{self, Entry};
use snapshot::mounts;
use snapshot::provider::Step;
use snapshot::runner::{self, Runner};
use snapshot::state::Lock;

const CHANGE: &str = "conversion";

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    conversion: Conversion,
    details: Details,
    directory: PathBuf,
    /// Who would hold the old directory.
    pub holders: Vec<Holder>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Details {
    id: Id,
    steps: Vec<Step>,
    /// Units that are stopped meanwhile.
    stop: Vec<String>,
    /// All steps are done.
    is_switched: bool,
}

/// One that was cut short, and how it ended.
#[derive(Debug)]
pub struct Recovered {
    /// The directory.
    pub directory: PathBuf,
    /// Whether it is a subvolume now, else it is as before.
    pub is_subvolume: bool,
}

/// Plans it; `None` if the directory, an absolute path without symbolic links, is not on a btrfs.
///
/// # Errors
/// Refused if it is a subvolume already, or a mount point.
pub fn plan(directory: &Path, stop: Vec<String>) -> Result<Option<Plan>, Error> {
    let Some(conversion) = Conversion::open(directory, &mounts::mounts()?)? else { return Ok(None) };
    let id = Id::random();
    let details = Details { id, steps: conversion.plan(id)?, stop, is_switched: false };
    let holders = holders::of(&Tree::Below(directory.to_owned()), None)?;
    Ok(Some(Plan { conversion, details, directory: directory.to_owned(), holders }))
}

impl Plan {
    /// What is done, one line each.
    pub fn steps(&self) -> impl Iterator<Item = &str> {
        self.details.steps.iter().map(|step| step.name.as_str())
    }

    /// Carries it out. On an error everything is as before, or the journal says how to get there.
    pub fn run(self, lock: &Lock, runner: &dyn Runner, observe: &mut dyn FnMut(&str)) -> Result<(), Error> {
        let Plan { conversion, mut details, directory, .. } = self;
        journal::refuse_if_switching(lock.state(), &directory)?;
        write(lock, &directory, &details)?;
        let done = perform(&conversion, &details, &directory, runner, observe);
        if let Err(error) = done {
            revert(lock, &conversion, &details, runner)?;
            return Err(error);
        }
        details.is_switched = true;
        write(lock, &directory, &details)?;
        finish(lock, &conversion, &details, runner, observe)
    }
}

fn perform(
    conversion: &Conversion,
    details: &Details,
    directory: &Path,
    runner: &dyn Runner,
    observe: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    units(runner, "stop", &details.stop)?;
    if let Some(holder) = holders::of(&Tree::Below(directory.to_owned()), None)?.first() {
        let message = format!("{} is in use by {holder}", directory.display());
        return Err(Error::refused(message).or("end it, or name its unit to be stopped meanwhile: --stop UNIT"));
    }
    for step in &details.steps {
        observe(&step.name);
        conversion.perform(step)?;
    }
    Ok(())
}

fn revert(lock: &Lock, conversion: &Conversion, details: &Details, runner: &dyn Runner) -> Result<(), Error> {
    for step in details.steps.iter().rev() {
        conversion.revert(step)?;
    }
    units(runner, "start", &details.stop)?;
    journal::clear(lock, details.id)
}

fn finish(
    lock: &Lock,
    conversion: &Conversion,
    details: &Details,
    runner: &dyn Runner,
    observe: &mut dyn FnMut(&str),
) -> Result<(), Error> {
    units(runner, "start", &details.stop)?;
    observe("remove the old directory");
    conversion.remove_old(details.id)?;
    journal::clear(lock, details.id)
}

/// Finishes or takes back what was cut short.
pub fn recover(lock: &Lock, runner: &dyn Runner) -> Result<Vec<Recovered>, Error> {
    let mut recovered = Vec::new();
    for (_, Entry { mut directories, details, .. }) in journal::of::<Details>(lock.state(), CHANGE)? {
        let Some(directory) = directories.pop() else { continue };
        let conversion = Conversion::open(&directory, &mounts::mounts()?)?.ok_or_else(|| {
            Error::refused(format!("{} is not on a btrfs any more", directory.display()))
                .or("mount what was mounted there when it was made a subvolume")
        })?;
        match details.is_switched {
            true => finish(lock, &conversion, &details, runner, &mut |_| ())?,
            false => revert(lock, &conversion, &details, runner)?,
        }
        recovered.push(Recovered { directory, is_subvolume: details.is_switched });
    }
    Ok(recovered)
}

fn write(lock: &Lock, directory: &Path, details: &Details) -> Result<(), Error> {
    let entry = Entry {
        change: CHANGE.to_owned(),
        directories: vec![directory.to_owned()],
        snapshots: Vec::new(),
        is_switching: true,
        details: details.clone(),
    };
    journal::write(lock, details.id, &entry)
}

fn units(runner: &dyn Runner, verb: &str, units: &[String]) -> Result<(), Error> {
    if units.is_empty() {
        return Ok(());
    }
    let arguments: Vec<&str> = [verb, "--"].into_iter().chain(units.iter().map(String::as_str)).collect();
    runner::run(runner, "systemctl", &arguments).map(drop)
}
