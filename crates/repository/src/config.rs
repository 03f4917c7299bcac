//! The repository's `config`: its version, its id and the polynomial all its chunk boundaries come from.

use serde::{Deserialize, Serialize};

use crate::id::Id;

/// As restic's `config` document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// 1 (no compression) or 2.
    pub version: u32,
    /// Random.
    pub id: Id,
    /// Irreducible, of degree 53, in hexadecimal digits.
    pub chunker_polynomial: String,
}
