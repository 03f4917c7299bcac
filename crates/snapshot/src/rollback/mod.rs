//! Taking directories back to snapshots of them, live and so that it can itself be undone. Several go back as one: with
//! one plan, one journal, and one point of no return.
//!
//! [`gather`] looks at the world, [`plan`](plan::plan) decides without looking, [`run`](run::run) does what was
//! planned, [`recover`](recover::recover) finishes or takes back what was cut short. Invariant: at every moment a
//! journal says how to get to exactly the old state or exactly the new one; until the point of no return it is the old
//! one, afterwards the new one. The point of no return lies behind the last step of the switch, and if there is a
//! probe, behind its success.
//!
//! Does not know of mechanisms: steps are the provider's.

mod act;
mod gather;
mod journal;
pub mod plan;
pub mod recover;
pub mod run;
mod stale;
mod units;

pub use gather::{Member, Request, gather, newest_safety};
pub use plan::{Part, Plan};
