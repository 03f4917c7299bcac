//! Key files, and opening them with what they say about scrypt as long as that is quick.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::crypto::KeyFile;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = serde_json::from_slice::<KeyFile>(bytes) else { return };
    let cost = file.n.saturating_mul(u64::from(file.r)).saturating_mul(u64::from(file.p));
    let refused = file.n > 1 << 23 || file.r > 1024 || file.p > 256;
    if cost <= 1 << 10 || refused {
        let opened = file.open(b"password");
        assert!(opened.is_err() || !refused);
    }
    let again = serde_json::to_vec(&file).expect("a key file is always JSON");
    serde_json::from_slice::<KeyFile>(&again).expect("what we write, we read");
});
