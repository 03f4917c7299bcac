//! How well each project is protected: what there is, what it would survive, what comes next, and what somebody should
//! do.
//!
//! [`assess`](assess::assess) is a pure function of [`facts`] and of now, so that every judgement can be tested for any
//! state of the world; [`gather`] finds the facts. What it promises is never more than what is known: a snapshot never
//! counts as a backup, nor does RAID, and where it is not known on which disk a backup lies, it is said so and not counted
//! upon.
//!
//! Does not know of terminals. Changes nothing but the catalog's samples of free space.

pub mod assess;
mod attention;
pub mod facts;
pub mod gather;
mod room;
pub mod survival;

pub use assess::{Status, assess};
pub use room::sample;
