//! Sizes that can be counted by hand.

mod support;

use repository::progress::Unwatched;
use repository::statistics::{self, Files};
use repository::tree::NodeKind;
use support::*;

#[test]
fn each_way_of_counting_gives_what_a_person_would_count() {
    let (_, repository) = init();
    let a = back_up(&repository, 1, &files(1, 2)).unwrap();
    let b = back_up(&repository, 2, &files(1, 3)).unwrap();
    let index = repository.load_index().unwrap();
    let tree = |backup| repository.load_record(backup).unwrap().tree;
    let roots = [(a, tree(a)), (b, tree(b))];
    let bytes = |own| files(1, own).values().map(|bytes| bytes.len() as u64).sum::<u64>();

    let restored = statistics::restore_size(&repository, &index, &[tree(a), tree(b)], &Unwatched).unwrap();
    // Six files and three directories in each.
    assert_eq!(restored, Files { entries: 18, bytes: bytes(2) + bytes(3) });

    let contents = statistics::files_by_contents(&repository, &index, &roots, &Unwatched).unwrap();
    let common: u64 = 30_000 + 40_000;
    assert_eq!(contents, Files { entries: 9, bytes: bytes(2) + bytes(3) - common });

    let all = statistics::raw_data(&repository, &index, &roots, &Unwatched).unwrap();
    let one = statistics::raw_data(&repository, &index, &roots[..1], &Unwatched).unwrap();
    assert_eq!(all.blobs, index.len() as u64);
    assert!(one.blobs < all.blobs && one.stored_bytes < all.stored_bytes);
    assert!(all.compression_ratio() > 1.2, "{all:?}");
    let stored = statistics::stored(&repository).unwrap();
    assert_eq!((stored.backups, stored.index_files), (2, 2));
    // Each pack has a header's frame besides.
    assert_eq!(stored.pack_bytes, all.stored_bytes + 36 * stored.packs);
}

#[test]
fn several_names_of_one_inode_count_once_in_each_backup() {
    let (_, repository) = init();
    let backup = back_up_tree(&repository, 1, &|saver| {
        let mut linked = file_node(saver, b"a", &[1; 1000])?;
        (linked.links, linked.inode, linked.device_id) = (3, 7, 1);
        let other = repository::tree::Node { name: b"b"[..].into(), ..linked.clone() };
        let single = file_node(saver, b"c", &[2; 10])?;
        let mut directory = node(b"d", NodeKind::Dir);
        directory.subtree = Some(save_tree(saver, &[linked.clone()])?);
        save_tree(saver, &[linked, other, single, directory])
    })
    .unwrap();
    let index = repository.load_index().unwrap();
    let tree = repository.load_record(backup).unwrap().tree;
    let once = statistics::restore_size(&repository, &index, &[tree], &Unwatched).unwrap();
    assert_eq!(once, Files { entries: 5, bytes: 1010 });
    let twice = statistics::restore_size(&repository, &index, &[tree, tree], &Unwatched).unwrap();
    assert_eq!(twice, Files { entries: 10, bytes: 2020 });
}

#[test]
fn a_forged_tree_of_trees_does_not_take_forever() {
    let (_, repository) = init();
    let backup = back_up_tree(&repository, 1, &|saver| {
        let file = file_node(saver, b"f", &[1; 100])?;
        let mut tree = save_tree(saver, &[file])?;
        // Each level holds the one below ten times: 10^60 files to whoever walks them one by one.
        for _ in 0..60 {
            let nodes: Vec<_> = (0..10_u8)
                .map(|number| {
                    let mut directory = node(&[b'0' + number], NodeKind::Dir);
                    directory.subtree = Some(tree);
                    directory
                })
                .collect();
            tree = save_tree(saver, &nodes)?;
        }
        Ok(tree)
    })
    .unwrap();
    let index = repository.load_index().unwrap();
    let tree = repository.load_record(backup).unwrap().tree;
    let sum = statistics::restore_size(&repository, &index, &[tree], &Unwatched).unwrap();
    assert_eq!(sum.bytes, u64::MAX);
    assert_clean(&repository);
}
