//! Restores of repositories that somebody hostile has made: nothing is written outside the target, what is wrong is
//! named, and the rest is delivered.

mod hostile {
    pub(crate) mod fixture;
}

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use backup::patterns::Patterns;
use backup::restore::Overwrite;
use hostile::fixture::{Fixture, directory, file, link, named};
use repository::blob::BlobKind;
use repository::id::Id;
use serde_json::json;

#[test]
fn names_that_lead_elsewhere_are_skipped_and_told() {
    let fixture = Fixture::new();
    let outside = fixture.outside().join("secret").display().to_string();
    let inner = fixture.tree(&[file("inner", &fixture.data(b"inner"))]);
    // In the escapes of Go: JSON's own are undone before.
    let names = ["", ".", "..", "../outside/secret", "/etc/snapback-test", "a/b", r"nul\x00nul", &outside];
    let mut names = names.map(str::to_owned);
    names.sort_by_key(|name| name.replace(r"\x00", "\0"));
    for kind in ["file", "dir", "symlink", "fifo"] {
        let mut nodes: Vec<_> = names
            .iter()
            .map(|name| match kind {
                "file" => file(name, &fixture.data(b"evil")),
                "dir" => directory(name, inner),
                "symlink" => link(name, "/etc"),
                _ => named(name, kind),
            })
            .collect();
        nodes.push(file("zgood", &fixture.data(b"good")));
        let root = fixture.tree(&[directory("below", fixture.tree(&nodes)), file("good", &fixture.data(b"good"))]);
        let restored = fixture.restore(root, |_| {});
        assert_eq!(restored.errors.len(), names.len(), "{kind}: {:?}", restored.errors);
        assert!(restored.errors.iter().all(|error| error.starts_with("/below: ")), "{:?}", restored.errors);
        assert_eq!(fixture.names_in("below"), ["zgood"]);
        assert_eq!(fs::read(fixture.target().join("good")).unwrap(), b"good");
        fixture.assert_outside_is_untouched();
    }
}

#[test]
fn a_link_in_the_way_is_replaced_and_never_followed() {
    let fixture = Fixture::new();
    let outside = fixture.outside();
    let planted = fixture.tree(&[
        link("as-directory", outside.to_str().unwrap()),
        link("as-file", outside.join("secret").to_str().unwrap()),
        link("as-link", outside.join("secret").to_str().unwrap()),
        link("dangling", outside.join("new").to_str().unwrap()),
    ]);
    let below = fixture.tree(&[file("secret", &fixture.data(b"evil")), directory("sub", fixture.tree(&[]))]);
    let wanted = fixture.tree(&[
        directory("as-directory", below),
        file("as-file", &fixture.data(b"evil")),
        named("as-link", "fifo"),
        file("dangling", &fixture.data(b"evil")),
    ]);
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        for delete in [false, true] {
            fixture.clear_target();
            assert_eq!(fixture.restore(planted, |_| {}).errors, [""; 0]);
            fixture.restore(wanted, |options| {
                options.overwrite = overwrite;
                options.delete.extend(delete.then(|| "/".into()));
            });
            fixture.assert_outside_is_untouched();
            let is_directory = fixture.target().join("as-directory").symlink_metadata().unwrap().is_dir();
            assert_eq!(is_directory, overwrite != Overwrite::Never);
            if is_directory {
                assert_eq!(fixture.names_in("as-directory"), ["secret", "sub"]);
            }
            if overwrite == Overwrite::Always {
                assert_eq!(fs::read(fixture.target().join("as-file")).unwrap(), b"evil");
                assert_eq!(fs::read(fixture.target().join("dangling")).unwrap(), b"evil");
                assert!(fixture.target().join("as-link").symlink_metadata().unwrap().file_type().is_fifo());
            }
        }
    }
}

#[test]
fn deleting_does_not_follow_links_either() {
    let fixture = Fixture::new();
    let nothing = fixture.tree(&[directory("d", fixture.tree(&[]))]);
    fs::create_dir_all(fixture.target().join("d/e")).unwrap();
    for place in ["d/link", "d/e/link"] {
        std::os::unix::fs::symlink(fixture.outside(), fixture.target().join(place)).unwrap();
    }
    fixture.restore(nothing, |options| options.delete.push("/".into()));
    assert_eq!(fixture.names_in("d"), [""; 0]);
    fixture.assert_outside_is_untouched();
}

#[test]
fn deleting_spares_a_directory_that_a_pattern_protects() {
    let fixture = Fixture::new();
    let tree = fixture.tree(&[directory("d", fixture.tree(&[]))]);
    for place in ["d/cache", "d/others", "d/cachefile"] {
        fs::create_dir_all(fixture.target().join(place)).unwrap();
    }
    fixture.restore(tree, |options| {
        options.delete.push("/".into());
        options.exclude = Some(Patterns::new(["cache/"]).unwrap());
    });
    assert_eq!(fixture.names_in("d"), ["cache"]);
    fs::create_dir(fixture.target().join("d/may hold a.txt")).unwrap();
    fixture.restore(tree, |options| {
        options.delete.push("/".into());
        options.include = Some(Patterns::new(["*.txt", "/d"]).unwrap());
        options.exclude = Some(Patterns::new(["/d/may*"]).unwrap());
    });
    assert_eq!(fixture.names_in("d"), ["may hold a.txt"]);
}

/// Whoever says that a link and a file, or a fifo, are one inode must not get the one's bytes into the other's place.
#[test]
fn hard_links_across_kinds_are_none() {
    let fixture = Fixture::new();
    let same_inode = |mut node: serde_json::Value| {
        node["inode"] = 7.into();
        node["links"] = 9.into();
        node
    };
    let outside = fixture.outside().join("secret");
    let root = fixture.tree(&[
        same_inode(link("a", outside.to_str().unwrap())),
        same_inode(file("b", &fixture.data(b"bytes"))),
        directory("c", fixture.tree(&[same_inode(named("d", "fifo")), same_inode(link("e", "x"))])),
    ]);
    fixture.restore(root, |_| {});
    assert_eq!(fs::read(fixture.target().join("b")).unwrap(), b"bytes");
    assert!(fixture.target().join("c/d").symlink_metadata().unwrap().file_type().is_fifo());
    fixture.assert_outside_is_untouched();
}

#[test]
fn hard_links_all_over_a_wide_tree_need_few_open_files() {
    let fixture = Fixture::new();
    let data = fixture.data(b"shared");
    let mut nodes = Vec::new();
    for number in 0..1500_u64 {
        let mut linked = file("linked", &data);
        linked["links"] = 1500.into();
        linked["inode"] = (100 + number % 3).into();
        let below = fixture.tree(&[linked, file("own", &data)]);
        nodes.push(directory(&format!("d{number:04}"), below));
    }
    let root = fixture.tree(&[directory("wide", fixture.tree(&nodes))]);
    assert_eq!(fixture.restore(root, |_| {}).errors, [""; 0]);
    let inode = |place: &str| fs::metadata(fixture.target().join(place)).unwrap().ino();
    assert_eq!(inode("wide/d0001/linked"), inode("wide/d1498/linked"));
    assert_ne!(inode("wide/d0001/linked"), inode("wide/d0002/linked"));
    assert_eq!(fs::metadata(fixture.target().join("wide/d0001/linked")).unwrap().nlink(), 500);
    assert_eq!(fs::read(fixture.target().join("wide/d1499/own")).unwrap(), b"shared");
    // A link made later must not change the times of the directory it lies in.
    assert_eq!(fs::metadata(fixture.target().join("wide/d1498")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn a_tree_of_a_hundred_thousand_levels_is_a_tree_like_any_other() {
    let fixture = Fixture::new();
    let data = fixture.data(b"deep");
    let mut tree = fixture.tree(&[file("bottom", &data)]);
    for _ in 0..100_000 {
        tree = fixture.tree(&[directory("d", tree)]);
    }
    let root = fixture.tree(&[directory("a", tree), file("z", &data)]);
    let restored = fixture.restore(root, |_| {});
    assert_eq!(restored.errors, [""; 0]);
    assert_eq!(restored.outcome.files_restored, 2);
    assert_eq!(fs::read(fixture.target().join("z")).unwrap(), b"deep");
}

#[test]
fn a_length_in_the_index_that_is_wrong_costs_that_file_alone() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.data(&[b'a'; 5000]).id, fixture.data(&[b'b'; 5000]).id);
    let root = fixture.tree(&[named_file("lying", &[first, second], 10_000), named_file("other", &[second], 5000)]);
    for wrong in [0, 4999, 5001, u32::MAX] {
        fixture.clear_target();
        let index = fixture.index_with(|blob| {
            if blob.id == first {
                blob.uncompressed_length = wrong;
            }
        });
        let restored = fixture.restore_with(&index, root, |_| {});
        assert!(!restored.errors.is_empty());
        assert!(restored.errors.iter().all(|error| error.contains("/lying: ")), "{:?}", restored.errors);
        assert_eq!(fs::read(fixture.target().join("other")).unwrap(), [b'b'; 5000]);
    }
    // Two index files that do not agree: bytes at the wrong place would have the right hash.
    fixture.clear_target();
    let index = fixture.index_with_more(|blob| {
        (blob.id == first).then_some(repository::blob::PackedBlob { uncompressed_length: 4999, ..*blob })
    });
    let restored = fixture.restore_with(&index, root, |_| {});
    let whole = [[b'a'; 5000], [b'b'; 5000]].concat();
    let delivered = fs::read(fixture.target().join("lying")).is_ok_and(|bytes| bytes == whole);
    assert!(delivered || restored.errors.iter().any(|error| error.contains("/lying: ")), "{:?}", restored.errors);
    assert_eq!(fs::read(fixture.target().join("other")).unwrap(), [b'b'; 5000]);
}

fn named_file(name: &str, content: &[Id], size: u64) -> serde_json::Value {
    let mut node = named(name, "file");
    node["content"] = json!(content);
    node["size"] = size.into();
    node
}

#[test]
fn a_place_in_the_index_that_does_not_exist_costs_that_file_alone() {
    let fixture = Fixture::new();
    let (first, second) = (fixture.data(&[b'a'; 5000]).id, fixture.data(&[b'b'; 5000]).id);
    let root = fixture.tree(&[named_file("lying", &[first], 5000), named_file("other", &[second], 5000)]);
    for (offset, length) in [(0, u32::MAX), (u32::MAX, u32::MAX), (0, 0), (3, 31), (0, 32)] {
        fixture.clear_target();
        let index = fixture.index_with(|blob| {
            if blob.id == first {
                (blob.offset, blob.length) = (offset, length);
            }
        });
        let restored = fixture.restore_with(&index, root, |_| {});
        assert_eq!(restored.errors.len(), 1, "{:?}", restored.errors);
        assert!(restored.errors[0].contains("/lying: "), "{:?}", restored.errors);
        assert_eq!(fs::read(fixture.target().join("other")).unwrap(), [b'b'; 5000]);
    }
}

#[test]
fn blobs_of_the_wrong_kind_and_missing_ones_are_told() {
    let fixture = Fixture::new();
    let data = fixture.data(b"no tree at all");
    let tree_of_noise = fixture.blob(BlobKind::Tree, b"{\"nodes\":[{\"name\":\"a\",");
    let root = fixture.tree(&[
        directory("data-as-tree", data.id),
        directory("missing-tree", Id([7; 32])),
        named("no-content", "file"),
        named("no-subtree", "dir"),
        directory("no-tree", tree_of_noise),
        named("of-the-future", "door"),
        named_file("tree-as-data", &[tree_of_noise], 5),
        file("z", &data),
    ]);
    let restored = fixture.restore(root, |_| {});
    for name in ["data-as-tree", "missing-tree", "no-tree", "no-content", "no-subtree", "tree-as-data"] {
        let told = restored.errors.iter().filter(|error| error.contains(&format!("/{name}: "))).count();
        assert_eq!(told, 1, "{name}: {:?}", restored.errors);
    }
    assert_eq!(fs::read(fixture.target().join("z")).unwrap(), b"no tree at all");
    let error = fixture.try_restore(data.id, |_| {}).err().unwrap();
    assert!(error.to_string().contains(&data.id.short().to_string()), "{error}");
}

#[test]
fn a_size_that_is_not_that_of_the_pieces_is_told_and_not_believed() {
    let fixture = Fixture::new();
    let data = fixture.data(b"five!");
    let sizes = [0, 4, 6, 1 << 60, u64::MAX];
    let mut nodes: Vec<_> = sizes.iter().map(|size| named_file(&format!("s{size:020}"), &[data.id], *size)).collect();
    nodes.push(named_file("t", &[], 1 << 60));
    nodes.push(file("z", &data));
    let root = fixture.tree(&nodes);
    let restored = fixture.restore(root, |_| {});
    assert_eq!(restored.errors.len(), sizes.len() + 1, "{:?}", restored.errors);
    assert_eq!(fixture.names_in(""), ["z"]);
}

#[test]
fn a_hundred_thousand_pieces_that_are_one_blob_are_read_once() {
    let fixture = Fixture::new();
    let data = fixture.data(&[0; 1000]);
    let root = fixture.tree(&[named_file("bomb", &vec![data.id; 100_000], 100_000_000)]);
    let restored = fixture.restore(root, |_| {});
    assert_eq!(restored.errors, [""; 0]);
    let metadata = fs::metadata(fixture.target().join("bomb")).unwrap();
    assert_eq!((metadata.len(), metadata.blocks()), (100_000_000, 0));
}
