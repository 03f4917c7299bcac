//! A repository for targets that need its key.

use std::sync::Arc;

use repository::holder::Holder;
use repository::storage::memory::Memory;
use repository::tree::Timestamp;
use repository::{InitOptions, Repository};

/// Empty, in memory.
pub fn repository() -> Repository {
    let holder = Holder {
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 0,
        gid: 0,
        pid: 1,
        now: || Timestamp::from_unix(1_767_323_045, 0, 60),
    };
    Repository::init(Arc::new(Memory::new()), b"password", &InitOptions::default(), &holder).expect("an empty place")
}
