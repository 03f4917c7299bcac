//! The facts a plan is made from: the one part of planning that looks at the world. It changes nothing.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::plan::{Facts, OfDirectory, Plan, Refusal, plan};
use super::units;
use crate::changes::Summary;
use crate::error::Error;
use crate::holders::{self, Tree};
use crate::id::Id;
use crate::provider::Provider;
use crate::record::{Purpose, Record};
use crate::runner::Runner;
use crate::state::State;
use crate::{journal, mounts};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Units to stop before and to start after; those that do not run are left alone.
    pub stop: Vec<String>,
    /// Units to restart after the switch.
    pub restart: Vec<String>,
    /// Program and arguments; it must succeed after the switch, or all is taken back. None if empty.
    pub probe: Vec<String>,
    /// For so long the probe is tried until it succeeds, in seconds: what was started needs a while. Once if 0.
    pub probe_secs: u64,
    /// When expiry may delete the present state, which is kept.
    pub safety_expires: Option<Timestamp>,
}

/// A directory that is to go back.
#[derive(Clone)]
pub struct Member<'a> {
    /// Of the directory.
    pub provider: &'a dyn Provider,
    /// To which of its snapshots.
    pub snapshot: &'a Record,
    /// What will be lost, if somebody looked ([`crate::changes`]).
    pub losses: Option<Summary>,
    /// Locks that processes left in the snapshot, relative to the directory: removed after the switch, before units are
    /// started, unless a process works in the directory of one.
    pub stale: Vec<PathBuf>,
}

impl<'a> Member<'a> {
    /// Of which nobody looked what will be lost.
    pub fn new(provider: &'a dyn Provider, snapshot: &'a Record) -> Member<'a> {
        Member { provider, snapshot, losses: None, stale: Vec::new() }
    }
}

/// Plans to take directories back to one of their snapshots each, together.
pub fn gather(state: &State, members: &[Member<'_>], runner: &dyn Runner, request: Request) -> Result<Plan, Error> {
    let facts = Facts {
        directories: members.iter().map(|member| look_at(state, member)).collect::<Result<_, _>>()?,
        running: units::running(runner, &request.stop)?,
        restart: request.restart,
        probe: request.probe,
        probe_secs: request.probe_secs,
        safety_expires: request.safety_expires,
    };
    plan(facts).map_err(|Refusal { message, hint }| Error::Refused { message, hint })
}

fn look_at(state: &State, member: &Member<'_>) -> Result<OfDirectory, Error> {
    let Member { provider, snapshot, losses, ref stale } = *member;
    let directory = provider.directory();
    if snapshot.directory != directory {
        let (of, asked) = (snapshot.directory.display(), directory.display());
        return Err(Error::refused(format!("snapshot {} is one of {of}, not of {asked}", snapshot.id)));
    }
    let safety = Id::random();
    let lies_there = provider.list()?;
    let is_there = lies_there.iter().any(|(id, handle)| *id == snapshot.id && Some(handle) == snapshot.handle.as_ref());
    let switch = match &snapshot.handle {
        Some(handle) if is_there => match provider.plan_switch(handle, safety) {
            Err(Error::Refused { message, hint }) => Err(Refusal { message, hint }),
            steps => Ok(steps?),
        },
        // The plan refuses for this reason already.
        _ => Ok(Vec::new()),
    };
    let live = Tree::of(directory)?;
    Ok(OfDirectory {
        snapshot: snapshot.clone(),
        is_there,
        abilities: provider.abilities(),
        switch,
        mounts_below: mounts::below(&mounts::mounts()?, directory).map(|mount| mount.point.clone()).collect(),
        holders: holders::of(&live, Some(directory))?,
        live,
        safety,
        losses,
        stale: stale.clone(),
        is_state_inside: !provider.abilities().spares_state && is_inside(state.root(), directory)?,
        under_way: journal::switching(state, directory)?.map(|entry| entry.change),
    })
}

/// The snapshot that undoes the newest rollback of a directory.
pub fn newest_safety(state: &State, directory: &Path) -> Result<Record, Error> {
    let records = state.records()?.into_iter().filter(|record| record.directory == directory);
    let mut safeties = records.filter(|record| matches!(record.purpose, Purpose::Safety { .. }));
    let newest = safeties.rfind(|record| record.handle.is_some());
    newest.ok_or_else(|| {
        Error::refused(format!("there is no rollback of {} to undo", directory.display()))
            .or("see what there is: snapback snapshot list")
    })
}

/// Whether a path lies in the tree at a directory, and not in another one that is mounted or nested below.
fn is_inside(path: &Path, directory: &Path) -> Result<bool, Error> {
    let path = path.canonicalize().map_err(Error::io("resolve", path))?;
    Ok(path.starts_with(directory) && device(&path)? == device(directory)?)
}

fn device(path: &Path) -> Result<u64, Error> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(path).map_err(Error::io("look at", path))?.dev())
}
