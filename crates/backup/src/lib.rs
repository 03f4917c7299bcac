//! Files to a repository and back.
