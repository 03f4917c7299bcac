//! Index files: JSON lists of packs and their blobs.

use serde::{Deserialize, Serialize};

use crate::blob::{BlobKind, PackedBlob};
use crate::id::Id;

/// restic flushes an index file at this many blobs; larger ones make every reader hold more at once.
pub const MAX_BLOBS: usize = 50_000;

#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    packs: Vec<PackEntry>,
}

#[derive(Serialize, Deserialize)]
struct PackEntry {
    id: Id,
    #[serde(default)]
    blobs: Vec<BlobEntry>,
}

#[derive(Serialize, Deserialize)]
struct BlobEntry {
    id: Id,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    uncompressed_length: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(length: &u32) -> bool {
    *length == 0
}

/// Writes an index file's plaintext.
pub fn encode<'a>(packs: impl IntoIterator<Item = (Id, &'a [PackedBlob])>) -> Vec<u8> {
    let packs = packs.into_iter().map(|(id, blobs)| PackEntry {
        id,
        blobs: blobs
            .iter()
            .map(|blob| BlobEntry {
                id: blob.id,
                kind: blob.kind,
                offset: blob.offset,
                length: blob.length,
                uncompressed_length: blob.uncompressed_length,
            })
            .collect(),
    });
    serde_json::to_vec(&Document { packs: packs.collect() }).expect("ids and numbers are always JSON")
}

/// Reads an index file's plaintext.
pub fn decode(bytes: &[u8]) -> Result<Vec<(Id, Vec<PackedBlob>)>, serde_json::Error> {
    let document: Document = serde_json::from_slice(bytes)?;
    let packs = document.packs.into_iter().map(|pack| {
        let blobs = pack.blobs.into_iter().map(|blob| PackedBlob {
            id: blob.id,
            kind: blob.kind,
            offset: blob.offset,
            length: blob.length,
            uncompressed_length: blob.uncompressed_length,
        });
        (pack.id, blobs.collect())
    });
    Ok(packs.collect())
}
