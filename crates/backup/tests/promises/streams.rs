//! Files that come from streams lie in the same backup, and change nothing of the others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Cursor, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup::archive::{Base, Changed, Dirty, Elsewhere, Input, Open, Options, Stream, StreamFile};
use repository::id::Id;
use repository::storage::memory::Memory;
use repository::tree::Node;
use repository::{Error, Repository};

use crate::support::{Made, Scratch, Watch, back_up, back_up_streams, bring_back, init, now, tree_of};

fn stream<'a>(path: &str, open: Open<'a>) -> Stream<'a> {
    let (path, user) = (PathBuf::from(path), Arc::<str>::from("root"));
    let file = StreamFile { path, permissions: 0o600, time: now(), uid: 0, gid: 0, group: Arc::clone(&user), user };
    Stream { file, open }
}

fn bytes(path: &str, bytes: Vec<u8>) -> Stream<'static> {
    stream(path, Box::new(|_| Ok(Box::new(Cursor::new(bytes)))))
}

/// Gives some bytes, and then an error.
struct Breaks(u32);

impl Read for Breaks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("pg_dump of orders failed"))?;
        // Another byte each time, so that there are cuts.
        into.iter_mut().enumerate().for_each(|(at, byte)| *byte = ((at as u32).wrapping_mul(self.0 + 7) >> 3) as u8);
        Ok(into.len())
    }
}

impl Input for Breaks {}

struct Site {
    scratch: Scratch,
    repository: Arc<Repository>,
    watch: Watch,
}

impl Site {
    fn new() -> Site {
        let scratch = Scratch::new();
        for number in 0..40 {
            let directory = scratch.directory(&format!("source/{}", number % 4));
            fs::write(directory.join(number.to_string()), vec![number; 100_000]).unwrap();
        }
        Site { scratch, repository: init(Arc::new(Memory::new())), watch: Watch::default() }
    }

    fn source(&self) -> PathBuf {
        self.scratch.path().join("source")
    }

    fn back_up(&self, parent: Option<Id>, streams: Vec<Stream<'_>>) -> Result<Made, Error> {
        back_up_streams(&self.repository, &[&self.source()], parent, &self.watch, |_| {}, streams)
    }

    fn root(&self, made: &Made) -> BTreeMap<String, Node> {
        let index = self.repository.load_index().unwrap();
        let tree = self.repository.reader(&index).load_tree(&made.tree).unwrap();
        tree.nodes.into_iter().map(|node| (String::from_utf8_lossy(&node.name).into_owned(), node)).collect()
    }
}

#[test]
fn streams_lie_beside_the_files_and_leave_those_as_they_would_be() {
    let site = Site::new();
    let without = back_up(&site.repository, &site.source(), None);
    let long: Vec<u8> = (0..6_000_000_u32).flat_map(|number| (number.wrapping_mul(number)).to_le_bytes()).collect();
    let manifest: Open<'_> = Box::new(|before| {
        let sizes: Vec<String> = before.iter().map(|end| end.bytes.as_ref().unwrap().to_string()).collect();
        Ok(Box::new(Cursor::new(sizes.join(" "))))
    });
    let streams = vec![
        bytes("/.snapback/databases/orders/orders.pgdump", long.clone()),
        bytes("/.snapback/databases/orders/globals.sql", b"CREATE ROLE shop".to_vec()),
        bytes("/.snapback/databases/app/app.db", Vec::new()),
        stream("/.snapback/manifest.json", manifest),
    ];
    let made = site.back_up(Some(without.tree), streams).unwrap();
    site.watch.assert_silent();
    let source = site.source();
    assert_eq!(tree_of(&site.repository, made.tree, &source), tree_of(&site.repository, without.tree, &source));
    let (counts, before) = (&made.outcome.summary, &without.outcome.summary);
    assert_eq!((counts.files_new, counts.files_changed, counts.files_unmodified), (4, 0, 40));
    assert_eq!(counts.total_bytes_processed, before.total_bytes_processed + long.len() as u64 + 16 + 13);
    assert_eq!(counts.dirs_new, 4);
    let target = site.scratch.directory("target");
    bring_back(&site.repository, made.tree, &target);
    let databases = target.join(".snapback/databases");
    assert!(fs::read(databases.join("orders/orders.pgdump")).unwrap() == long);
    assert_eq!(fs::read(databases.join("orders/globals.sql")).unwrap(), b"CREATE ROLE shop");
    assert_eq!(fs::read(databases.join("app/app.db")).unwrap(), b"");
    assert_eq!(fs::read_to_string(target.join(".snapback/manifest.json")).unwrap(), "24000000 16 0");
    let mode = |path: &str| fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([".snapback", ".snapback/databases/app"].map(mode), [0o700; 2]);
    assert_eq!(mode(".snapback/databases/app/app.db"), 0o600);
}

#[test]
fn a_stream_that_breaks_is_left_out_and_told_and_the_rest_is_kept() {
    for reads in [0, 1, 200] {
        let site = Site::new();
        let streams = vec![
            stream("/.snapback/a", Box::new(move |_| Ok(Box::new(Breaks(reads))))),
            stream("/.snapback/b", Box::new(|_| Err(io::Error::other("no such database")))),
            bytes("/.snapback/c", vec![7; 1000]),
        ];
        let made = site.back_up(None, streams).unwrap();
        let told = ["/.snapback/a: pg_dump of orders failed", "/.snapback/b: no such database"];
        assert_eq!(site.watch.errors(), told);
        let outcome = &made.outcome;
        assert_eq!((outcome.errors, outcome.summary.files_new), (2, 41));
        assert!(outcome.streams[0].bytes.is_err() && matches!(outcome.streams[2].bytes, Ok(1000)));
        assert!(outcome.base.is_some(), "the files are all there");
        let target = site.scratch.directory("target");
        bring_back(&site.repository, made.tree, &target);
        assert_eq!(fs::read_dir(target.join(".snapback")).unwrap().count(), 1);
        assert!(fs::read(target.join(".snapback/c")).unwrap() == [7; 1000]);
    }
}

#[test]
fn a_run_that_is_cancelled_leaves_a_stream_that_stands_still() {
    let site = Site::new();
    let (reader, writer) = io::pipe().unwrap();
    let opened = AtomicBool::new(false);
    let stands_still = stream(
        "/dump",
        Box::new(|_| {
            opened.store(true, Ordering::Relaxed);
            Ok(Box::new(File::from(std::os::fd::OwnedFd::from(reader))))
        }),
    );
    let ended = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !opened.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            site.watch.cancelled.store(true, Ordering::Relaxed);
        });
        site.back_up(None, vec![stands_still])
    });
    assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    drop(writer);
}

#[test]
fn names_that_cannot_be_are_refused_before_anything_is_read() {
    let site = Site::new();
    let top = site.source().iter().nth(1).unwrap().to_owned();
    let among_files = Path::new("/").join(top).join("dump");
    for paths in
        [&["/"][..], &["/a/../b"], &["/a", "/a"], &["/a", "/a/b"], &["/a/b", "/a"], &[among_files.to_str().unwrap()]]
    {
        let streams = paths.iter().map(|path| stream(path, Box::new(|_| panic!("nothing is read")))).collect();
        assert!(matches!(site.back_up(None, streams), Err(Error::Refused(_))), "{paths:?}");
    }
}

/// A backup of `/`, which is read in another place.
fn of_root(site: &Site, base: Option<&Base>, streams: Vec<Stream<'_>>) -> Made {
    let options = |options: &mut Options<'_>| {
        options.elsewhere = vec![Elsewhere { path: "/".into(), at: site.source(), copied: None }];
        let below = [(PathBuf::from("/"), Dirty::new())].into();
        options.changed = base.map(|base| Changed { base: base.clone(), below });
    };
    let parent = base.map(|base| base.tree);
    let made = back_up_streams(&site.repository, &[Path::new("/")], parent, &site.watch, options, streams).unwrap();
    site.watch.assert_silent();
    made
}

#[test]
fn what_changed_is_gone_by_all_the_same_and_nothing_of_a_stream_is_taken_over() {
    let site = Site::new();
    // What is there under the streams' name is not theirs.
    let real = site.scratch.directory("source/.snapback");
    fs::write(real.join("real"), "file").unwrap();
    let dump = |text: &str| vec![bytes("/.snapback/dump", text.as_bytes().to_vec())];
    let first = of_root(&site, None, dump("one"));
    let next = of_root(&site, first.outcome.base.as_ref(), dump("two, longer"));
    assert!(next.outcome.went_by_changes && next.outcome.looked_at < 4, "{}", next.outcome.looked_at);
    let full = of_root(&site, None, dump("two, longer"));
    let files = |made: &Made| {
        let mut root = site.root(made);
        let made_up = root.remove(".snapback").unwrap().subtree;
        (root, made_up)
    };
    assert_eq!(files(&next).0, files(&full).0);
    assert_ne!(files(&next).1, files(&first).1);
    let totals = |made: &Made| {
        let counts = &made.outcome.summary;
        let directories = counts.dirs_new + counts.dirs_changed + counts.dirs_unmodified;
        (counts.total_files_processed, counts.total_bytes_processed, directories)
    };
    assert_eq!(totals(&next), totals(&full));
    // Once there are no streams, what is there comes back.
    let none = of_root(&site, next.outcome.base.as_ref(), Vec::new());
    assert_eq!(site.root(&none), site.root(&of_root(&site, None, Vec::new())));
    assert!(!none.outcome.went_by_changes);
}
