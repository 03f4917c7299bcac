//! What a prune would do.

use std::cmp::Reverse;

use crate::blob_set::BlobSet;
use crate::blob_writer::PACK_BYTES;
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::index::by_pack::ByPack;
use crate::progress::Progress;
use crate::reachable::{At, Flaw, Visitor, walk};
use crate::repository::Repository;
use crate::storage::FileKind;

use super::choice::{PackUse, choose};

/// How much of what nobody uses may stay, because it lies in packs with what is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MaxUnused {
    /// Of a hundred bytes that the repository has afterwards.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
    /// Only packs that nobody uses at all are removed.
    Unlimited,
}

/// How to prune.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How much unused data may stay.
    pub max_unused: MaxUnused,
    /// Bytes of packs that are rewritten at most.
    pub max_repack_bytes: Option<u64>,
    /// Merge all packs that are smaller than new ones become. Otherwise only very small ones, when there are ten.
    pub repack_small: bool,
    /// Compress what is stored uncompressed in packs of version 1.
    pub repack_uncompressed: bool,
    /// Go on although the repository has no backups but has packs. An empty listing may be a storage that failed,
    /// and then everything would be removed (restic#4612).
    pub remove_everything: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_unused: MaxUnused::Percent(5.0),
            max_repack_bytes: None,
            repack_small: false,
            repack_uncompressed: false,
            remove_everything: false,
        }
    }
}

/// Why a pack is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It holds trees and data, as restic before 0.8 wrote them.
    Mixed,
    /// It could be compressed.
    Uncompressed,
    /// It is small, as are others.
    Small,
    /// Some of it is unused.
    PartlyUnused,
}

/// A pack that is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repack {
    /// Which.
    pub pack: Id,
    /// Its size, in bytes.
    pub bytes: u64,
    /// What goes into new packs, in bytes.
    pub kept_bytes: u64,
    /// Why.
    pub reason: Reason,
}

/// How much there is, and how much there will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Blobs that backups use.
    pub used_blobs: u64,
    /// What they take, in bytes.
    pub used_bytes: u64,
    /// What blobs take that no backup uses, in bytes.
    pub unused_bytes: u64,
    /// What further copies of used blobs take, in bytes.
    pub duplicate_bytes: u64,
    /// Packs that stay as they are.
    pub kept_packs: u64,
    /// Unused bytes and copies that stay in them.
    pub unused_bytes_after: u64,
    /// Bytes that become free.
    pub freed_bytes: u64,
}

/// What a prune would do.
pub struct Plan {
    /// Packs to rewrite.
    pub repack: Vec<Repack>,
    /// Packs to remove because nothing in them is used, with their sizes in bytes.
    pub remove: Vec<(Id, u64)>,
    /// Packs to remove because no index names them, with their sizes in bytes.
    pub unindexed: Vec<(Id, u64)>,
    /// Packs that the index names, that are not there, and that nobody needs.
    pub missing: Vec<Id>,
    /// The sums.
    pub figures: Figures,
    pub(super) index: Index,
    pub(super) by_pack: ByPack,
    pub(super) keep: BlobSet,
    pub(super) compress: bool,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.repack.is_empty() && self.remove.is_empty() && self.unindexed.is_empty() && self.missing.is_empty()
    }
}

/// Looks for what can be removed. Whoever wants to execute the plan holds an exclusive lock since before this.
///
/// # Errors
/// [`Error::Refused`] if a record, tree or index file cannot be read, if a used blob is nowhere, or if there are packs
/// but no backups; in short, if it is not certain what is used.
pub fn plan(repository: &Repository, options: &Options, progress: &dyn Progress) -> Result<Plan, Error> {
    let (records, mut damaged) = repository.backups()?;
    if let Some(error) = damaged.pop() {
        return Err(Error::Refused(format!(
            "{error}; what it uses cannot be known, so nothing is pruned; `snapback forget` it if it is lost"
        )));
    }
    let stored = repository.storage().list(FileKind::Pack)?;
    if records.is_empty() && !stored.is_empty() && !options.remove_everything {
        return Err(Error::Refused(format!(
            "no backup is listed, but there are {} packs; if all backups were meant to be forgotten, say so",
            stored.len()
        )));
    }
    let index = repository.load_index().map_err(|error| match error {
        Error::Damaged { .. } => Error::Refused(format!("{error}; `snapback repo repair index` first")),
        error => error,
    })?;
    let roots: Vec<_> = records.iter().map(|(id, record)| (*id, record.tree)).collect();
    let used = walk(repository, &index, &roots, &Demand, progress)?;
    let mut sizes = vec![None; index.packs().len()];
    let mut unindexed = Vec::new();
    for (id, size) in stored {
        match index.packs().binary_search(&id) {
            Ok(pack) => sizes[pack] = Some(size),
            Err(_) => unindexed.push((id, size)),
        }
    }
    let choice = choose(&index, &used, &sizes);
    let mut figures = Figures {
        used_blobs: choice.packs.iter().map(|pack| pack.kept_blobs).sum(),
        used_bytes: choice.packs.iter().map(|pack| pack.kept_bytes).sum(),
        unused_bytes: choice.packs.iter().map(|pack| pack.unused_bytes).sum(),
        duplicate_bytes: choice.packs.iter().map(|pack| pack.duplicate_bytes).sum(),
        ..Figures::default()
    };
    let decided = decide(repository, options, &index, &choice.packs, &sizes, &mut figures)?;
    let Decided { repack, remove, missing } = decided;
    let removed = remove.iter().chain(&unindexed).map(|(_, size)| size).sum::<u64>();
    figures.freed_bytes = removed + repack.iter().map(|repack| repack.bytes - repack.kept_bytes).sum::<u64>();
    let by_pack = ByPack::new(&index);
    let compress = options.repack_uncompressed;
    Ok(Plan { repack, remove, unindexed, missing, figures, index, by_pack, keep: choice.keep, compress })
}

/// Whatever hides what is used, or is missing, ends the walk.
struct Demand;

impl Visitor for Demand {
    fn flaw(&self, at: &At<'_>, flaw: Flaw) -> Result<(), Error> {
        match flaw {
            Flaw::Tree(Error::Storage(error @ crate::storage::StorageError::Io { .. })) => Err(error.into()),
            Flaw::Tree(_) | Flaw::MissingBlobs(_) => Err(Error::Refused(format!(
                "{}: {flaw}; nothing is pruned while data is missing: `snapback repo check` tells the way out",
                at.place()
            ))),
            // Odd, but nothing is hidden.
            Flaw::Name | Flaw::NoSubtree | Flaw::NoContent | Flaw::Size { .. } => Ok(()),
        }
    }
}

struct Decided {
    repack: Vec<Repack>,
    remove: Vec<(Id, u64)>,
    missing: Vec<Id>,
}

/// Below this size packs are merged, if there are [`MANY_SMALL`] of them; restic's figures.
const SMALL: u64 = (4 << 20) * 4 / 5;
const MANY_SMALL: usize = 10;

fn decide(
    repository: &Repository,
    options: &Options,
    index: &Index,
    uses: &[PackUse],
    sizes: &[Option<u64>],
    figures: &mut Figures,
) -> Result<Decided, Error> {
    let (mut repack, mut remove, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut candidates: Vec<(Reason, usize)> = Vec::new();
    let mut small: [Vec<usize>; 2] = [Vec::new(), Vec::new()];
    let (small_bytes, many_small) =
        if options.repack_small { (PACK_BYTES as u64 * 4 / 5, 2) } else { (SMALL, MANY_SMALL) };
    let mut unused = 0;
    for (number, pack) in uses.iter().enumerate() {
        let id = index.packs()[number];
        let Some(size) = sizes[number] else {
            if pack.kept_blobs > 0 {
                return Err(Error::Refused(format!(
                    "pack {id} is missing, and backups need it; `snapback repo repair index`, then `snapback repo \
                     repair backups`"
                )));
            }
            missing.push(id);
            continue;
        };
        if pack.kept_blobs == 0 {
            remove.push((id, size));
            continue;
        }
        if size != pack.size {
            return Err(Error::Refused(format!(
                "pack {id} has {size} bytes, by the index it should have {}; `snapback repo repair packs {id}`",
                pack.size
            )));
        }
        let waste = pack.unused_bytes + pack.duplicate_bytes;
        unused += waste;
        let must_compress = options.repack_uncompressed && repository.compresses() && pack.is_uncompressed;
        if pack.has_data && pack.has_trees {
            candidates.push((Reason::Mixed, number));
        } else if must_compress {
            candidates.push((Reason::Uncompressed, number));
        } else if waste > 0 {
            candidates.push((Reason::PartlyUnused, number));
        } else if size < small_bytes {
            small[usize::from(pack.has_trees)].push(number);
        } else {
            figures.kept_packs += 1;
        }
    }
    for small in small {
        if small.len() >= many_small {
            candidates.extend(small.into_iter().map(|number| (Reason::Small, number)));
        } else {
            figures.kept_packs += small.len() as u64;
        }
    }
    let max_unused = match options.max_unused {
        MaxUnused::Unlimited => u64::MAX,
        MaxUnused::Bytes(bytes) => bytes,
        MaxUnused::Percent(percent) if percent >= 100.0 => u64::MAX,
        MaxUnused::Percent(percent) => (figures.used_bytes as f64 * percent.max(0.0) / (100.0 - percent)) as u64,
    };
    // What must be rewritten comes first, then trees, which every reader needs, then the most waste for the least work.
    candidates.sort_by_key(|&(reason, number)| {
        let pack = &uses[number];
        let waste = pack.unused_bytes + pack.duplicate_bytes;
        let share = u128::from(waste) * 1_000_000 / u128::from(pack.size.max(1));
        (reason == Reason::PartlyUnused, !pack.has_trees, Reverse(share), number)
    });
    let mut repacked_bytes = 0;
    for (reason, number) in candidates {
        let pack = &uses[number];
        let waste = pack.unused_bytes + pack.duplicate_bytes;
        let too_much = options.max_repack_bytes.is_some_and(|max| repacked_bytes + pack.size > max);
        let unlimited = options.max_unused == MaxUnused::Unlimited;
        let tolerable = reason == Reason::PartlyUnused
            && (unlimited || (!pack.has_trees && unused <= max_unused && pack.size >= small_bytes));
        if too_much || tolerable {
            figures.kept_packs += 1;
            continue;
        }
        unused -= waste;
        repacked_bytes += pack.size;
        let pack_id = index.packs()[number];
        repack.push(Repack { pack: pack_id, bytes: pack.size, kept_bytes: pack.kept_bytes, reason });
    }
    figures.unused_bytes_after = unused;
    Ok(Decided { repack, remove, missing })
}
