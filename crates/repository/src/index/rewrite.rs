//! Writes a repository's index anew, without the packs that shall go. The new files are durable before the caller
//! removes the old ones, so at every moment some index file names each pack that stays.

use std::collections::HashSet;

use crate::blob::PackedBlob;
use crate::error::Error;
use crate::id::Id;
use crate::index::file::{self, MAX_BLOBS};
use crate::lock::Lock;
use crate::progress::{Phase, Progress, go_on};
use crate::repository::Repository;
use crate::storage::FileKind;

/// Files with fewer blobs are merged when there is more than one: every small backup leaves one.
const SMALL: usize = MAX_BLOBS / 2;

/// What shall become of the index.
pub(crate) struct Rewrite<'a> {
    /// Packs that it shall no longer name.
    pub(crate) without: &'a HashSet<Id>,
    /// Index files that cannot be read: they are left as they are, and are the caller's to remove.
    pub(crate) unreadable: &'a HashSet<Id>,
    /// Packs to be named besides.
    pub(crate) with: &'a [(Id, Vec<PackedBlob>)],
}

/// Writes the new files. Gives the old ones, which the caller removes when it is sure. `see` is told every pack that
/// is in the index afterwards.
pub(crate) fn rewrite(
    repository: &Repository,
    lock: &Lock,
    what: &Rewrite<'_>,
    see: &mut dyn FnMut(Id, &[PackedBlob]),
    progress: &dyn Progress,
) -> Result<Vec<Id>, Error> {
    let files = repository.storage().list(FileKind::Index)?;
    progress.begin(Phase::WriteIndex, Some(files.len() as u64), None);
    // Two passes, because whether a small file is rewritten depends on whether another one is.
    let mut small = Vec::new();
    let mut changed = Vec::new();
    for (id, _) in &files {
        if what.unreadable.contains(id) {
            continue;
        }
        go_on(progress)?;
        let packs = repository.load_index_file(*id)?;
        if packs.is_empty() || packs.iter().any(|(pack, _)| what.without.contains(pack)) {
            changed.push(*id);
        } else if packs.iter().map(|(_, blobs)| blobs.len()).sum::<usize>() < SMALL {
            small.push(*id);
        } else {
            packs.iter().for_each(|(pack, blobs)| see(*pack, blobs));
        }
    }
    if changed.is_empty() && what.with.is_empty() && small.len() == 1 {
        for (pack, blobs) in repository.load_index_file(small[0])? {
            see(pack, &blobs);
        }
        small.clear();
    }
    changed.append(&mut small);
    let mut writer = Writer { repository, lock, packs: Vec::new(), blobs: 0 };
    for id in &changed {
        go_on(progress)?;
        for (pack, blobs) in repository.load_index_file(*id)? {
            if !what.without.contains(&pack) {
                see(pack, &blobs);
                writer.add(pack, blobs)?;
            }
        }
        progress.advance(1, 0);
    }
    for (pack, blobs) in what.with {
        see(*pack, blobs);
        writer.add(*pack, blobs.clone())?;
    }
    writer.flush()?;
    Ok(changed)
}

struct Writer<'a> {
    repository: &'a Repository,
    lock: &'a Lock,
    packs: Vec<(Id, Vec<PackedBlob>)>,
    blobs: usize,
}

impl Writer<'_> {
    fn add(&mut self, pack: Id, blobs: Vec<PackedBlob>) -> Result<(), Error> {
        self.blobs += blobs.len();
        self.packs.push((pack, blobs));
        if self.blobs >= MAX_BLOBS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.packs.is_empty() {
            return Ok(());
        }
        self.lock.confirm()?;
        // Two files may have named the same pack.
        self.packs.sort_by_key(|(pack, _)| *pack);
        self.packs.dedup();
        let document = file::encode(self.packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
        self.repository.save(FileKind::Index, &document)?;
        self.packs.clear();
        self.blobs = 0;
        Ok(())
    }
}
