//! Trees that the real restic writes: what we read in them is what the file system holds, and encoding them again gives the
//! same bytes. `restic` must be on PATH; SNAPBACK_TEST_RESTIC names another program.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use repository::id::Id;
use repository::tree::{NodeKind, Timestamp, Tree, file_mode_from_st_mode};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};

/// Below it lies what depends on restic's version and on the Go that it was built with, see `repository::tree`.
const NEWER: &str = "newer";

struct Restic {
    program: String,
    repository: PathBuf,
    /// Whether it writes what lies below [`NEWER`] as we do.
    as_we_do: bool,
}

impl Restic {
    fn init(repository: PathBuf) -> Restic {
        let program = std::env::var("SNAPBACK_TEST_RESTIC").unwrap_or_else(|_| "restic".to_owned());
        let mut restic = Restic { program, repository, as_we_do: false };
        let version = String::from_utf8(restic.run(&["version"])).unwrap();
        let number = |word: &str| -> u32 {
            let minor = version.split(word).nth(1).and_then(|rest| rest.split(['.', ' ', '\n']).next());
            minor.and_then(|minor| minor.parse().ok()).unwrap_or_else(|| panic!("what version is {version:?}?"))
        };
        restic.as_we_do = number("restic 0.") >= 16 && (22..=26).contains(&number("go1."));
        restic.run(&["init"]);
        restic
    }

    fn run(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(&self.program)
            .args(["--no-cache", "--quiet"])
            .args(arguments)
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD", "correct horse")
            .env("TZ", "Asia/Kathmandu")
            .output()
            .unwrap_or_else(|error| {
                panic!(
                    "this test needs {}: {error}. Install Debian's package restic, or set SNAPBACK_TEST_RESTIC",
                    self.program
                )
            });
        let messages = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "restic {arguments:?}: {messages}");
        output.stdout
    }

    /// Backs up a directory and returns the texts of its tree and all below, by path from that directory.
    fn trees_of(&self, directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        self.run(&["backup", directory.to_str().unwrap()]);
        let backups: serde_json::Value = serde_json::from_slice(&self.run(&["snapshots", "--json"])).unwrap();
        let mut trees = BTreeMap::new();
        let mut open = vec![(PathBuf::from("/"), backups[0]["tree"].as_str().unwrap().parse::<Id>().unwrap())];
        while let Some((path, id)) = open.pop() {
            let text = self.run(&["cat", "blob", &id.to_string()]);
            for node in Tree::decode(&text).unwrap().nodes {
                if let Some(subtree) = node.subtree {
                    open.push((path.join(OsStr::from_bytes(&node.name)), subtree));
                }
            }
            trees.insert(path, text);
        }
        trees
    }
}

fn touch(path: &Path) -> File {
    File::create(path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

fn make_names(directory: &Path, names: impl IntoIterator<Item = Vec<u8>>) {
    fs::create_dir_all(directory).unwrap();
    for name in names {
        touch(&directory.join(OsStr::from_bytes(&name)));
    }
}

/// Names with every byte, alone and together, and what trips quoting.
fn bytewise_names() -> Vec<Vec<u8>> {
    let bytes = || (1..=255).filter(|byte| !b"/".contains(byte));
    let mut names: Vec<Vec<u8>> = bytes().filter(|byte| *byte != b'.').map(|byte| vec![byte]).collect();
    names.push(bytes().collect());
    names.extend(
        ["\"\\\\\"\\n", "\\x41\\u0041\\101", "<a href='&'>", "\u{2028}\u{2029}\u{feff}\u{a0}\u{ad}"].map(Vec::from),
    );
    names.extend(
        ["é", "e\u{301}", "漢字", "😀👩‍👩‍👧", "\u{e000}\u{f8ff}\u{10ffff}", "\u{378}\u{fffe}\u{1ffff}", "\u{fffd}"]
            .map(Vec::from),
    );
    names.extend(
        [&b"half \xe2\x82"[..], b"\xed\xa0\x80 surrogate", b"\xc0\x80", b"\xf4\x90\x80\x80", b"..."].map(Vec::from),
    );
    names
}

/// Names that together hold every code point but NUL and `/`.
fn code_point_names() -> Vec<Vec<u8>> {
    let all: Vec<char> = ('\u{1}'..=char::MAX).filter(|c| *c != '/').collect();
    all.chunks(60).map(|chunk| format!("x{}", chunk.iter().collect::<String>()).into_bytes()).collect()
}

fn make_fixture(root: &Path) {
    make_names(&root.join("names/bytes"), bytewise_names());
    make_names(&root.join("names/empty directory"), []);
    make_names(&root.join(NEWER).join("names"), code_point_names());

    let links = [&b"plain"[..], b"<a>&\"b\"\\\n\t\r\x01\x7f", "../é/\u{2028}/😀\u{e000}".as_bytes()];
    let newer_links = [&b"\x08\x0c"[..], b"\xff", b"half \xe2\x82/\xed\xa0\x80 and more"];
    for (directory, targets) in [(root.join("links"), links), (root.join(NEWER).join("links"), newer_links)] {
        fs::create_dir_all(&directory).unwrap();
        for (i, target) in targets.iter().enumerate() {
            symlink(OsStr::from_bytes(target), directory.join(i.to_string())).unwrap();
        }
    }

    let kinds = root.join("kinds");
    fs::create_dir(&kinds).unwrap();
    fs::write(kinds.join("small"), "content").unwrap();
    fs::hard_link(kinds.join("small"), kinds.join("small too")).unwrap();
    let large = touch(&kinds.join("of several blobs"));
    large.set_len(20 << 20).unwrap();
    large.write_all_at(b"no hole", 10 << 20).unwrap();
    UnixListener::bind(kinds.join("socket")).unwrap();
    let mut nodes = vec![("fifo", FileType::Fifo, 0)];
    if rustix::process::geteuid().is_root() {
        nodes.extend([
            ("block", FileType::BlockDevice, makedev(7, 300)),
            ("char", FileType::CharacterDevice, makedev(1, 3)),
        ]);
    }
    for (name, kind, device) in nodes {
        mknodat(CWD, kinds.join(name), kind, Mode::RUSR | Mode::WUSR, device).unwrap();
    }

    let metadata = root.join("metadata");
    fs::create_dir(&metadata).unwrap();
    for mode in [0o4755, 0o2755, 0o1777, 0o7777, 0o000] {
        let path = metadata.join(format!("{mode:o}"));
        touch(&path);
        rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).unwrap();
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    let attributes = touch(&metadata.join("attributes"));
    for (name, value) in [("user.bytes", &every_byte[..]), ("user.empty", b""), ("user.<é>", b"1"), ("user.z", b"12")]
    {
        rustix::fs::fsetxattr(&attributes, name, value, XattrFlags::empty()).unwrap_or_else(|error| {
            panic!("{name}: {error}; the test's directory needs a file system with user attributes")
        });
    }
    setxattr(&metadata, "user.of a directory", b"d", XattrFlags::empty()).unwrap();
    for (name, nanos) in
        [("0", 0), ("1ns", 1), ("0.1s", 100_000_000), ("2001", 1_000_000_000_123_456_780), ("2106", 1 << 62)]
    {
        let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        touch(&metadata.join(name)).set_modified(time).unwrap();
    }
    let before_1970 = SystemTime::UNIX_EPOCH - Duration::from_nanos(1_000_000_000_000_000_001);
    touch(&metadata.join("1938")).set_modified(before_1970).unwrap();
}

/// That a tree says of a directory what the file system says.
fn assert_tree_matches(tree: &Tree, directory: &Path, targets_are_lossy: bool) {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    // restic leaves sockets out.
    let mut names: Vec<Vec<u8>> = entries
        .filter(|entry| !entry.file_type().unwrap().is_socket())
        .map(|entry| entry.file_name().as_bytes().to_vec())
        .collect();
    names.sort();
    let nodes = &tree.nodes;
    assert_eq!(nodes.iter().map(|node| node.name.to_vec()).collect::<Vec<_>>(), names, "in {directory:?}");
    for node in nodes {
        let path = directory.join(OsStr::from_bytes(&node.name));
        let found = fs::symlink_metadata(&path).unwrap();
        assert!(node.has_safe_name());
        assert_eq!(node.mode, file_mode_from_st_mode(found.mode()), "{path:?}");
        assert_eq!(node.kind, NodeKind::of_file_mode(node.mode), "{path:?}");
        assert_eq!((node.uid, node.gid, node.inode), (found.uid(), found.gid(), found.ino()), "{path:?}");
        assert_eq!(node.mtime, Timestamp::from_unix(found.mtime(), found.mtime_nsec() as u32, 0), "{path:?}");
        assert_eq!(node.content.is_some(), found.is_file(), "{path:?}");
        assert_eq!(node.subtree.is_some(), found.is_dir(), "{path:?}");
        if found.is_file() {
            assert_eq!(node.size, found.size(), "{path:?}");
        }
        if matches!(node.kind, NodeKind::BlockDevice | NodeKind::CharDevice) {
            assert_eq!(node.device, found.rdev(), "{path:?}");
        }
        if found.is_symlink() && !targets_are_lossy {
            assert_eq!(*node.link_target, *fs::read_link(&path).unwrap().as_os_str().as_bytes(), "{path:?}");
        }
        for attribute in &node.extended_attributes {
            let mut value = vec![0; 1000];
            let len = rustix::fs::lgetxattr(&path, &*attribute.name, &mut value).unwrap();
            assert_eq!(attribute.value.as_deref().unwrap_or_default(), &value[..len], "{} of {path:?}", attribute.name);
        }
    }
}

#[test]
fn every_tree_of_restic_is_read_right_and_written_again_with_the_same_bytes() {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let scratch = scratch.path().canonicalize().unwrap();
    let fixture = scratch.join("fixture");
    make_fixture(&fixture);
    let restic = Restic::init(scratch.join("repository"));
    let trees = restic.trees_of(&fixture);
    for (path, text) in &trees {
        let tree = Tree::decode(text).unwrap();
        let written = tree.encode().unwrap();
        if restic.as_we_do || !path.starts_with(fixture.join(NEWER)) {
            assert_eq!(String::from_utf8_lossy(&written), String::from_utf8_lossy(text), "{path:?}");
        } else {
            assert_eq!(Tree::decode(&written).unwrap(), tree, "{path:?}");
        }
        if path.starts_with(&fixture) {
            assert_tree_matches(&tree, path, !restic.as_we_do && path.starts_with(fixture.join(NEWER)));
        }
    }
    let nodes = |path: &Path| Tree::decode(&trees[path]).unwrap().nodes;
    assert_eq!(trees.keys().filter(|path| path.starts_with(&fixture)).count(), 10);
    let attributes = nodes(&fixture.join("metadata")).into_iter().find(|node| *node.name == *b"attributes").unwrap();
    assert_eq!(attributes.extended_attributes.len(), 4);
    let large = nodes(&fixture.join("kinds")).into_iter().find(|node| *node.name == *b"of several blobs").unwrap();
    assert!(large.content.unwrap().len() > 2);
}
