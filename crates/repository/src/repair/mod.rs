//! Saves what can be saved of a damaged repository. Everything plans first; a plan changes nothing.
//!
//! In this order: [`packs`] writes the readable blobs of damaged packs to new ones, [`index`] makes the index agree
//! with the packs that are there, [`backups`] takes what is lost out of the backups, so that they can be restored and
//! pruned again.

pub mod backups;
pub mod index;
pub mod packs;
