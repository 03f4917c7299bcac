//! Patterns for paths.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use backup::patterns::{Patterns, patterns_in_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8], bool, bool)| {
    let (text, path, ignore_case, is_directory) = input;
    let Ok(lines) = patterns_in_file(text, |name| (name != "unset").then(|| name.to_lowercase())) else { return };
    let texts = lines.iter().map(String::as_str);
    let read = if ignore_case { Patterns::ignoring_case(texts) } else { Patterns::new(texts) };
    let Ok(patterns) = read else { return };
    let path = Path::new(OsStr::from_bytes(path));
    let matched = patterns.matches(path, is_directory);
    if matched && patterns.texts().all(|text| !text.starts_with('!')) {
        assert!(patterns.matches(&path.join("below"), false) || !is_directory);
    }
    if path.is_absolute() && matched {
        assert!(path.ancestors().skip(1).all(|above| patterns.may_match_below(above)));
    }
});
