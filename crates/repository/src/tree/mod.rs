//! Trees: what a directory holds.
mod node;
mod timestamp;
pub use node::{ExtendedAttribute, Node, NodeKind};
pub use timestamp::Timestamp;
