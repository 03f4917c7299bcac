//! Adds blobs to a repository: each one once, into packs, and the packs into the index.
//!
//! The work on one blob (hash, look up, compress, seal) stays on the thread that has it, in a [`BlobSaver`]. Full
//! packs go to a few writing threads, so that waiting for the disk costs no computing time. Order: a pack is
//! durable before an index file names it; the caller writes its record after [`BlobWriter::finish`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use crate::blob::{BlobKind, PackedBlob};
use crate::compression::Packing;
use crate::crypto;
use crate::error::Error;
use crate::hash::sha256;
use crate::id::Id;
use crate::index::{Index, file};
use crate::lock::Lock;
use crate::pack::{Pack, PackBuilder};
use crate::repository::Repository;
use crate::storage::{FileKind, StoredFile};

/// restic's default: a pack is closed when it has this many bytes.
pub const PACK_BYTES: usize = 16 << 20;
/// restic spreads data over two open packs at random, so that the packs' sizes tell less about the chunks'. We have
/// one for each core, as each hashes beside one of them.
const MIN_OPEN_DATA_PACKS: usize = 2;
/// An index file is written at the latest after this time, so that a crash loses little work.
const INDEX_EVERY: Duration = Duration::from_secs(10 * 60);
/// Threads that wait for the storage.
const WRITERS: usize = 2;
/// What is claimed is spread over this many tables, to be locked apart.
const SHARDS: usize = 16;

/// Where packs go.
#[derive(Clone)]
pub enum Destination {
    /// Into the repository. Nothing is written before the lock is confirmed, nor after it was lost.
    Repository(Arc<Lock>),
    /// Nowhere: a dry run that measures.
    Nowhere,
}

/// What a run has added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Data blobs.
    pub data_blobs: u64,
    /// Tree blobs.
    pub tree_blobs: u64,
    /// Their plaintext, in bytes.
    pub plain_bytes: u64,
    /// What they take in packs, in bytes.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
}

/// The first 192 bits of a blob's id: two blobs that share them are no likelier to be met than two with the same id, and
/// ten million new blobs take less memory.
type Claim = [u8; 24];

/// Adds blobs to a repository.
pub struct BlobWriter {
    shared: Arc<Shared>,
    packs: Sender<Pack>,
    writers: Vec<JoinHandle<()>>,
}

struct Shared {
    repository: Arc<Repository>,
    index: Arc<Index>,
    destination: Destination,
    /// Blobs some thread of this run stores or has stored, for each kind.
    claims: [Vec<Mutex<HashSet<Claim>>>; 2],
    data_packs: Vec<Mutex<PackBuilder>>,
    tree_pack: Mutex<PackBuilder>,
    /// Buffers for data packs: there are only so many, so that memory stays bounded when the storage is slow. Whoever
    /// begins a pack waits for one that was written.
    buffers: (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    unindexed: Mutex<Unindexed>,
    failure: Mutex<Option<Error>>,
    added: AddedSoFar,
}

#[derive(Default)]
struct AddedSoFar {
    blobs: [AtomicU64; 2],
    plain_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    packs: AtomicU64,
}

struct Unindexed {
    packs: Vec<(Id, Vec<PackedBlob>)>,
    blobs: usize,
    since: Instant,
}

impl BlobWriter {
    /// Starts the writing threads.
    pub fn new(repository: &Arc<Repository>, index: &Arc<Index>, destination: Destination) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let open_data_packs = cores.max(MIN_OPEN_DATA_PACKS);
        let buffers = crossbeam_channel::bounded(open_data_packs + WRITERS);
        for _ in 0..open_data_packs + WRITERS {
            buffers.0.send(Vec::new()).expect("the channel has room for all");
        }
        let shards = || (0..SHARDS).map(|_| Mutex::default()).collect();
        let shared = Arc::new(Shared {
            repository: Arc::clone(repository),
            index: Arc::clone(index),
            destination,
            claims: [shards(), shards()],
            data_packs: (0..open_data_packs).map(|_| Mutex::default()).collect(),
            tree_pack: Mutex::default(),
            buffers,
            unindexed: Mutex::new(Unindexed { packs: Vec::new(), blobs: 0, since: Instant::now() }),
            failure: Mutex::default(),
            added: AddedSoFar::default(),
        });
        // No room in the channel: a pack waits where it was filled, and memory stays bounded.
        let (packs, receiver) = crossbeam_channel::bounded(0);
        let writers = (0..WRITERS)
            .map(|number| {
                let (shared, receiver) = (Arc::clone(&shared), receiver.clone());
                let builder = std::thread::Builder::new().name(format!("write-{number}"));
                builder.spawn(move || shared.write_packs(&receiver)).expect("the system gives a thread")
            })
            .collect();
        BlobWriter { shared, packs, writers }
    }

    /// What one thread needs to save blobs.
    pub fn saver(&self) -> BlobSaver {
        let mut seed = [0; 8];
        crypto::fill_random(&mut seed);
        BlobSaver {
            shared: Arc::clone(&self.shared),
            packs: self.packs.clone(),
            packing: Packing::new(),
            random: u64::from_le_bytes(seed) | 1,
        }
    }

    /// What was added until now.
    pub fn added(&self) -> Added {
        let added = &self.shared.added;
        Added {
            data_blobs: added.blobs[0].load(Ordering::Relaxed),
            tree_blobs: added.blobs[1].load(Ordering::Relaxed),
            plain_bytes: added.plain_bytes.load(Ordering::Relaxed),
            stored_bytes: added.stored_bytes.load(Ordering::Relaxed),
            packs: added.packs.load(Ordering::Relaxed),
        }
    }

    /// Stores what is left in open packs and writes the index. All savers must be dropped before.
    pub fn finish(mut self) -> Result<Added, Error> {
        let saver = self.saver();
        for pack in self.shared.data_packs.iter().chain([&self.shared.tree_pack]) {
            let pack = std::mem::take(&mut *lock(pack));
            if !pack.is_empty() {
                saver.close(pack);
            }
        }
        drop(saver);
        self.stop_writers();
        if let Some(error) = lock(&self.shared.failure).take() {
            // What was stored before is worth an index, if the storage takes one by now: the next run goes on there.
            let _ = self.shared.write_index(true);
            return Err(error);
        }
        self.shared.write_index(true)?;
        Ok(self.added())
    }

    fn stop_writers(&mut self) {
        // The last sender: the writers' loops end.
        self.packs = crossbeam_channel::bounded(0).0;
        for writer in self.writers.drain(..) {
            writer.join().expect("writing a pack does not panic");
        }
    }
}

/// A run that is abandoned leaves an index of the packs it stored, so that the next run goes on from there.
impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.writers.is_empty() {
            self.stop_writers();
            // What is lost here is work, never data; and there is nobody left to tell.
            let _ = self.shared.write_index(true);
        }
    }
}

/// Saves blobs for one thread.
pub struct BlobSaver {
    shared: Arc<Shared>,
    packs: Sender<Pack>,
    packing: Packing,
    random: u64,
}

/// What became of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub id: Id,
    /// Bytes it takes in its pack; 0 if the repository had it already.
    pub stored_bytes: u64,
}

impl BlobSaver {
    /// Stores a blob, unless the repository has it.
    pub fn save(&mut self, kind: BlobKind, plain: &[u8]) -> Result<Saved, Error> {
        let id = self.hash(kind, plain);
        self.save_as(id, kind, plain)
    }

    /// Stores a blob whose id is known to be right.
    pub fn save_as(&mut self, id: Id, kind: BlobKind, plain: &[u8]) -> Result<Saved, Error> {
        if self.shared.index.contains(kind, &id) || !self.shared.claim(kind, id) {
            return Ok(Saved { id, stored_bytes: 0 });
        }
        self.store(id, kind, plain)
    }

    /// Stores a blob even though the index has it: repacking. Once for each run.
    pub fn save_again(&mut self, id: Id, kind: BlobKind, plain: &[u8]) -> Result<Saved, Error> {
        if !self.shared.claim(kind, id) {
            return Ok(Saved { id, stored_bytes: 0 });
        }
        self.store(id, kind, plain)
    }

    /// Stores a verified blob as it was packed elsewhere, without compressing it again: `packed` is the opened blob,
    /// `uncompressed_length` as in [`PackedBlob`]. Whether the index has it does not matter. Once for each run.
    pub fn save_packed(
        &mut self,
        id: Id,
        kind: BlobKind,
        packed: &[u8],
        uncompressed_length: u32,
    ) -> Result<Saved, Error> {
        if !self.shared.claim(kind, id) {
            return Ok(Saved { id, stored_bytes: 0 });
        }
        self.packing.take_over(packed);
        let plain_length = if uncompressed_length == 0 { packed.len() } else { uncompressed_length as usize };
        self.add(id, kind, plain_length, uncompressed_length)
    }

    fn store(&mut self, id: Id, kind: BlobKind, plain: &[u8]) -> Result<Saved, Error> {
        let (_, uncompressed_length) = self.packing.pack(plain, self.shared.repository.compresses());
        self.add(id, kind, plain.len(), uncompressed_length)
    }

    /// Seals what was packed, and adds it to an open pack.
    fn add(&mut self, id: Id, kind: BlobKind, plain_length: usize, uncompressed_length: u32) -> Result<Saved, Error> {
        let shared = Arc::clone(&self.shared);
        let open = match kind {
            BlobKind::Tree => &shared.tree_pack,
            BlobKind::Data => &shared.data_packs[self.random_pack()],
        };
        let sealed = self.packing.packed();
        shared.repository.key().seal_in_place(sealed);
        let stored_bytes = crate::pack::stored_size(sealed.len() as u32, uncompressed_length != 0);
        shared.added.blobs[kind as usize].fetch_add(1, Ordering::Relaxed);
        shared.added.plain_bytes.fetch_add(plain_length as u64, Ordering::Relaxed);
        shared.added.stored_bytes.fetch_add(stored_bytes, Ordering::Relaxed);
        let full = {
            let mut pack = lock(open);
            if pack.is_empty() && kind == BlobKind::Data {
                *pack = PackBuilder::in_buffer(shared.buffers.1.recv().expect("the channel lives as long as we"));
            }
            pack.push(id, kind, sealed, uncompressed_length);
            let full = pack.len() >= PACK_BYTES || pack.has_enough_blobs();
            full.then(|| std::mem::take(&mut *pack))
        };
        if let Some(pack) = full {
            self.close(pack);
            self.check()?;
        }
        Ok(Saved { id, stored_bytes })
    }

    /// Hashes a plaintext, data beside one of the open packs.
    fn hash(&mut self, kind: BlobKind, plain: &[u8]) -> Id {
        if kind == BlobKind::Tree {
            return sha256(plain);
        }
        // Another thread may hash beside the one, and then the other one has something left to hash, too.
        let first = self.random_pack();
        let mut packs = self.shared.data_packs[first..].iter().chain(&self.shared.data_packs[..first]);
        match packs.find_map(|pack| pack.try_lock().ok()) {
            Some(mut pack) => pack.hash_beside(plain),
            None => sha256(plain),
        }
    }

    fn random_pack(&mut self) -> usize {
        // xorshift: which of a few packs needs no better randomness, but this many calls need speed.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as usize % self.shared.data_packs.len()
    }

    fn close(&self, pack: PackBuilder) {
        let pack = pack.finish(self.shared.repository.key());
        self.packs.send(pack).expect("the writers outlive the savers");
    }

    /// Whether packs could be written so far. The error itself comes from [`BlobWriter::finish`].
    pub fn check(&self) -> Result<(), Error> {
        match &*lock(&self.shared.failure) {
            Some(error) => Err(Error::Earlier(error.to_string())),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn claim(&self, kind: BlobKind, id: Id) -> bool {
        let claim: Claim = *id.0.first_chunk().expect("an id has 32 bytes");
        lock(&self.claims[kind as usize][usize::from(claim[0]) % SHARDS]).insert(claim)
    }

    fn write_packs(&self, packs: &Receiver<Pack>) {
        for Pack { id, bytes, blobs } in packs {
            let is_data = blobs.first().is_some_and(|blob| blob.kind == BlobKind::Data);
            // After a failure the rest is thrown away, so that nobody waits for room.
            if lock(&self.failure).is_none()
                && let Err(error) = self.write_pack(id, &bytes, blobs)
            {
                lock(&self.failure).get_or_insert(error);
            }
            if is_data {
                self.buffers.0.send(bytes).expect("the channel lives as long as we, and has room for all");
            }
        }
    }

    fn write_pack(&self, id: Id, bytes: &[u8], blobs: Vec<PackedBlob>) -> Result<(), Error> {
        if let Destination::Repository(lock) = &self.destination {
            lock.confirm()?;
            self.repository.storage().write(&StoredFile::new(FileKind::Pack, id), bytes)?;
        }
        self.added.packs.fetch_add(1, Ordering::Relaxed);
        let mut unindexed = lock(&self.unindexed);
        unindexed.blobs += blobs.len();
        unindexed.packs.push((id, blobs));
        drop(unindexed);
        self.write_index(false)
    }

    /// Writes an index file of the packs that none names yet; if not `all`, then only when it is time.
    fn write_index(&self, all: bool) -> Result<(), Error> {
        let packs = {
            let mut unindexed = lock(&self.unindexed);
            let due = unindexed.blobs >= file::MAX_BLOBS || unindexed.since.elapsed() >= INDEX_EVERY;
            if unindexed.packs.is_empty() || !(all || due) {
                return Ok(());
            }
            unindexed.blobs = 0;
            unindexed.since = Instant::now();
            std::mem::take(&mut unindexed.packs)
        };
        if let Destination::Repository(lock) = &self.destination {
            lock.confirm()?;
            let document = file::encode(packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
            self.repository.save(FileKind::Index, &document)?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while a lock is held")
}
