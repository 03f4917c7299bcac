//! Headers of packs: their plaintext, with any number of bytes before it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::pack::{expected_size, header_length, parse_entries};

fuzz_target!(|input: (u64, u64, [u8; 4], &[u8])| {
    let (blob_bytes, pack_size, trailer, header) = input;
    if let Ok(length) = header_length(trailer, pack_size) {
        assert!(length < pack_size);
    }
    if let Ok(blobs) = parse_entries(header, blob_bytes) {
        let end = blobs.last().map_or(0, |blob| u64::from(blob.offset) + u64::from(blob.length));
        assert_eq!(end, blob_bytes);
        assert!(expected_size(&blobs) >= blob_bytes);
    }
    let sum = (0..header.len() as u64).find(|&bytes| parse_entries(header, bytes).is_ok());
    assert!(sum.is_none_or(|sum| parse_entries(header, sum + 1).is_err()));
});
