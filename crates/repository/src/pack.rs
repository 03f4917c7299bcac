//! Packs: sealed blobs one behind the other, then a sealed header that lists them, then the header's length.
//!
//! Source: restic's `doc/design.rst`, "Pack Format". Offsets are not stored; they are the sums of the lengths.

use crate::blob::{BlobKind, PackedBlob};
use crate::crypto::{self, MasterKey};
use crate::hash::{Sha256, update_pair};
use crate::id::Id;

/// The header's length at the end of a pack, in bytes.
pub const TRAILER: usize = 4;
/// Of an entry for a blob that is not compressed, in bytes.
const PLAIN_ENTRY: usize = 1 + 4 + 32;
/// Of an entry for a compressed blob, in bytes.
const COMPRESSED_ENTRY: usize = 1 + 4 + 4 + 32;
/// restic refuses longer headers, in bytes.
pub const MAX_HEADER: usize = 16 << 20;
/// Blobs that are put into a pack at the most. Filled by its size alone, a pack of tiny files would have hundreds of
/// thousands, and its list, its header and the index file that names them all would be in memory at once.
const MAX_BLOBS: usize = 20_000;
const _: () = assert!(MAX_BLOBS * COMPRESSED_ENTRY + crypto::OVERHEAD <= MAX_HEADER);

/// Why bytes are not a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Too few bytes to hold a header.
    #[error("it is too short for a header")]
    TooShort,
    /// The length at the end is impossible.
    #[error("its header is said to have {0} bytes")]
    HeaderLength(u64),
    /// The header does not open.
    #[error("its header is damaged: {0}")]
    Header(#[from] crypto::Error),
    /// An entry of a type we do not know.
    #[error("its header has an entry of type {0}")]
    EntryType(u8),
    /// The header ends within an entry.
    #[error("its header ends within an entry")]
    HeaderEnds,
    /// Blobs and header are not as long as the file.
    #[error("its header lists {listed} bytes of blobs, it has {actual}")]
    Length {
        /// Sum of the blobs' lengths.
        listed: u64,
        /// Bytes before the header.
        actual: u64,
    },
}

/// A pack that is being filled, in memory. Its hash, which becomes its name, keeps up with it.
#[derive(Default)]
pub struct PackBuilder {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
    hash: Sha256,
    /// How many of the bytes are in the hash.
    hashed: usize,
}

/// A pack that is complete.
pub struct Pack {
    /// Its name.
    pub id: Id,
    /// Blobs, header and the header's length.
    pub bytes: Vec<u8>,
    /// What is in it.
    pub blobs: Vec<PackedBlob>,
}

impl PackBuilder {
    /// An empty pack that fills a buffer used before.
    pub fn in_buffer(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        PackBuilder { bytes, ..PackBuilder::default() }
    }

    /// Hashes a plaintext, and beside it what of this pack is not in its hash yet: two at once take little longer
    /// than one.
    pub fn hash_beside(&mut self, plain: &[u8]) -> Id {
        let behind = &self.bytes[self.hashed..];
        let beside = &behind[..behind.len().min(plain.len())];
        let mut hash = Sha256::new();
        update_pair(&mut hash, plain, &mut self.hash, beside);
        self.hashed += beside.len();
        hash.finish()
    }

    /// Appends a sealed blob. The pack stays below 4 GiB: it is written long before.
    pub fn push(&mut self, id: Id, kind: BlobKind, sealed: &[u8], uncompressed_length: u32) {
        let offset = u32::try_from(self.bytes.len()).expect("packs are far below 4 GiB");
        let length = u32::try_from(sealed.len()).expect("blobs are far below 4 GiB");
        self.bytes.extend_from_slice(sealed);
        self.blobs.push(PackedBlob { id, kind, offset, length, uncompressed_length });
    }

    /// Bytes of all blobs so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether no blob was added.
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// Whether it has as many blobs as a pack should, however small they are.
    pub fn has_enough_blobs(&self) -> bool {
        self.blobs.len() >= MAX_BLOBS
    }

    /// Appends the header.
    pub fn finish(mut self, key: &MasterKey) -> Pack {
        let mut header = vec![0; crypto::IV_BYTES];
        for blob in &self.blobs {
            let kind = match blob.kind {
                BlobKind::Data => 0,
                BlobKind::Tree => 1,
            };
            let compressed = blob.uncompressed_length != 0;
            header.push(kind + if compressed { 2 } else { 0 });
            header.extend_from_slice(&blob.length.to_le_bytes());
            if compressed {
                header.extend_from_slice(&blob.uncompressed_length.to_le_bytes());
            }
            header.extend_from_slice(&blob.id.0);
        }
        key.seal_in_place(&mut header);
        self.bytes.extend_from_slice(&header);
        let length = u32::try_from(header.len()).expect("headers are at most 16 MiB");
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.hash.update(&self.bytes[self.hashed..]);
        Pack { id: self.hash.finish(), bytes: self.bytes, blobs: self.blobs }
    }
}

/// How large a pack with these blobs must be, in bytes: what restic's prune and check compare with.
pub fn expected_size<'a>(blobs: impl IntoIterator<Item = &'a PackedBlob>) -> u64 {
    let fixed = (crypto::OVERHEAD + TRAILER) as u64;
    blobs.into_iter().fold(fixed, |size, blob| size + stored_size(blob.length, blob.uncompressed_length != 0))
}

/// What one blob costs in a pack, its header's entry included, in bytes.
pub fn stored_size(length: u32, compressed: bool) -> u64 {
    u64::from(length) + if compressed { COMPRESSED_ENTRY } else { PLAIN_ENTRY } as u64
}

/// The sealed header's length from a pack's last four bytes, checked against the pack's size.
pub fn header_length(trailer: [u8; TRAILER], pack_size: u64) -> Result<u64, PackError> {
    let length = u64::from(u32::from_le_bytes(trailer));
    let room = pack_size.checked_sub(TRAILER as u64).ok_or(PackError::TooShort)?;
    if length < (crypto::OVERHEAD + PLAIN_ENTRY) as u64 || length > MAX_HEADER as u64 || length > room {
        return Err(PackError::HeaderLength(length));
    }
    Ok(length)
}

/// Opens and reads a sealed header; `blob_bytes` is what lies before it.
pub fn parse_header(key: &MasterKey, sealed: &mut [u8], blob_bytes: u64) -> Result<Vec<PackedBlob>, PackError> {
    parse_entries(key.open_in_place(sealed)?, blob_bytes)
}

/// Reads a header's plaintext; `blob_bytes` is what lies before it.
pub fn parse_entries(mut header: &[u8], blob_bytes: u64) -> Result<Vec<PackedBlob>, PackError> {
    let mut blobs = Vec::with_capacity(header.len() / PLAIN_ENTRY);
    let mut offset = 0_u64;
    while let Some((&kind, rest)) = header.split_first() {
        let (blob_kind, compressed) = match kind {
            0 => (BlobKind::Data, false),
            1 => (BlobKind::Tree, false),
            2 => (BlobKind::Data, true),
            3 => (BlobKind::Tree, true),
            unknown => return Err(PackError::EntryType(unknown)),
        };
        let (length, mut rest) = rest.split_first_chunk::<4>().ok_or(PackError::HeaderEnds)?;
        let mut uncompressed_length = 0;
        if compressed {
            let (bytes, after) = rest.split_first_chunk::<4>().ok_or(PackError::HeaderEnds)?;
            uncompressed_length = u32::from_le_bytes(*bytes);
            rest = after;
        }
        let (id, rest) = rest.split_first_chunk::<32>().ok_or(PackError::HeaderEnds)?;
        let length = u32::from_le_bytes(*length);
        blobs.push(PackedBlob {
            id: Id(*id),
            kind: blob_kind,
            // Beyond 4 GiB the sum below no longer agrees with the file, and the pack is refused.
            offset: offset as u32,
            length,
            uncompressed_length,
        });
        offset += u64::from(length);
        header = rest;
    }
    if offset != blob_bytes || offset > u64::from(u32::MAX) {
        return Err(PackError::Length { listed: offset, actual: blob_bytes });
    }
    Ok(blobs)
}
