//! How long a net takes for a tree as large as a Debian system: 50,000 files, of which an upgrade replaces 3,000 with
//! 300 MB. What is promised is 3 s for a net that is not the first, and 5 s back, by a release build.
#![allow(missing_docs)]
#![expect(clippy::print_stdout, reason = "the figures are what this test is for")]

mod environment;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use environment::Environment;
use environment::btrfs::run;

const FILES: usize = 50_000;
const REPLACED: usize = 3_000;
const REPLACED_BYTES: usize = 100 << 10;
const FEW_BYTES: usize = 1500;
/// Tests are built with little optimization, and run beside others on machines that may be slow.
const FACTOR: u32 = 6;

/// Text that no other file has, and that compresses as programs do.
fn content(seed: usize, length: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length / 8).flat_map(|_| (next() & 0x0f0f_0f0f_ffff_ffff).to_le_bytes()).collect()
}

/// Every sixteenth file is a large one.
fn write(root: &Path, version: usize) {
    let write_some = |from: usize| {
        for number in (from..FILES).step_by(2) {
            let is_large = number % (FILES / REPLACED) == 0 && number / (FILES / REPLACED) < REPLACED;
            if version > 0 && !is_large {
                continue;
            }
            let directory = root.join(format!("{}/{}", number / 5000, number / 50));
            if version == 0 {
                fs::create_dir_all(&directory).unwrap();
            }
            let path = directory.join(number.to_string());
            let length = if is_large { REPLACED_BYTES } else { FEW_BYTES };
            // As package managers do.
            let unfinished = path.with_extension("new");
            fs::write(&unfinished, content(number + version * FILES, length)).unwrap();
            fs::rename(&unfinished, &path).unwrap();
        }
    };
    std::thread::scope(|scope| {
        [0, 1].map(|from| scope.spawn(move || write_some(from))).map(|thread| thread.join().unwrap())
    });
}

fn timed(what: &str, limit: Duration, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    let took = begun.elapsed();
    println!("{what}: {:.2} s, promised within {} s", took.as_secs_f64(), limit.as_secs());
    assert!(took < limit * FACTOR, "{what} took {took:?}");
}

/// A real ext4 on a loop device, with a journal as servers have it; taking it away is quicker than removing its files.
struct Disk(PathBuf);

impl Disk {
    fn new(environment: &Environment) -> Disk {
        let (image, mount) = (environment.path("image"), environment.path("mount"));
        fs::File::create(&image).unwrap().set_len(2 << 30).unwrap();
        fs::create_dir(&mount).unwrap();
        run("mkfs.ext4", ["-q".as_ref(), image.as_os_str()]);
        run("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), mount.as_os_str()]);
        Disk(mount.canonicalize().unwrap())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_net_of_fifty_thousand_files_is_taken_and_undone_in_seconds() {
    let environment = Environment::empty();
    let disk = Disk::new(&environment);
    let root = disk.0.join("root");
    write(&root, 0);
    let name = root.to_str().unwrap();
    let create = || drop(environment.run(["snapshot", "create", name]).succeeds());
    let first = Instant::now();
    create();
    println!("the first net: {:.2} s", first.elapsed().as_secs_f64());
    timed("a net of what did not change", Duration::from_secs(3), create);
    write(&root, 1);
    timed("back after 3,000 files", Duration::from_secs(5), || {
        let run = environment.run(["rollback", "latest", "--yes"]).succeeds();
        assert!(run.stderr.contains("3,000 files changed since"), "{run:?}");
    });
    let some = root.join("0/0/0");
    assert_eq!(fs::read(some).unwrap(), content(0, REPLACED_BYTES));
}
