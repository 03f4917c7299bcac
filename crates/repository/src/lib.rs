//! restic's repository format, version 2 (version 1 is read): storage, crypto, chunker, packs, index, trees, locks.
//!
//! A repository is a set of files that never change, each named by the SHA-256 of its bytes. Files and directories
//! become *blobs*; blobs lie in *packs*; *index files* say which blob lies where; a *backup record* names the root
//! tree. Written in this order, a crash at any moment leaves at worst data that nothing refers to.
//!
//! Does not know of the file system that is backed up. Source: restic's `doc/design.rst`.

pub mod blob;
pub mod blob_set;
pub mod blob_writer;
pub mod check;
pub mod chunker;
mod compression;
pub mod config;
pub mod copy;
pub mod crypto;
pub mod direct;
mod error;
pub mod hash;
pub mod holder;
pub mod id;
pub mod index;
pub mod lock;
pub mod lock_record;
pub mod pack;
mod pack_reader;
mod parallel;
pub mod progress;
pub mod prune;
pub mod reachable;
pub mod record;
mod removal;
pub mod repair;
mod repository;
pub mod statistics;
pub mod storage;
pub mod tree;

pub use compression::{Packing, Unpacking};
pub use error::Error;
pub use removal::forget;
pub use repository::{BlobReader, InitOptions, NamedKey, NamedRecord, Repository, list_keys, wrong_hash};
