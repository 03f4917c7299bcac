//! A key file: the master key, encrypted with a key that scrypt derives from a password.
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::master_key::{MasterKey, SECRET_BYTES};
#[cfg(target_arch = "x86_64")]
use super::scrypt_avx512;
use super::{Error, IV_BYTES, MAC_BYTES, fill_random};

const SALT_BYTES: usize = 64;

/// What a new key file asks of whoever opens it, or guesses at its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyCost {
    /// scrypt's cost: a power of two.
    pub n: u64,
    /// scrypt's block size.
    pub r: u32,
    /// scrypt's parallelism.
    pub p: u32,
}

impl KeyCost {
    /// For tests that open repositories by the hundred: such a key protects nothing.
    pub const NONE: KeyCost = KeyCost { n: 2, r: 8, p: 1 };
}

/// OWASP's Password Storage Cheat Sheet holds N=2^15, r=8, p=3 as strong as N=2^17, p=1; it takes 32 MiB of memory.
impl Default for KeyCost {
    fn default() -> Self {
        KeyCost { n: 1 << 15, r: 8, p: 3 }
    }
}

/// The bound on a file's parameters, which somebody hostile may have chosen. All lanes may be in work at once, so it is on
/// their memory together; as scrypt's time follows its memory, it bounds that too, to a few seconds. What restic calibrates
/// to half a second takes a third of it.
const MAX_MEMORY_BYTES: u64 = 1 << 30;

/// A file below `keys/` of a repository, as restic writes it. Field order and names are the file's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KeyFile {
    /// When it was made: RFC 3339.
    pub created: String,
    /// Who made it.
    pub username: String,
    /// Where.
    pub hostname: String,
    /// The key derivation: always `scrypt`.
    pub kdf: String,
    /// scrypt's cost: a power of two.
    #[serde(rename = "N")]
    pub n: u64,
    /// scrypt's block size.
    pub r: u32,
    /// scrypt's parallelism.
    pub p: u32,
    /// 64 random bytes.
    #[serde(with = "base64_text")]
    pub salt: Vec<u8>,
    /// The master key's JSON, sealed.
    #[serde(with = "base64_text")]
    pub data: Vec<u8>,
}

impl KeyFile {
    /// Puts `master` into a new file that `password` opens. `created` is RFC 3339. With the
    /// default cost it takes a fraction of a second, on purpose.
    pub fn create(
        password: &[u8],
        master: &MasterKey,
        cost: KeyCost,
        created: &str,
        username: &str,
        hostname: &str,
    ) -> KeyFile {
        let mut salt = vec![0; SALT_BYTES];
        fill_random(&mut salt);
        let json = master.to_json();
        // The plaintext is overwritten where it lies; that needs a buffer that does not grow.
        let mut data = Vec::with_capacity(IV_BYTES + json.len() + MAC_BYTES);
        data.resize(IV_BYTES, 0);
        data.extend_from_slice(&json);
        let mut file = KeyFile {
            created: created.to_owned(),
            username: username.to_owned(),
            hostname: hostname.to_owned(),
            kdf: "scrypt".to_owned(),
            n: cost.n,
            r: cost.r,
            p: cost.p,
            salt,
            data: Vec::new(),
        };
        let key = file.derive(password).expect("the parameters for new files are valid");
        key.seal_in_place(&mut data);
        file.data = data;
        file
    }

    /// The master key. Takes as long as whoever made the file chose.
    ///
    /// # Errors
    /// [`Error::WrongPassword`]; any other error says what is wrong with the file itself.
    pub fn open(&self, password: &[u8]) -> Result<MasterKey, Error> {
        let key = self.derive(password)?;
        let mut data = Zeroizing::new(self.data.clone());
        let json = key.open_in_place(&mut data).map_err(|error| match error {
            Error::Mac => Error::WrongPassword,
            other => other,
        })?;
        MasterKey::from_json(json)
    }

    fn derive(&self, password: &[u8]) -> Result<MasterKey, Error> {
        let params = self.scrypt_params()?;
        if self.salt.len() != SALT_BYTES {
            return Err(Error::Salt(self.salt.len()));
        }
        let mut secrets = Zeroizing::new([0; SECRET_BYTES]);
        #[cfg(target_arch = "x86_64")]
        if scrypt_avx512::serves(self.n, self.p) {
            scrypt_avx512::scrypt(password, &self.salt, (self.n, self.r, self.p), secrets.as_mut_slice());
            return Ok(MasterKey::new(secrets));
        }
        scrypt::scrypt(password, &self.salt, &params, secrets.as_mut_slice()).expect("scrypt derives 64 bytes");
        Ok(MasterKey::new(secrets))
    }

    fn scrypt_params(&self) -> Result<scrypt::Params, Error> {
        if self.kdf != "scrypt" {
            return Err(Error::UnknownKdf(self.kdf.clone()));
        }
        let &KeyFile { n, r, p, .. } = self;
        let refused = |reason| Error::KdfParameters { n, r, p, reason };
        if n < 2 || !n.is_power_of_two() {
            return Err(refused("N is not a power of two"));
        }
        if r == 0 || p == 0 {
            return Err(refused("r and p must not be 0"));
        }
        if n.saturating_mul(128 * u64::from(r)).saturating_mul(p.into()) > MAX_MEMORY_BYTES {
            return Err(refused("they take more than 1 GiB of memory"));
        }
        let log_n = n.ilog2() as u8;
        scrypt::Params::new(log_n, r, p).map_err(|_| refused("scrypt does not allow them"))
    }
}

/// Bytes as a string in standard base64, as Go's JSON has them.
mod base64_text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
