//! Content-defined chunking.
