//! Blobs: the pieces that files and directories are stored as.

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// What a blob holds. Blobs of the two kinds never share a pack, so that trees are read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// A directory.
    Tree,
}

impl BlobKind {
    /// restic's name.
    pub fn name(self) -> &'static str {
        match self {
            BlobKind::Data => "data",
            BlobKind::Tree => "tree",
        }
    }
}

/// A blob within its pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackedBlob {
    /// SHA-256 of the plaintext.
    pub id: Id,
    /// What it holds.
    pub kind: BlobKind,
    /// Where the sealed blob starts in the pack, in bytes.
    pub offset: u32,
    /// Of the sealed blob, in bytes.
    pub length: u32,
    /// Bytes of the plaintext if it is compressed, else 0.
    pub uncompressed_length: u32,
}

impl PackedBlob {
    /// Bytes of the plaintext.
    pub fn plain_length(&self) -> u64 {
        match self.uncompressed_length {
            0 => u64::from(self.length).saturating_sub(crate::crypto::OVERHEAD as u64),
            length => u64::from(length),
        }
    }
}
