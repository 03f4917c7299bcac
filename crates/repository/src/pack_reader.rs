//! Reads chosen blobs of packs, neighbours together, and hands each out verified: for repacking, salvaging, copying.

use crate::blob::PackedBlob;
use crate::compression::{self, Unpacking};
use crate::error::Error;
use crate::hash::sha256;
use crate::id::Id;
use crate::pack::{self, PackError, TRAILER};
use crate::repository::{Repository, wrong_hash};
use crate::storage::{FileKind, StorageError, StoredFile};

/// So much that nobody wants is read to save a request.
const MAX_GAP: u64 = 128 << 10;
/// So much is read at once, unless a single blob is larger.
const MAX_RUN: u64 = 24 << 20;

/// A blob whose bytes have its hash.
pub(crate) struct Verified<'a> {
    /// As it was before sealing.
    pub(crate) packed: &'a [u8],
    /// Decompressed.
    pub(crate) plain: &'a [u8],
}

/// Gets a blob, or what is wrong with it. An error it returns ends the reading.
pub(crate) type Each<'a> = dyn FnMut(&PackedBlob, Result<Verified<'_>, Error>) -> Result<(), Error> + 'a;

/// One thread's buffers.
pub(crate) struct PackReader<'a> {
    repository: &'a Repository,
    unpacking: Unpacking,
    run: Vec<u8>,
    plain: Vec<u8>,
}

impl<'a> PackReader<'a> {
    pub(crate) fn new(repository: &'a Repository) -> Self {
        PackReader { repository, unpacking: Unpacking::new(), run: Vec::new(), plain: Vec::new() }
    }

    /// Calls `each` for every one of `blobs`, which are sorted by offset.
    pub(crate) fn read(&mut self, pack: Id, blobs: &[PackedBlob], each: &mut Each<'_>) -> Result<(), Error> {
        let mut rest = blobs;
        while let Some(first) = rest.first() {
            let start = u64::from(first.offset);
            let mut end = start + u64::from(first.length);
            let mut count = 1;
            for blob in &rest[1..] {
                let (offset, next) = (u64::from(blob.offset), u64::from(blob.offset) + u64::from(blob.length));
                // Entries of a contradictory index may overlap: decrypting in place, each needs its own bytes.
                if offset < end || offset - end > MAX_GAP || next - start > MAX_RUN {
                    break;
                }
                end = next;
                count += 1;
            }
            self.read_run(pack, &rest[..count], start, end, each)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn read_run(
        &mut self,
        pack: Id,
        blobs: &[PackedBlob],
        start: u64,
        end: u64,
        each: &mut Each<'_>,
    ) -> Result<(), Error> {
        let file = StoredFile::new(FileKind::Pack, pack);
        match self.repository.storage().read_range(&file, start, end - start, &mut self.run) {
            // Some of them may be there all the same.
            Err(StorageError::Truncated { .. } | StorageError::Io { .. }) if blobs.len() > 1 => {
                for blob in blobs {
                    let start = u64::from(blob.offset);
                    self.read_run(pack, std::slice::from_ref(blob), start, start + u64::from(blob.length), each)?;
                }
                return Ok(());
            }
            Err(error) => {
                let mut error = Some(error);
                for blob in blobs {
                    let error = error.take().unwrap_or_else(|| StorageError::NotFound {
                        file,
                        location: self.repository.storage().location(),
                    });
                    each(blob, Err(Error::Storage(error)))?;
                }
                return Ok(());
            }
            Ok(()) => {}
        }
        for blob in blobs {
            let from = (u64::from(blob.offset) - start) as usize;
            let sealed = &mut self.run[from..from + blob.length as usize];
            let damaged = |reason: String| Error::DamagedBlob { kind: blob.kind, id: blob.id, pack, reason };
            let opened = self.repository.key().open_in_place(sealed).map_err(|error| damaged(error.to_string()));
            let verified = opened.and_then(|packed| {
                let packed = &*packed;
                let plain = if blob.uncompressed_length == 0 {
                    packed
                } else {
                    let length = u64::from(blob.uncompressed_length);
                    let unpacked = self.unpacking.unpack(packed, length, &mut self.plain);
                    unpacked.map_err(|error: compression::UnpackError| damaged(error.to_string()))?;
                    &self.plain
                };
                if sha256(plain) == blob.id { Ok(Verified { packed, plain }) } else { Err(wrong_hash(pack, blob)) }
            });
            each(blob, verified)?;
        }
        Ok(())
    }
}

/// Most headers are read at once with their length.
const HEADER_GUESS: u64 = 64 << 10;

/// Reads the header of a pack of `size` bytes: what lies in it by its own word.
pub(crate) fn read_header(
    repository: &Repository,
    pack: Id,
    size: u64,
    buffer: &mut Vec<u8>,
) -> Result<Vec<PackedBlob>, Error> {
    let file = StoredFile::new(FileKind::Pack, pack);
    let damaged = |error: PackError| Error::Damaged { file, reason: error.to_string() };
    let end = size.min(HEADER_GUESS);
    repository.storage().read_range(&file, size - end, end, buffer)?;
    let trailer = buffer.last_chunk::<TRAILER>().ok_or_else(|| damaged(PackError::TooShort))?;
    let length = pack::header_length(*trailer, size).map_err(damaged)?;
    let (whole, blob_bytes) = (length + TRAILER as u64, size - length - TRAILER as u64);
    if whole > end {
        repository.storage().read_range(&file, size - whole, whole, buffer)?;
    }
    let sealed = buffer.len() - whole as usize..buffer.len() - TRAILER;
    pack::parse_header(repository.key(), &mut buffer[sealed], blob_bytes).map_err(damaged)
}
