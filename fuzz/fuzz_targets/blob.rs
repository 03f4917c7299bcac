//! Sealed blobs with whatever an index says about them.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use repository::blob::{BlobKind, PackedBlob};
use repository::id::Id;
use repository::{Repository, Unpacking};

#[path = "../fixture.rs"]
mod fixture;

static REPOSITORY: LazyLock<Repository> = LazyLock::new(fixture::repository);

fuzz_target!(|input: (u32, bool, &[u8])| {
    let (uncompressed_length, is_sealed, bytes) = input;
    let mut sealed = bytes.to_vec();
    if is_sealed {
        sealed = vec![0; 16];
        sealed.extend_from_slice(bytes);
        REPOSITORY.key().seal_in_place(&mut sealed);
    }
    let length = sealed.len() as u32;
    let blob = PackedBlob { id: Id([1; 32]), kind: BlobKind::Data, offset: 0, length, uncompressed_length };
    let mut plain = Vec::new();
    let opened = REPOSITORY.open_blob_unhashed(Id([2; 32]), &blob, &mut sealed, &mut Unpacking::new(), &mut plain);
    if opened.is_ok() {
        assert_eq!(plain.len() as u64, blob.plain_length());
    }
});
