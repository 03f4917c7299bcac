//! Doing what was planned.

use jiff::Timestamp;

use super::act::Act;
pub use super::act::Observer;
use super::journal::{Journal, Phase};
use super::plan::{Part, Plan};
use crate::error::Error;
use crate::holders::{self, Holder, Tree};
use crate::id::Id;
use crate::journal;
use crate::provider::{Handle, Provider};
use crate::record::{Purpose, Record};
use crate::runner::Runner;
use crate::state::{Lock, State};

/// How a rollback ended that was not taken back.
#[derive(Debug)]
pub struct Outcome {
    /// The state of before, one of each part of the plan: rolling back to them undoes this rollback.
    pub safeties: Vec<Record>,
    /// Who still holds an old tree, and writes into it what nobody will see.
    pub holders: Vec<Holder>,
    /// Units that did not start.
    pub unstarted: Option<Error>,
}

/// Takes the directories back as planned; `providers` are those of the plan's parts, in their order. On an error all is as before ([`Error::Reverted`], or the error itself if
/// nothing was begun), or the journal says how to get there ([`Error::HalfDone`]).
///
/// `observe` is called before each act; the acts and their order are those of the plan, and the notes between them.
pub fn run<'a>(
    lock: &'a Lock,
    providers: &'a [&'a dyn Provider],
    runner: &'a dyn Runner,
    plan: Plan,
    now: Timestamp,
    observe: &'a mut Observer<'a>,
) -> Result<Outcome, Error> {
    let state = lock.state();
    if let Some(refusal) = plan.refusals.first() {
        return Err(Error::Refused { message: refusal.message.clone(), hint: refusal.hint.clone() });
    }
    // Those that go back together are one point in time for whoever goes back to it in turn.
    let group = (plan.parts.len() > 1).then(Id::random);
    let mut safeties = Vec::new();
    for (number, part) in plan.parts.iter().enumerate() {
        let Some(provider) = providers.get(number) else {
            return Err(Error::refused("there is a provider missing"));
        };
        let project = unchanged(state, *provider, part)?.project;
        safeties.push(Record {
            id: part.safety,
            directory: part.directory.clone(),
            created: now,
            note: format!("before the rollback to {}", part.to),
            expires: plan.safety_expires,
            is_held: false,
            purpose: Purpose::Safety { rolled_back_to: part.to },
            handle: None,
            project,
            group,
            old_tree: None,
            around: None,
        });
    }
    let mut journal = Journal { phase: Phase::Switching(0), plan, safeties };
    let mut act = Act { lock, providers, runner, observe };
    (act.observe)("write the journal");
    journal.write(lock)?;
    if let Err(cause) = act.switch(&mut journal) {
        let cause = Box::new(cause);
        return Err(match act.revert(&journal) {
            Ok(also) => Error::Reverted { cause, also: also.map(Box::new) },
            Err(failure) => Error::HalfDone { cause, failure: Box::new(failure) },
        });
    }
    let unstarted = act.finish(&journal, !journal.plan.probe.is_empty())?;
    let (mut safeties, mut holders) = (Vec::new(), Vec::new());
    for part in &journal.plan.parts {
        let safety = state.record(part.safety)?;
        if let Some(tree) = old_tree(part, &safety) {
            holders.extend(holders::of(&tree, None)?);
        }
        safeties.push(safety);
    }
    Ok(Outcome { safeties, holders, unstarted })
}

/// The snapshot's record, if all is as it was planned: the plan was made without the lock.
fn unchanged(state: &State, provider: &dyn Provider, part: &Part) -> Result<Record, Error> {
    journal::refuse_if_switching(state, &part.directory)?;
    let record = state.record(part.to)?;
    let is_unchanged = provider.directory() == part.directory
        && record.handle.as_ref() == Some(&part.handle)
        && provider.plan_switch(&part.handle, part.safety)? == part.switch;
    if is_unchanged {
        return Ok(record);
    }
    let message =
        format!("{}, or snapshot {} of it, has changed since this was planned", part.directory.display(), part.to);
    Err(Error::refused(message).or("plan it once more"))
}

/// How the old tree is told now; `None` if there is none that anybody could hold.
fn old_tree(part: &Part, safety: &Record) -> Option<Tree> {
    match (&part.old, &safety.handle) {
        // Also where it lies on the same file system as the live tree, and so has the same number.
        (_, Some(Handle::Reflink { path })) => Some(Tree::Below(path.clone())),
        // The number is the live tree's again where the file system itself was changed under it.
        (old @ Tree::Device(..), _) => (Tree::of(&part.directory).ok().as_ref() != Some(old)).then(|| old.clone()),
        (Tree::Below(_), _) => None,
    }
}
