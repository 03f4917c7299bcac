//! Trees: what can be decoded comes back the same from its encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::tree::{Tree, TreeEncoder};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tree) = Tree::decode(bytes) else { return };
    let mut encoder = TreeEncoder::new();
    for node in &tree.nodes {
        node.has_safe_name();
        if encoder.push(node).is_err() {
            return;
        }
    }
    let text = encoder.finish();
    let again = Tree::decode(&text).expect("what we write, we read");
    // Not the trees themselves: bytes that are not UTF-8 are lost in the places the format has no way to keep them in.
    let mut encoder = TreeEncoder::new();
    for node in &again.nodes {
        encoder.push(node).expect("it could be written once");
    }
    assert_eq!(encoder.finish(), text);
});
