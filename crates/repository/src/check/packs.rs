//! Reads packs whole: each file has the hash it is named by, its header agrees with the index, and each of its blobs
//! opens, decompresses and has its hash.
//!
//! Hashing is most of the work, so a core always hashes two streams at once: the pack file alongside its blobs'
//! plaintexts, and when the file is done, the plaintexts alongside each other. The file's hash has to run ahead of the
//! blobs, because they are decrypted in place.

use std::ops::Range;
use std::sync::Mutex;

use crate::blob::{BlobKind, PackedBlob};
use crate::compression::{self, Unpacking};
use crate::crypto::{IV_BYTES, MAC_BYTES, OVERHEAD};
use crate::error::Error;
use crate::hash::{Sha256, sha256_many, update_pair};
use crate::id::Id;
use crate::index::Index;
use crate::pack::{self, TRAILER};
use crate::parallel;
use crate::progress::{Phase, Progress, go_on};
use crate::repository::{Repository, wrong_hash};
use crate::storage::{FileKind, StoredFile};

use super::ReadData;
use super::report::{Problem, Report};
use super::structure::Packs;

/// So much of a pack is read at once, unless a single blob is larger. restic's packs are 16 MiB and a blob.
const WINDOW_BYTES: u64 = 24 << 20;
/// Blobs are opened until they have so many bytes, then hashed together.
const GROUP_BYTES: usize = 1 << 20;
/// As [`GROUP_BYTES`], when only plaintexts are left to be hashed.
const LAST_GROUP_BYTES: usize = 4 << 20;
/// A buffer that one large blob has made larger than this is given back.
const MAX_ARENA_BYTES: usize = 32 << 20;

/// Reads the packs that `which` chooses.
pub(super) fn read(
    repository: &Repository,
    index: &Index,
    packs: &Packs,
    which: ReadData,
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<(), Error> {
    if which == ReadData::None {
        return Ok(());
    }
    let present = (0..index.packs().len()).filter(|&pack| packs.sizes[pack].is_some());
    let chosen = choose(present.collect(), index, which);
    let bytes = chosen.iter().filter_map(|&pack| packs.sizes[pack]).sum();
    progress.begin(Phase::ReadPacks, Some(chosen.len() as u64), Some(bytes));
    report.figures.packs_read = chosen.len() as u64;
    report.figures.bytes_read = bytes;
    let report = Mutex::new(report);
    parallel::for_each(
        parallel::cores(),
        &chosen,
        || PackReader::new(repository, progress),
        |reader, &pack| {
            let id = index.packs()[pack];
            let size = packs.sizes[pack].expect("only packs that are there were chosen");
            packs.by_pack.blobs(index, pack, &mut reader.blobs);
            let found = if packs.regular[pack] { reader.read(id, size)? } else { reader.read_singly(id, size)? };
            if !found.reasons.is_empty() || !found.lost.is_empty() {
                found.tell(id, &mut report.lock().expect("no panic while the report is held"));
            }
            Ok(())
        },
    )
}

fn choose(mut packs: Vec<usize>, index: &Index, which: ReadData) -> Vec<usize> {
    match which {
        ReadData::None => packs.clear(),
        ReadData::All => {}
        ReadData::Part { number, of } => {
            packs.retain(|&pack| u32::from(index.packs()[pack].0[0]) % of == number - 1);
        }
        ReadData::Percent { percent, seed } => {
            let share = (packs.len() as f64 * percent / 100.0).ceil();
            let count = (share.max(1.0) as usize).min(packs.len());
            // splitmix64 over the seed; ids are random already, but the same ones must not come each time.
            let mut state = seed;
            for at in 0..count {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut random = state;
                random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                random ^= random >> 31;
                let rest = packs.len() - at;
                packs.swap(at, at + (random % rest as u64) as usize);
            }
            packs.truncate(count);
        }
    }
    packs
}

/// What is wrong with a pack.
#[derive(Default)]
struct Found {
    reasons: Vec<String>,
    lost: Vec<(BlobKind, Id)>,
}

impl Found {
    fn lose(&mut self, blob: &PackedBlob, reason: &str) {
        // One reason tells enough of many blobs.
        if self.lost.is_empty() {
            self.reasons.push(reason.to_owned());
        }
        self.lost.push((blob.kind, blob.id));
    }

    fn tell(self, pack: Id, report: &mut Report) {
        // Of a pack of the wrong size there is a problem already; what is lost belongs to it.
        for problem in &mut report.errors {
            if let Problem::PackSize { pack: known, lost, .. } = problem
                && *known == pack
            {
                *lost = self.lost;
                return;
            }
        }
        report.error(Problem::PackDamaged { pack, reasons: self.reasons, lost: self.lost, affected: Vec::new() });
    }
}

/// Where a plaintext lies until it is hashed.
enum Plain {
    /// Decrypted in place.
    Window(Range<usize>),
    /// Decompressed.
    Arena(Range<usize>),
}

/// One thread's buffers.
struct PackReader<'a> {
    repository: &'a Repository,
    progress: &'a dyn Progress,
    unpacking: Unpacking,
    /// The pack's blobs in order.
    blobs: Vec<PackedBlob>,
    window: Vec<u8>,
    arena: Vec<u8>,
    /// Blobs by number that wait to be hashed.
    group: Vec<(usize, Plain)>,
}

impl<'a> PackReader<'a> {
    fn new(repository: &'a Repository, progress: &'a dyn Progress) -> Self {
        PackReader {
            repository,
            progress,
            unpacking: Unpacking::new(),
            blobs: Vec::new(),
            window: Vec::new(),
            arena: Vec::new(),
            group: Vec::new(),
        }
    }

    /// Reads a pack whose size and blobs agree.
    fn read(&mut self, pack: Id, size: u64) -> Result<Found, Error> {
        let mut found = Found::default();
        let mut hash = Sha256::new();
        let file = StoredFile::new(FileKind::Pack, pack);
        let blob_bytes = self.blobs.last().map_or(0, |last| u64::from(last.offset) + u64::from(last.length));
        let (mut next, mut start) = (0, 0);
        while start < size {
            go_on(self.progress)?;
            let first = next;
            let mut end = start;
            while let Some(blob) = self.blobs.get(next)
                && (next == first || end + u64::from(blob.length) - start <= WINDOW_BYTES)
            {
                end += u64::from(blob.length);
                next += 1;
            }
            if next == self.blobs.len() && (size - start <= WINDOW_BYTES || first == next) {
                end = size;
            }
            if let Err(error) = self.repository.storage().read_range(&file, start, end - start, &mut self.window) {
                found.reasons.push(error.to_string());
                found.lost.extend(self.blobs[first..].iter().map(|blob| (blob.kind, blob.id)));
                return Ok(found);
            }
            self.read_window(pack, start, first..next, &mut hash, &mut found);
            if end == size {
                let header = (blob_bytes - start) as usize;
                found.reasons.extend(self.compare_header(header, blob_bytes));
            }
            self.progress.advance(u64::from(end == size), end - start);
            start = end;
        }
        if hash.finish() != pack {
            found.reasons.insert(0, "its bytes do not have the hash it is named by".to_owned());
        }
        Ok(found)
    }

    /// Verifies those blobs that the window holds, and hashes all of it.
    fn read_window(&mut self, pack: Id, start: u64, blobs: Range<usize>, hash: &mut Sha256, found: &mut Found) {
        let mut hashed = 0;
        let mut next = blobs.start;
        while next < blobs.end {
            let (mut bytes, mut arena) = (0, 0);
            // Once the file's hash is done, plaintexts are paired with each other, which takes several.
            let wanted = if hashed < self.window.len() { GROUP_BYTES } else { LAST_GROUP_BYTES };
            while next < blobs.end && bytes < wanted {
                let blob = self.blobs[next];
                let begin = (u64::from(blob.offset) - start) as usize;
                let sealed = begin..begin + blob.length as usize;
                if hashed < sealed.end {
                    hash.update(&self.window[hashed..sealed.end]);
                    hashed = sealed.end;
                }
                match self.open(&blob, sealed, &mut arena) {
                    Ok(plain) => self.group.push((next, plain)),
                    Err(reason) => found.lose(&blob, &reason),
                }
                bytes += blob.plain_length() as usize;
                next += 1;
            }
            self.hash_group(pack, hash, &mut hashed, found);
        }
        hash.update(&self.window[hashed..]);
    }

    /// Decrypts and decompresses a blob.
    fn open(&mut self, blob: &PackedBlob, sealed: Range<usize>, arena: &mut usize) -> Result<Plain, String> {
        let plain = Range { start: sealed.start + IV_BYTES, end: sealed.end.saturating_sub(MAC_BYTES) };
        let packed =
            self.repository.key().open_in_place(&mut self.window[sealed]).map_err(|error| error.to_string())?;
        if blob.uncompressed_length == 0 {
            return Ok(Plain::Window(plain));
        }
        let length = blob.uncompressed_length as usize;
        compression::expect_length(packed, length as u64).map_err(|error| error.to_string())?;
        let room = *arena..*arena + length;
        // It never shrinks, so that its bytes are zeroed only once.
        if self.arena.len() < room.end {
            self.arena.resize(room.end, 0);
        }
        let unpacked = self.unpacking.unpack_into(packed, &mut self.arena[room.clone()]);
        unpacked.map_err(|error| error.to_string())?;
        *arena = room.end;
        Ok(Plain::Arena(room))
    }

    fn hash_group(&mut self, pack: Id, hash: &mut Sha256, hashed: &mut usize, found: &mut Found) {
        let plain_of = |plain: &Plain| match plain {
            Plain::Window(range) => &self.window[range.clone()],
            Plain::Arena(range) => &self.arena[range.clone()],
        };
        let mut compare = |number: usize, id: Id| {
            let blob = self.blobs[number];
            if id != blob.id {
                found.lose(&blob, &wrong_hash(pack, &blob).to_string());
            }
        };
        let mut group = &self.group[..];
        while let Some(((number, plain), rest)) = group.split_first()
            && *hashed < self.window.len()
        {
            let plain = plain_of(plain);
            let file = &self.window[*hashed..self.window.len().min(*hashed + plain.len())];
            let mut blob_hash = Sha256::new();
            update_pair(&mut blob_hash, plain, hash, file);
            *hashed += file.len();
            compare(*number, blob_hash.finish());
            group = rest;
        }
        let plains: Vec<&[u8]> = group.iter().map(|(_, plain)| plain_of(plain)).collect();
        for ((number, _), id) in group.iter().zip(sha256_many(&plains)) {
            compare(*number, id);
        }
        self.group.clear();
        if self.arena.len() > MAX_ARENA_BYTES {
            self.arena = Vec::new();
        }
    }

    /// The header lies in the window from `header` on.
    fn compare_header(&mut self, header: usize, blob_bytes: u64) -> Option<String> {
        let (sealed, trailer) = self.window[header..].split_last_chunk_mut::<TRAILER>()?;
        let length = sealed.len();
        if u64::from(u32::from_le_bytes(*trailer)) != length as u64 || length < OVERHEAD {
            return Some("its header does not have the length that the index implies".to_owned());
        }
        match pack::parse_header(self.repository.key(), sealed, blob_bytes) {
            Err(error) => Some(error.to_string()),
            Ok(blobs) if blobs != self.blobs => Some("its header and the index differ".to_owned()),
            Ok(_) => None,
        }
    }

    /// Reads a pack that is not what the index says, to tell which blobs are lost.
    fn read_singly(&mut self, pack: Id, size: u64) -> Result<Found, Error> {
        let mut found = Found::default();
        let file = StoredFile::new(FileKind::Pack, pack);
        for number in 0..self.blobs.len() {
            go_on(self.progress)?;
            let blob = self.blobs[number];
            let (offset, length) = (u64::from(blob.offset), u64::from(blob.length));
            let read = self.repository.storage().read_range(&file, offset, length, &mut self.window);
            let opened = read.map_err(Error::Storage).and_then(|()| {
                let (sealed, plain) = (&mut self.window, &mut self.arena);
                self.repository.open_blob(pack, &blob, sealed, &mut self.unpacking, plain)
            });
            if let Err(error) = opened {
                found.lose(&blob, &error.to_string());
            }
        }
        self.progress.advance(1, size);
        Ok(found)
    }
}
