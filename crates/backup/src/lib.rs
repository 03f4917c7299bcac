//! Files to a repository and back.
pub mod attributes;
