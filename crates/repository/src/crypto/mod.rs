//! Encryption and authentication of everything a repository stores: AES-256-CTR, then Poly1305-AES over the ciphertext.
//!
//! What is sealed is laid out as IV (16 bytes), ciphertext, authentication code (16 bytes). Invariant: nothing is decrypted
//! before its code is verified.
//!
//! Does not know what the bytes are, nor where they are stored.
mod key_file;
mod master_key;
#[cfg(target_arch = "x86_64")]
mod poly1305_ifma;
#[cfg(target_arch = "x86_64")]
mod scrypt_avx512;

pub use key_file::{KeyCost, KeyFile};
pub use master_key::MasterKey;

/// Length of the initialization vector before the ciphertext, in bytes.
pub const IV_BYTES: usize = 16;
/// Length of the authentication code after the ciphertext, in bytes.
pub const MAC_BYTES: usize = 16;
/// How much longer sealed data is than its plaintext, in bytes.
pub const OVERHEAD: usize = IV_BYTES + MAC_BYTES;

/// Why something could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Less than an IV and a code.
    #[error("{0} bytes are too short for encrypted data: {OVERHEAD} bytes are the least")]
    TooShort(usize),
    /// restic never writes such an IV; it betrays a writer without randomness.
    #[error("the encrypted data begins with an initialization vector of zeros, which no repository has")]
    ZeroIv,
    /// Changed since it was written, or sealed with another key.
    #[error("the encrypted data is damaged, or was encrypted with another key: its authentication code does not match")]
    Mac,
    /// The password does not open this key file.
    #[error("wrong password")]
    WrongPassword,
    /// Another key derivation than restic's.
    #[error("the key file's key derivation {0:?} is unknown: only scrypt is")]
    UnknownKdf(String),
    /// Parameters that no honest writer chooses, or that would exhaust this computer.
    #[error("the key file's scrypt parameters N={n}, r={r}, p={p} are refused: {reason}")]
    KdfParameters {
        /// Cost.
        n: u64,
        /// Block size.
        r: u32,
        /// Parallelism.
        p: u32,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// The salt has another length than restic's 64 bytes.
    #[error("the key file's salt has {0} bytes instead of 64")]
    Salt(usize),
    /// The password is right, but what it opens is no master key. Says no more, so as not to show a part of it.
    #[error("the key file does not contain a master key")]
    NoMasterKey,
    /// The master key in the file is all zeros.
    #[error("the key file's master key is empty")]
    EmptyMasterKey,
}

/// Fills `bytes` from the operating system's randomness.
pub fn fill_random(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the operating system provides randomness");
}

#[cfg(test)]
mod tests;
