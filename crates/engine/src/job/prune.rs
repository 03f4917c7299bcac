//! Giving back the room of removed backups, when it pays and is in nobody's way.
//!
//! A prune reads all trees, rewrites what is used in part, and keeps everybody else out meanwhile. So it is not even
//! planned before enough was removed; of the plan, rewriting must free enough for what it moves; and it neither waits
//! for others nor lets a backup of this machine wait: when one wants the repository, it ends at its next step. What it
//! did until then is good.
//!
//! How much was removed since the last prune is written down for each repository, `prune/ID.json` in the state
//! directory. If that is lost, the next prune is later than it might be, and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::{SignedDuration, Timestamp};
use repository::Repository;
use repository::lock::Lock;
use repository::progress::{Phase, Progress};
use repository::prune::{self, Figures, MaxUnused, Options};
use repository::storage::FileKind;
use serde::{Deserialize, Serialize};
use snapshot::error::Error as StateError;
use snapshot::id::Id;

use super::{Context, Error, notes, wait};

/// The subdirectory of the state directory.
const KIND: &str = "prune";
/// What was removed had added at least this part of the repository.
const WORTH_A_PLAN: u64 = 20;
/// Or it is so long ago that the last plan was made.
const AT_LEAST_EVERY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Rewriting frees at least this part of what it moves.
const WORTH_MOVING: u64 = 4;
/// Rewritten at most, in bytes, so that one prune ends within minutes; the next one goes on.
const MOVED_AT_ONCE: u64 = 8 << 30;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// Too little was removed since the last one.
    NotWorthIt,
    /// Somebody works with the repository.
    InUse,
    /// A backup wanted the repository; what was done until then is good.
    GaveWay,
    /// So many bytes were given back.
    Freed(u64),
}

/// Written down of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    /// The repository's own id.
    repository: String,
    /// What the backups removed since had added, in bytes.
    added_by_removed: u64,
    /// When a plan was last made, or the first backup removed.
    since: Timestamp,
}

/// Writes down that backups were removed that had added so many bytes.
pub(super) fn note(context: &Context<'_>, repository: &str, added: u64) -> Result<(), Error> {
    let now = context.clock.wall();
    let (id, mut pending) = find(context, repository)?.unwrap_or_else(|| {
        (Id::random(), Pending { repository: repository.to_owned(), added_by_removed: 0, since: now })
    });
    pending.added_by_removed = pending.added_by_removed.saturating_add(added);
    Ok(context.state.write(KIND, id, &pending)?)
}

/// Prunes if it pays. Whoever calls has given back its own lock, and does not want the repository any more.
pub(super) fn if_it_pays(context: &Context<'_>, name: &str, repository: &Arc<Repository>) -> Result<Pruned, Error> {
    let failed = |error| Error::repository(name)(error);
    let repository_id = repository.config().id.to_string();
    let Some((id, pending)) = find(context, &repository_id)? else { return Ok(Pruned::NotWorthIt) };
    let now = context.clock.wall();
    let packs = repository.storage().list(FileKind::Pack).map_err(|error| failed(error.into()))?;
    let stored = packs.iter().map(|(_, bytes)| bytes).sum();
    if !is_worth_a_plan(pending.added_by_removed, stored, now.duration_since(pending.since)) {
        return Ok(Pruned::NotWorthIt);
    }
    if wait::is_wanted(context.state.root(), &repository_id) {
        return Ok(Pruned::InUse);
    }
    let lock = match Lock::acquire(repository, true, context.holder).and_then(|lock| lock.confirm().map(|()| lock)) {
        Ok(lock) => Arc::new(lock),
        Err(repository::Error::Locked(_)) => return Ok(Pruned::InUse),
        Err(error) => return Err(failed(error)),
    };
    let meter = context.watch.meter(&format!("pruning {name}"));
    let giving_way =
        GivingWay { context, repository: &repository_id, below: &*meter, gave_way: AtomicBool::new(false) };
    let done = perform(repository, &lock, &giving_way);
    drop(lock);
    match done {
        Ok(freed) => {
            context.state.remove(KIND, id)?;
            Ok(freed.map_or(Pruned::NotWorthIt, Pruned::Freed))
        }
        Err(repository::Error::Cancelled) if giving_way.gave_way.load(Ordering::Relaxed) => Ok(Pruned::GaveWay),
        Err(error) => Err(failed(error)),
    }
}

/// Plans, and executes the plan where it pays; the bytes that were freed.
fn perform(
    repository: &Arc<Repository>,
    lock: &Arc<Lock>,
    progress: &dyn Progress,
) -> Result<Option<u64>, repository::Error> {
    let options = Options { max_repack_bytes: Some(MOVED_AT_ONCE), ..Options::default() };
    let mut plan = prune::plan(repository, &options, progress)?;
    let moved: u64 = plan.repack.iter().map(|repack| repack.bytes).sum();
    let freed_by_moving: u64 = plan.repack.iter().map(|repack| repack.bytes - repack.kept_bytes).sum();
    if !is_worth_moving(moved, freed_by_moving) {
        // Whole packs go for nothing.
        plan = prune::plan(repository, &Options { max_unused: MaxUnused::Unlimited, ..options }, progress)?;
    }
    if plan.is_empty() {
        return Ok(None);
    }
    let Figures { freed_bytes, .. } = plan.figures;
    let outcome = prune::execute(repository, lock, plan, progress)?;
    Ok(Some(freed_bytes + outcome.unfinished_bytes))
}

fn is_worth_a_plan(added_by_removed: u64, stored: u64, since: SignedDuration) -> bool {
    added_by_removed > stored / WORTH_A_PLAN || since >= AT_LEAST_EVERY
}

fn is_worth_moving(moved: u64, freed: u64) -> bool {
    freed >= moved / WORTH_MOVING
}

fn find(context: &Context<'_>, repository: &str) -> Result<Option<(Id, Pending)>, StateError> {
    let all = notes::all::<Pending>(context.state, KIND)?;
    Ok(all.into_iter().find(|(_, pending)| pending.repository == repository))
}

/// Ends when a backup of this machine wants the repository.
struct GivingWay<'a> {
    context: &'a Context<'a>,
    repository: &'a str,
    below: &'a dyn Progress,
    gave_way: AtomicBool,
}

impl Progress for GivingWay<'_> {
    fn begin(&self, phase: Phase, items: Option<u64>, bytes: Option<u64>) {
        self.below.begin(phase, items, bytes);
    }

    fn advance(&self, items: u64, bytes: u64) {
        self.below.advance(items, bytes);
    }

    fn warning(&self, text: &str) {
        self.below.warning(text);
    }

    fn is_cancelled(&self) -> bool {
        if self.gave_way.load(Ordering::Relaxed) {
            return true;
        }
        let is_wanted = wait::is_wanted(self.context.state.root(), self.repository);
        if is_wanted {
            self.gave_way.store(true, Ordering::Relaxed);
        }
        is_wanted || self.below.is_cancelled()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_is_planned_when_much_was_removed_or_long_ago() {
        let day = SignedDuration::from_hours(24);
        assert!(!is_worth_a_plan(4, 100, day));
        assert!(is_worth_a_plan(6, 100, day));
        assert!(is_worth_a_plan(1, 1_000_000, 31 * day));
        assert!(!is_worth_a_plan(0, 0, day));
    }

    #[test]
    fn what_is_moved_must_free_a_quarter_of_it() {
        assert!(is_worth_moving(100, 25) && !is_worth_moving(100, 24) && is_worth_moving(0, 0));
    }
}
