//! restic's repository format.
pub mod chunker;
pub mod crypto;
pub mod hash;
pub mod id;
pub mod tree;
