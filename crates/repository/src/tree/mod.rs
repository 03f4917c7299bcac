//! Trees: what a directory holds, and restic's JSON for it.
//!
//! A tree's name in the repository is the hash of its JSON, so the text must be the very bytes that restic would write:
//! `{"nodes":[...]}` and a newline, the fields in the order of restic's `Node` (`internal/data/node.go`), empty ones left
//! out, every string escaped as Go's `encoding/json` does it. What restic has written since 0.16, built with Go 1.22 to
//! 1.26, is the same bytes after decoding and encoding. Others are read as well, but differ in rare cases, in which we write
//! as those do:
//! - a link's target that is not UTF-8 was stored before 0.16 with U+FFFD for each bad byte, and no `linktarget_raw`;
//! - U+0008 and U+000C in a string were `\u0008` and `\u000c` before Go 1.22, now `\b` and `\f`;
//! - what characters in names are escaped follows the version of Unicode: 13 in Go 1.19, 15 since 1.21, 17 in 1.27;
//! - bytes that are not UTF-8 in the name of an extended attribute, of an owner or in an error text are lost in any restic.
//!
//! Decoding takes any order of fields, unknown fields and any white space, and stands hostile input. It does not judge names:
//! one entry called `..` must not hide its siblings, so the caller asks [`Node::has_safe_name`], skips and reports.
//!
//! Trees do not know of blobs, packs or the file system.

mod decode;
mod encode;
mod json;
mod mode;
mod node;
mod printable;
mod quote;
#[cfg(test)]
mod tests;
mod timestamp;

pub use encode::TreeEncoder;
pub use mode::{file_mode_from_st_mode, st_mode_from_file_mode};
pub use node::{ExtendedAttribute, Node, NodeKind};
pub use timestamp::Timestamp;

/// What a directory holds, strictly increasing by the bytes of the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The entries.
    pub nodes: Vec<Node>,
}

/// What is wrong with a tree.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// Not JSON, or not of the shape of a tree.
    #[error("the tree is damaged at byte {offset}: {expected} expected")]
    Syntax {
        /// Bytes from the tree's beginning.
        offset: usize,
        /// What should have stood there.
        expected: &'static str,
    },
    /// The names do not strictly increase, so that the same name could stand there twice.
    #[error("the tree is out of order: {name:?} comes after {previous:?}")]
    Order {
        /// The name that stands too late, escaped.
        name: String,
        /// The one before it, escaped.
        previous: String,
    },
    /// restic writes no entry without a name.
    #[error("an entry of a tree needs a name")]
    EmptyName,
}

impl TreeError {
    fn order(name: &[u8], previous: &[u8]) -> TreeError {
        TreeError::Order { name: name.escape_ascii().to_string(), previous: previous.escape_ascii().to_string() }
    }
}
