//! The key of a repository, and sealing and opening with it.
use std::fmt;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time;
use aws_lc_rs::iv::FixedLength;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

#[cfg(target_arch = "x86_64")]
use super::poly1305_ifma;
use super::{Error, IV_BYTES, MAC_BYTES, fill_random};

const ENCRYPT_BYTES: usize = 32;
const MAC_K_BYTES: usize = 16;
const MAC_R_BYTES: usize = 16;
/// Length of the three secrets together, in bytes; what scrypt derives from a password.
pub(super) const SECRET_BYTES: usize = ENCRYPT_BYTES + MAC_K_BYTES + MAC_R_BYTES;

/// The key of a repository. The AES key schedules are computed once, and used from all threads.
pub struct MasterKey {
    secrets: Zeroizing<[u8; SECRET_BYTES]>,
    /// AES-256 in counter mode, with `encrypt`.
    encrypt: EncryptingKey,
    /// AES-128 of single blocks, with `mac.k`.
    mac_k: EncryptingKey,
    /// Poly1305 with `mac.r`, where the processor has the instructions for it.
    #[cfg(target_arch = "x86_64")]
    vector_mac: Option<poly1305_ifma::Poly1305>,
}

/// The master key as restic writes it, in base64. The buffers are cleared when dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Json {
    mac: JsonMac,
    encrypt: String,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct JsonMac {
    k: String,
    r: String,
}

impl MasterKey {
    /// A new key from the operating system's randomness.
    pub fn random() -> MasterKey {
        let mut secrets = Zeroizing::new([0; SECRET_BYTES]);
        fill_random(secrets.as_mut_slice());
        MasterKey::new(secrets)
    }

    /// The key made of `encrypt` (32 bytes), `mac.k` (16) and `mac.r` (16), in this order.
    pub(super) fn new(secrets: Zeroizing<[u8; SECRET_BYTES]>) -> MasterKey {
        let (encrypt, mac_k) = secrets[..ENCRYPT_BYTES + MAC_K_BYTES].split_at(ENCRYPT_BYTES);
        let encrypt = UnboundCipherKey::new(&AES_256, encrypt).and_then(EncryptingKey::ctr);
        let mac_k = UnboundCipherKey::new(&AES_128, mac_k).and_then(EncryptingKey::ecb);
        MasterKey {
            encrypt: encrypt.expect("AES-256 takes any 32 bytes"),
            mac_k: mac_k.expect("AES-128 takes any 16 bytes"),
            #[cfg(target_arch = "x86_64")]
            vector_mac: poly1305_ifma::Poly1305::new(secrets.last_chunk().expect("mac.r comes last")),
            secrets,
        }
    }

    /// As it works on processors without the vector instructions.
    #[cfg(test)]
    pub(super) fn portable(mut self) -> MasterKey {
        #[cfg(target_arch = "x86_64")]
        self.vector_mac.take();
        self
    }

    /// Reads restic's JSON, the plaintext of a key file's `data`.
    ///
    /// # Errors
    /// [`Error::NoMasterKey`] if it is something else, [`Error::EmptyMasterKey`] if a part of it is zero.
    pub fn from_json(json: &[u8]) -> Result<MasterKey, Error> {
        let json: Json = serde_json::from_slice(json).map_err(|_| Error::NoMasterKey)?;
        let mut secrets = Zeroizing::new([0; SECRET_BYTES]);
        let (encrypt, mac) = secrets.split_at_mut(ENCRYPT_BYTES);
        let (mac_k, mac_r) = mac.split_at_mut(MAC_K_BYTES);
        for (part, text) in [(encrypt, &json.encrypt), (mac_k, &json.mac.k), (mac_r, &json.mac.r)] {
            let length = part.len();
            if BASE64_STANDARD.decode_slice(text, part).ok() != Some(length) {
                return Err(Error::NoMasterKey);
            }
            if part.iter().all(|byte| *byte == 0) {
                return Err(Error::EmptyMasterKey);
            }
        }
        Ok(MasterKey::new(secrets))
    }

    /// restic's JSON of the key.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let (encrypt, mac) = self.secrets.split_at(ENCRYPT_BYTES);
        let (k, r) = mac.split_at(MAC_K_BYTES);
        let json = Json {
            mac: JsonMac { k: BASE64_STANDARD.encode(k), r: BASE64_STANDARD.encode(r) },
            encrypt: BASE64_STANDARD.encode(encrypt),
        };
        // Large enough never to grow: growing would leave a copy of the key behind.
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        serde_json::to_writer(&mut *text, &json).expect("a key is representable in JSON");
        text
    }

    /// Seals the plaintext that follows the first 16 bytes of `buf`. Those are room for the IV; the authentication code
    /// is appended. With 16 bytes of spare capacity nothing is moved.
    ///
    /// # Panics
    /// If `buf` is shorter than the room for the IV.
    pub fn seal_in_place(&self, buf: &mut Vec<u8>) {
        let (iv_room, text) = buf.split_first_chunk_mut::<IV_BYTES>().expect("room for the IV comes first");
        let iv = random_iv();
        *iv_room = iv;
        self.apply_key_stream(&iv, text);
        let mac = self.mac(&iv, text);
        buf.extend_from_slice(&mac);
    }

    /// The plaintext of what [`seal_in_place`](Self::seal_in_place) or restic wrote, decrypted in its place.
    ///
    /// # Errors
    /// [`Error::TooShort`], [`Error::ZeroIv`], or [`Error::Mac`] when it was changed or the key is another one; then
    /// `buf` is as it was.
    pub fn open_in_place<'a>(&self, buf: &'a mut [u8]) -> Result<&'a mut [u8], Error> {
        let length = buf.len();
        let (iv, rest) = buf.split_first_chunk_mut::<IV_BYTES>().ok_or(Error::TooShort(length))?;
        let (text, mac) = rest.split_last_chunk_mut::<MAC_BYTES>().ok_or(Error::TooShort(length))?;
        if *iv == [0; IV_BYTES] {
            return Err(Error::ZeroIv);
        }
        constant_time::verify_slices_are_equal(&self.mac(iv, text), mac).map_err(|_| Error::Mac)?;
        self.apply_key_stream(iv, text);
        Ok(text)
    }

    /// Encrypts, or decrypts: in counter mode it is the same.
    fn apply_key_stream(&self, iv: &[u8; IV_BYTES], text: &mut [u8]) {
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        self.encrypt.less_safe_encrypt(text, context).expect("counter mode takes any length");
    }

    /// Poly1305-AES: the one-time key is r and the IV encrypted with k. Poly1305 itself masks r.
    fn mac(&self, iv: &[u8; IV_BYTES], text: &[u8]) -> [u8; MAC_BYTES] {
        let mut pad = Zeroizing::new(*iv);
        let encrypted = self.mac_k.less_safe_encrypt(pad.as_mut_slice(), EncryptionContext::None);
        encrypted.expect("AES takes one whole block");
        #[cfg(target_arch = "x86_64")]
        if let Some(poly1305) = &self.vector_mac {
            return poly1305.mac(&pad, text);
        }
        let mut one_time_key = Zeroizing::new([0; MAC_R_BYTES + IV_BYTES]);
        one_time_key[..MAC_R_BYTES].copy_from_slice(&self.secrets[ENCRYPT_BYTES + MAC_K_BYTES..]);
        one_time_key[MAC_R_BYTES..].copy_from_slice(pad.as_slice());
        Poly1305::new((&*one_time_key).into()).compute_unpadded(text).into()
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(secret)")
    }
}

fn random_iv() -> [u8; IV_BYTES] {
    let mut iv = [0; IV_BYTES];
    while iv == [0; IV_BYTES] {
        fill_random(&mut iv);
    }
    iv
}
