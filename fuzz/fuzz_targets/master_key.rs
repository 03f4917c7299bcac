//! The master key in the plaintext of a key file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::crypto::MasterKey;

fuzz_target!(|bytes: &[u8]| {
    let Ok(key) = MasterKey::from_json(bytes) else { return };
    let json = key.to_json();
    let again = MasterKey::from_json(&json).expect("what we write, we read");
    let mut sealed = vec![0; 16];
    sealed.extend_from_slice(bytes);
    key.seal_in_place(&mut sealed);
    assert_eq!(again.open_in_place(&mut sealed).expect("it is the same key"), bytes);
});
