//! Locks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::holder::Holder;
use repository::lock_record::LockRecord;
use repository::tree::Timestamp;

fuzz_target!(|bytes: &[u8]| {
    let Ok(lock) = serde_json::from_slice::<LockRecord>(bytes) else { return };
    let holder = Holder {
        hostname: "host".to_owned(),
        username: "user".to_owned(),
        uid: 0,
        gid: 0,
        pid: 1,
        now: || Timestamp::from_unix(1_767_323_045, 0, 60),
    };
    let _ = lock.is_stale(&holder);
    let _ = lock.to_string();
    let again = serde_json::to_vec(&lock).expect("a lock is always JSON");
    serde_json::from_slice::<LockRecord>(&again).expect("what we write, we read");
});
