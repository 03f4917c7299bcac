//! Doing what was planned.

use jiff::Timestamp;

use super::act::Act;
pub use super::act::Observer;
use super::journal::{Journal, Phase};
use super::plan::Plan;
use crate::error::Error;
use crate::holders::{self, Holder, Tree};
use crate::journal;
use crate::provider::{Handle, Provider};
use crate::record::{Purpose, Record};
use crate::runner::Runner;
use crate::state::Lock;

/// How a rollback ended that was not taken back.
#[derive(Debug)]
pub struct Outcome {
    /// The state of before: rolling back to it undoes this rollback.
    pub safety: Record,
    /// Who still holds the old tree, and writes into it what nobody will see.
    pub holders: Vec<Holder>,
    /// Units that did not start.
    pub unstarted: Option<Error>,
}

/// Takes the directory back as planned. On an error all is as before ([`Error::Reverted`], or the error itself if
/// nothing was begun), or the journal says how to get there ([`Error::HalfDone`]).
///
/// `observe` is called before each act; the acts and their order are those of the plan, and the notes between them.
pub fn run<'a>(
    lock: &'a Lock,
    provider: &'a dyn Provider,
    runner: &'a dyn Runner,
    plan: Plan,
    now: Timestamp,
    observe: &'a mut Observer<'a>,
) -> Result<Outcome, Error> {
    let state = lock.state();
    if let Some(refusal) = plan.refusals.first() {
        return Err(Error::Refused { message: refusal.message.clone(), hint: refusal.hint.clone() });
    }
    journal::refuse_if_switching(state, &plan.directory)?;
    // The plan was made without the lock.
    let Record { handle, project, .. } = state.record(plan.to)?;
    let is_unchanged =
        handle.as_ref() == Some(&plan.handle) && provider.plan_switch(&plan.handle, plan.safety)? == plan.switch;
    if !is_unchanged {
        let directory = plan.directory.display();
        let message = format!("{directory}, or snapshot {} of it, has changed since this was planned", plan.to);
        return Err(Error::refused(message).or("plan it once more"));
    }
    let safety = Record {
        id: plan.safety,
        directory: plan.directory.clone(),
        created: now,
        note: format!("before the rollback to {}", plan.to),
        expires: plan.safety_expires,
        is_held: false,
        purpose: Purpose::Safety { rolled_back_to: plan.to },
        handle: None,
        project,
        group: None,
        old_tree: None,
        around: None,
    };
    let mut journal = Journal { phase: Phase::Switching(0), plan, safety };
    let mut act = Act { lock, provider, runner, observe };
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
    let safety = state.record(journal.id())?;
    let holders = match old_tree(&journal.plan, &safety) {
        Some(tree) => holders::of(&tree, None)?,
        None => Vec::new(),
    };
    Ok(Outcome { safety, holders, unstarted })
}

/// How the old tree is told now; `None` if there is none that anybody could hold.
fn old_tree(plan: &Plan, safety: &Record) -> Option<Tree> {
    match (&plan.old, &safety.handle) {
        // Also where it lies on the same file system as the live tree, and so has the same number.
        (_, Some(Handle::Reflink { path })) => Some(Tree::Below(path.clone())),
        // The number is the live tree's again where the file system itself was changed under it.
        (old @ Tree::Device(..), _) => (Tree::of(&plan.directory).ok().as_ref() != Some(old)).then(|| old.clone()),
        (Tree::Below(_), _) => None,
    }
}
