//! Gives back the room of what no backup uses: packs are removed, or their used blobs written to new packs first.
//!
//! [`plan`] only reads, and refuses where anything it must know cannot be known. [`execute`] carries a plan out in an
//! order that a crash may end anywhere: new packs, new index, old index files removed, old packs removed. What a crash
//! leaves (blobs twice, packs in no index) the next prune removes.

mod choice;
mod execute;
mod plan;

pub use execute::{Outcome, execute};
pub use plan::{Figures, MaxUnused, Options, Plan, Reason, Repack, plan};
