//! Index files, and looking up what they say.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::index::{IndexBuilder, file};

fuzz_target!(|bytes: &[u8]| {
    let Ok(packs) = file::decode(bytes) else { return };
    let mut builder = IndexBuilder::default();
    for (pack, blobs) in &packs {
        builder.add(*pack, blobs);
    }
    let index = builder.build();
    for blob in packs.iter().flat_map(|(_, blobs)| blobs) {
        assert!(index.get(blob.kind, &blob.id).is_some());
        assert!(index.locations(blob.kind, &blob.id).any(|location| location.blob == *blob));
        blob.plain_length();
    }
    let again = file::encode(packs.iter().map(|(pack, blobs)| (*pack, blobs.as_slice())));
    assert_eq!(file::decode(&again).expect("what we write, we read"), packs);
});
