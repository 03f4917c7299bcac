//! A repository's configuration, its polynomial included.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::chunker::{Chunker, Polynomial};
use repository::config::Config;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = serde_json::from_slice::<Config>(bytes) else { return };
    if let Ok(polynomial) = config.chunker_polynomial.parse::<Polynomial>() {
        let chunker = Chunker::new(polynomial);
        assert_eq!(chunker.find_cut(bytes, 0), None);
        assert_eq!(polynomial.to_string().parse::<Polynomial>().ok(), Some(polynomial));
    }
});
