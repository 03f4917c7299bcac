//! Prints how fast a tree of 1000 nodes is read and written: `cargo run --release -p repository --example tree_speed`.
#![expect(clippy::print_stdout, reason = "it is what the example is for")]

use std::hint::black_box;
use std::time::Instant;

use repository::id::Id;
use repository::tree::{Node, NodeKind, Timestamp, Tree};

fn node(i: u32) -> Node {
    let mtime = Timestamp::from_unix(1_700_000_000 + i64::from(i), 123_456_789 + i, 60);
    let mut id = [i as u8; 32];
    id[..4].copy_from_slice(&i.wrapping_mul(0x9e37_79b9).to_le_bytes());
    Node {
        name: format!("{i:05} photograph.jpeg").into_bytes().into(),
        kind: NodeKind::File,
        mode: 0o644,
        mtime,
        atime: mtime,
        ctime: Timestamp { secs: mtime.secs + 1, ..mtime },
        uid: 1000,
        gid: 1000,
        user: "somebody".into(),
        group: "somebody".into(),
        inode: 5_455_888 + u64::from(i),
        device_id: 0,
        size: 123_456,
        links: 1,
        link_target: Box::default(),
        extended_attributes: Vec::new(),
        generic_attributes: None,
        device: 0,
        content: Some(vec![Id(id)]),
        subtree: None,
        error: Box::default(),
    }
}

/// The fastest round counts: the others tell of what else the machine does.
fn measure(what: &str, bytes: usize, mut work: impl FnMut()) {
    let round = |_| {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    let fastest = (0..2000).map(round).min().unwrap_or_default();
    println!("{what}: {:.0} MB/s, {fastest:?} a tree", bytes as f64 / fastest.as_secs_f64() / 1e6);
}

fn main() {
    let tree = Tree { nodes: (0..1000).map(node).collect() };
    let text = tree.encode().expect("the names increase");
    println!("{} bytes", text.len());
    measure("encode", text.len(), || drop(black_box(black_box(&tree).encode())));
    measure("decode", text.len(), || drop(black_box(Tree::decode(black_box(&text)))));
    measure("serde_json, to a Value that knows no schema", text.len(), || {
        drop(black_box(serde_json::from_slice::<serde_json::Value>(black_box(&text))));
    });
}
