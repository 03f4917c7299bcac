//! Index files, records and locks as they lie in a repository: opened, decompressed, and read as what they are.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use repository::Repository;
use repository::hash::sha256;
use repository::storage::{FileKind, StoredFile};

#[path = "../fixture.rs"]
mod fixture;

static REPOSITORY: LazyLock<Repository> = LazyLock::new(fixture::repository);

fuzz_target!(|bytes: &[u8]| {
    let mut sealed = vec![0; 16];
    sealed.extend_from_slice(bytes);
    REPOSITORY.key().seal_in_place(&mut sealed);
    for (kind, content) in [(FileKind::Backup, &*sealed), (FileKind::Index, bytes)] {
        let file = StoredFile::new(kind, sha256(content));
        REPOSITORY.storage().write(&file, content).expect("it is in memory");
        let loaded = REPOSITORY.load(&file);
        if loaded.is_ok() {
            let _ = REPOSITORY.load_record(file.id);
            let _ = REPOSITORY.load_index_file(file.id);
        }
        REPOSITORY.storage().remove(&file).expect("it is in memory");
        if let Err(error) = loaded {
            assert!(error.to_string().contains(&file.id.to_string()[..8]), "{error}");
        }
    }
});
