//! Whether a repository is whole: every backup can be restored, as far as looking can tell.
//!
//! Without reading data, everything but the packs of files' contents is read: key files, locks, records, index, trees;
//! and each pack has the size that the index implies. Reading data adds each pack's hash, header and blobs.
//!
//! Records are listed before the index is read: what a backup that runs meanwhile refers to may be missing from an
//! older index, but never from a newer one.
//!
//! Damage is no error of this module: it ends up in the [`Report`]. Only what keeps it from looking is.

mod affected;
mod packs;
mod report;
mod structure;

use crate::error::Error;
use crate::progress::Progress;
use crate::repository::Repository;

pub use report::{Figures, Hint, Problem, Report, WayOut};

/// Which packs to read whole.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ReadData {
    /// None.
    #[default]
    None,
    /// Every one.
    All,
    /// Those of one of so many parts, as restic's `--read-data-subset n/t`: all parts in turn are everything.
    Part {
        /// From 1.
        number: u32,
        /// How many parts, 1 to 256.
        of: u32,
    },
    /// So many of a hundred, at least one.
    Percent {
        /// More than 0, at most 100.
        percent: f64,
        /// Another one each time chooses other packs.
        seed: u64,
    },
}

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Which packs to read whole.
    pub read_data: ReadData,
}

/// Looks at a repository. Whoever calls holds a shared lock, or knows that nobody removes anything meanwhile.
pub fn check(repository: &Repository, options: &Options, progress: &dyn Progress) -> Result<Report, Error> {
    if let ReadData::Part { number, of } = options.read_data
        && !(1..=of.min(256)).contains(&number)
    {
        return Err(Error::Refused(format!("there is no part {number} of {of}; a part of at most 256 can be read")));
    }
    let mut report = Report::default();
    structure::check_small_files(repository, &mut report)?;
    let records = structure::read_records(repository, progress, &mut report)?;
    let index = structure::read_index(repository, progress, &mut report)?;
    let packs = structure::check_packs(repository, &index, progress, &mut report)?;
    structure::check_trees(repository, &index, &records, progress, &mut report)?;
    packs::read(repository, &index, &packs, options.read_data, progress, &mut report)?;
    affected::find(repository, &index, &records, progress, &mut report)?;
    Ok(report)
}
