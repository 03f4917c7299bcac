//! Finishing or taking back rollbacks that were cut short. To be called at every start, before anything else changes.

use std::path::PathBuf;

use super::act::{Act, Observer};
use super::journal::{Journal, Phase};
use crate::error::Error;
use crate::id::Id;
use crate::provider::{Open, Provider};
use crate::runner::Runner;
use crate::state::Lock;

/// One that was recovered.
#[derive(Debug)]
pub struct Recovered {
    /// The snapshot that was rolled back to; of several, the first.
    pub to: Id,
    /// The live directories.
    pub directories: Vec<PathBuf>,
    /// How it ended; on an error, the journal is still there.
    pub ending: Result<Ending, Error>,
}

/// How a recovery ended.
#[derive(Debug)]
pub struct Ending {
    /// The directory is in the new state, else in the old one.
    pub is_finished: bool,
    /// Units that did not start.
    pub unstarted: Option<Error>,
}

/// Finishes or takes back every rollback whose journal is open.
pub fn recover(
    lock: &Lock,
    runner: &dyn Runner,
    open: &Open<'_>,
    observe: &mut Observer<'_>,
) -> Result<Vec<Recovered>, Error> {
    let mut recovered = Vec::new();
    for journal in Journal::all(lock.state())? {
        let ending = recover_one(lock, runner, open, observe, &journal);
        let (to, directories) = (journal.plan.parts[0].to, journal.plan.directories());
        recovered.push(Recovered { to, directories, ending });
    }
    Ok(recovered)
}

fn recover_one(
    lock: &Lock,
    runner: &dyn Runner,
    open: &Open<'_>,
    observe: &mut Observer<'_>,
    journal: &Journal,
) -> Result<Ending, Error> {
    let parts = journal.plan.parts.iter();
    let providers = parts.map(|part| open(&part.directory, &part.handle)).collect::<Result<Vec<_>, _>>()?;
    let providers: Vec<&dyn Provider> = providers.iter().map(|provider| &**provider).collect();
    let mut observe = |what: &str| observe(what);
    let mut act = Act { lock, providers: &providers, runner, observe: &mut observe };
    let is_finished = journal.phase == Phase::Switched;
    let unstarted = if is_finished { act.finish(journal, false)? } else { act.revert(journal)? };
    Ok(Ending { is_finished, unstarted })
}
