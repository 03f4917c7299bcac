//! zstd, as restic uses it, with what may come out of it bounded beforehand.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{self, CParameter, Strategy};

use crate::crypto;

/// restic's `auto`.
const LEVEL: i32 = 3;
/// From this size on, in bytes, level 3 means tables that no longer fit into a core's own cache beside the data.
const LARGE: usize = 256 << 10;
/// A larger buffer, in bytes, is not kept: one piece in a hundred needs it, and each thread would have one in time.
const KEPT_BYTES: usize = 4 << 20;
/// For large plaintexts: a single table of 256 KiB over longer matches. It takes a third less time than level 3 as it
/// stands, for at most 5 % more bytes, which is restic's size (docs/performance.md).
const LARGE_PARAMETERS: [CParameter; 4] = [
    CParameter::WindowLog(21),
    CParameter::HashLog(16),
    CParameter::MinMatch(6),
    CParameter::Strategy(Strategy::ZSTD_fast),
];
/// The largest blob or file we unpack, in bytes. Real blobs have at most 8 MiB, but a tree has no bound.
pub(crate) const MAX_PLAIN: u64 = 1 << 30;

/// A zstd block of four bytes gives 128 KiB at the most (RFC 8878, 3.1.1.2.4); so who claims more lies.
const MAX_RATIO: u64 = (128 << 10) / 4;

/// Turns plaintexts into sealed room: a compressor with the buffers it reuses. One for each thread.
pub struct Packing {
    small: Compressor<'static>,
    large: Compressor<'static>,
    buffer: Vec<u8>,
}

impl Packing {
    /// A compressor at restic's default level.
    pub fn new() -> Self {
        let compressor = || Compressor::new(LEVEL).expect("zstd has level 3");
        let mut large = compressor();
        for parameter in LARGE_PARAMETERS {
            large.set_parameter(parameter).expect("zstd has these parameters");
        }
        Packing { small: compressor(), large, buffer: Vec::new() }
    }

    /// Gives a buffer with room for the IV, then the plaintext, compressed where that makes it smaller, and
    /// the uncompressed length (0 if it was not compressed).
    pub fn pack(&mut self, plain: &[u8], compress: bool) -> (&mut Vec<u8>, u32) {
        let buffer = &mut self.buffer;
        buffer.clear();
        if buffer.capacity() > KEPT_BYTES {
            *buffer = Vec::new();
        }
        // Room for the MAC too, so that sealing does not move the bytes.
        buffer.reserve(zstd_safe::compress_bound(plain.len()) + crypto::OVERHEAD);
        buffer.resize(crypto::IV_BYTES, 0);
        // A length of 0 means "not compressed", so an empty blob never is.
        if compress && !plain.is_empty() {
            let mut tail = AppendTo(buffer);
            let compressor = if plain.len() < LARGE { &mut self.small } else { &mut self.large };
            let written = compressor.compress_to_buffer(plain, &mut tail);
            written.expect("the buffer holds the bound that zstd gave");
            if buffer.len() - crypto::IV_BYTES < plain.len() {
                let length = u32::try_from(plain.len()).expect("blobs are far below 4 GiB");
                return (buffer, length);
            }
            buffer.truncate(crypto::IV_BYTES);
        }
        buffer.extend_from_slice(plain);
        (buffer, 0)
    }

    /// As [`Packing::pack`], for bytes that are packed already.
    pub(crate) fn take_over(&mut self, packed: &[u8]) {
        self.buffer.clear();
        self.buffer.reserve(packed.len() + crypto::OVERHEAD);
        self.buffer.resize(crypto::IV_BYTES, 0);
        self.buffer.extend_from_slice(packed);
    }

    /// What was packed last, behind the room for the IV.
    pub(crate) fn packed(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }
}

impl Default for Packing {
    fn default() -> Self {
        Packing::new()
    }
}

/// Lets zstd write behind what a vector holds.
struct AppendTo<'a>(&'a mut Vec<u8>);

// SAFETY: the pointer is to the vector's spare room, the capacity is that of this room, and zstd initializes
// the bytes it reports.
unsafe impl zstd_safe::WriteBuf for AppendTo<'_> {
    fn as_slice(&self) -> &[u8] {
        &self.0[crypto::IV_BYTES..]
    }

    fn capacity(&self) -> usize {
        self.0.capacity() - crypto::IV_BYTES
    }

    fn as_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: the vector begins with the IV's room.
        unsafe { self.0.as_mut_ptr().add(crypto::IV_BYTES) }
    }

    unsafe fn filled_until(&mut self, n: usize) {
        // SAFETY: the caller has initialized n bytes behind the IV's room.
        unsafe { self.0.set_len(crypto::IV_BYTES + n) }
    }
}

/// Why bytes cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("it does not decompress: {0}")]
    Zstd(std::io::Error),
    #[error("it decompresses to {0} bytes, other than the index says")]
    Length(usize),
    #[error("its {packed} bytes cannot decompress to {length}")]
    Short { packed: usize, length: u64 },
    #[error("it would decompress to {0} bytes; more than {MAX_PLAIN} are refused")]
    TooLarge(u64),
}

/// A decompressor that is reused. One for each thread.
pub struct Unpacking {
    decompressor: Decompressor<'static>,
}

impl Unpacking {
    /// A decompressor.
    pub fn new() -> Self {
        Unpacking { decompressor: Decompressor::new().expect("zstd gives a context unless memory is out") }
    }

    /// Replaces what `into` holds by the plaintext, which must have `length` bytes.
    pub(crate) fn unpack(&mut self, packed: &[u8], length: u64, into: &mut Vec<u8>) -> Result<(), UnpackError> {
        expect_length(packed, length)?;
        if length > packed.len() as u64 * MAX_RATIO {
            return Err(UnpackError::Short { packed: packed.len(), length });
        }
        into.clear();
        into.reserve_exact(length as usize);
        let got = self.decompressor.decompress_to_buffer(packed, into).map_err(UnpackError::Zstd)?;
        if got as u64 != length { Err(UnpackError::Length(got)) } else { Ok(()) }
    }

    /// Fills `room`, which must have just the plaintext's length, after [`expect_length`].
    pub(crate) fn unpack_into(&mut self, packed: &[u8], room: &mut [u8]) -> Result<(), UnpackError> {
        let length = room.len();
        let got = self.decompressor.decompress_to_buffer(packed, room).map_err(UnpackError::Zstd)?;
        if got != length { Err(UnpackError::Length(got)) } else { Ok(()) }
    }
}

/// Compares the frame's own word with what the index says, so that a wrong length there does not make us reserve
/// memory for it.
pub(crate) fn expect_length(packed: &[u8], length: u64) -> Result<(), UnpackError> {
    if length > MAX_PLAIN {
        return Err(UnpackError::TooLarge(length));
    }
    match zstd_safe::get_frame_content_size(packed) {
        Ok(Some(said)) if said != length => Err(UnpackError::Length(usize::try_from(said).unwrap_or(usize::MAX))),
        _ => Ok(()),
    }
}

impl Default for Unpacking {
    fn default() -> Self {
        Unpacking::new()
    }
}

/// Decompresses a file whose length nobody noted (index, record, lock), up to [`MAX_PLAIN`].
pub(crate) fn decompress_file(packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
    use std::io::Read as _;
    // The frame's own word is no more than a hint of how much room to take.
    let said = zstd_safe::get_frame_content_size(packed).ok().flatten().unwrap_or(0);
    if said > MAX_PLAIN {
        return Err(UnpackError::TooLarge(said));
    }
    let mut plain = Vec::with_capacity(said.min(packed.len() as u64 * MAX_RATIO) as usize);
    let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(UnpackError::Zstd)?;
    loop {
        // Grown by hand: left to itself, the vector would take twice the bound before it is reached.
        let left = (MAX_PLAIN + 1) as usize - plain.len();
        let double = plain.len().max(plain.capacity() - plain.len()).max(64 << 10);
        let room = if double + 1 >= left { left } else { double };
        plain.reserve_exact(room);
        let read = decoder.by_ref().take(room as u64).read_to_end(&mut plain).map_err(UnpackError::Zstd)?;
        match plain.len() as u64 {
            length if length > MAX_PLAIN => return Err(UnpackError::TooLarge(length)),
            _ if read < room => return Ok(plain),
            _ => {}
        }
    }
}
