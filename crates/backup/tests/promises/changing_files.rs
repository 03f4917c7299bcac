//! Files that change while a backup runs: named and counted, and the rest is saved.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use repository::Repository;
use repository::storage::memory::Memory;
use rustix::fs::FileType;

use crate::support::{
    Made, Scratch, Watch, as_ordinary_user, back_up_with, below, bring_back, fill, init, restore_with,
};

/// A directory with a link and a file, and how often a backup of it asks whether it is cancelled. It asks before each
/// entry it looks at and before each job it begins, and the last job is to read the file; so the moments between are
/// known.
struct Moments {
    scratch: Scratch,
    repository: Arc<Repository>,
    asked: usize,
}

impl Moments {
    fn new() -> Self {
        let scratch = Scratch::for_anybody();
        let directory = scratch.directory("directory");
        fill::chmod(&directory, 0o777);
        symlink("somewhere", directory.join("a link")).unwrap();
        let repository = init(Arc::new(Memory::new()));
        let mut moments = Moments { scratch, repository, asked: 0 };
        fs::write(moments.file(), "content").unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let asked = Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let watch = Watch { asked: Some(asked), ..Watch::default() };
        moments.back_up(&watch);
        watch.assert_silent();
        moments.asked = count.load(Ordering::Relaxed);
        moments
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("directory")
    }

    fn file(&self) -> PathBuf {
        self.directory().join("file")
    }

    fn back_up(&self, watch: &Watch) -> Made {
        back_up_with(&self.repository, &[&self.directory()], None, watch, |_| {}).unwrap()
    }

    /// Backs up, and acts when so many questions are still to come. Gives the one error and what was restored.
    fn act(&self, before: usize, act: impl Fn() + Send + Sync + 'static) -> (String, Scratch) {
        let count = AtomicUsize::new(0);
        let moment = self.asked - before;
        let asked = Box::new(move || {
            if count.fetch_add(1, Ordering::Relaxed) + 1 == moment {
                act();
            }
        });
        let watch = Watch { asked: Some(asked), ..Watch::default() };
        let made = self.back_up(&watch);
        let errors = watch.errors();
        assert_eq!((errors.len(), made.outcome.errors), (1, 1), "{errors:#?}");
        let target = Scratch::new();
        bring_back(&self.repository, made.tree, target.path());
        (errors[0].clone(), target)
    }

    /// The file is missing in the backup, the link is there.
    #[track_caller]
    fn assert_missing(&self, (error, target): (String, Scratch), reason: &str) {
        assert_eq!(error, format!("{}: {reason}", self.file().display()));
        let restored = below(target.path(), &self.directory());
        assert!(restored.join("a link").is_symlink());
        assert_eq!(fs::read_dir(restored).unwrap().count(), 1);
    }
}

#[test]
fn a_file_that_vanishes_before_it_is_read_is_named() {
    let moments = Moments::new();
    let file = moments.file();
    let acted = moments.act(0, move || fs::remove_file(&file).unwrap());
    moments.assert_missing(acted, "it vanished before it could be read");
}

#[test]
fn a_file_that_vanishes_before_it_is_looked_at_is_named() {
    let moments = Moments::new();
    let file = moments.file();
    let acted = moments.act(1, move || fs::remove_file(&file).unwrap());
    moments.assert_missing(acted, "No such file or directory (os error 2)");
}

#[test]
fn a_file_that_becomes_a_fifo_is_named_and_nobody_waits_for_its_writer() {
    let moments = Moments::new();
    let file = moments.file();
    let acted = moments.act(0, move || {
        fs::remove_file(&file).unwrap();
        fill::mknod(&file, FileType::Fifo, 0, 0);
    });
    moments.assert_missing(acted, "it is no regular file any more");
}

#[test]
fn a_file_that_becomes_a_directory_is_named() {
    let moments = Moments::new();
    let file = moments.file();
    let acted = moments.act(0, move || {
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
    });
    moments.assert_missing(acted, "it is no regular file any more");
}

#[test]
fn a_file_that_becomes_a_link_is_named_and_the_link_not_followed() {
    let moments = Moments::new();
    let elsewhere = Scratch::new();
    let outside = elsewhere.path().join("outside");
    fs::write(&outside, "nobody's business").unwrap();
    let file = moments.file();
    let acted = moments.act(0, move || {
        fs::remove_file(&file).unwrap();
        symlink(&outside, &file).unwrap();
    });
    moments.assert_missing(acted, "it is no regular file any more");
}

#[test]
fn a_file_that_becomes_unreadable_is_named() {
    let moments = Moments::new();
    let (file, moments) = (moments.file(), &moments);
    let hidden = file.clone();
    // Root reads everything, so somebody else must do the backup; the file stays root's.
    let acted = as_ordinary_user(|| {
        moments.act(0, move || {
            let away = hidden.with_extension("away");
            fs::rename(&hidden, &away).unwrap();
            fs::write(&hidden, "secret").unwrap();
            fill::chmod(&hidden, 0o000);
            fs::remove_file(&away).unwrap();
        })
    });
    moments.assert_missing(acted, "cannot open it: Permission denied (os error 13)");
}

#[test]
fn a_directory_that_becomes_a_link_is_named_and_the_link_not_followed() {
    let moments = Moments::new();
    let elsewhere = Scratch::new();
    fs::write(elsewhere.path().join("outside"), "nobody's business").unwrap();
    let outside = elsewhere.path().to_owned();
    let directory = moments.directory();
    // Its own job, its two entries, the file's job.
    let (error, target) = moments.act(3, move || {
        fs::remove_dir_all(&directory).unwrap();
        symlink(&outside, &directory).unwrap();
    });
    let directory = moments.directory();
    assert_eq!(error, format!("{}: cannot open the directory: Not a directory (os error 20)", directory.display()));
    assert!(!below(target.path(), &directory).exists());
    assert!(below(target.path(), moments.scratch.path()).is_dir());
}

/// Backs up a file of 4 MiB that changes when the first piece of it was read.
fn change_large(act: impl Fn(&File) + Send + Sync + 'static) -> (String, Vec<u8>) {
    let scratch = Scratch::new();
    let path = scratch.path().join("large");
    fs::write(&path, fill::random(1, 4 << 20)).unwrap();
    fill::set_mtime(&path, 1_000_000_000, 0);
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    let acted = AtomicBool::new(false);
    let bytes_done = Box::new(move |bytes| {
        assert!(bytes < 1 << 20, "it is read in pieces");
        if !acted.swap(true, Ordering::Relaxed) {
            act(&file);
        }
    });
    let watch = Watch { bytes_done: Some(bytes_done), ..Watch::default() };
    let repository = init(Arc::new(Memory::new()));
    let made = back_up_with(&repository, &[scratch.path()], None, &watch, |_| {}).unwrap();
    let errors = watch.errors();
    assert_eq!((errors.len(), made.outcome.errors), (1, 1), "{errors:#?}");
    let target = Scratch::new();
    bring_back(&repository, made.tree, target.path());
    let error = errors[0].strip_prefix(&format!("{}: ", path.display())).unwrap().to_owned();
    (error, fs::read(below(target.path(), &path)).unwrap())
}

#[test]
fn of_a_file_that_grows_the_beginning_is_saved() {
    let (error, saved) = change_large(|mut file| file.write_all(&[1; 1 << 20]).unwrap());
    assert_eq!(error, "it grew while it was read; its beginning is saved");
    assert!(saved == fill::random(1, 4 << 20));
}

#[test]
fn of_a_file_that_shrinks_what_was_left_is_saved() {
    let (error, saved) = change_large(|file| file.set_len(2_500_000).unwrap());
    assert_eq!(error, "it shrank while it was read; what was left is saved");
    assert!(saved == fill::random(1, 4 << 20)[..2_500_000]);
}

#[test]
fn a_file_that_is_written_to_is_saved_and_named() {
    let (error, saved) = change_large(|file| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        OpenOptions::new().write(true).open(path).unwrap().write_all_at(b"late", (4 << 20) - 4).unwrap();
    });
    assert_eq!(error, "it changed while it was read; it may be inconsistent");
    assert_eq!((saved.len(), &saved[saved.len() - 4..]), (4 << 20, &b"late"[..]));
}

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Ends the turmoil however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Changes files of a directory in all ways, as fast as it can; never through a link.
fn churn(directory: &Path, seed: u64, outside: &Path, over: &AtomicBool) {
    let flags = NONBLOCK | rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut number = seed;
    while !over.load(Ordering::Relaxed) {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let path = directory.join(format!("{}", number >> 33 & 63));
        // A fifo would wait for its reader.
        let open = || OpenOptions::new().write(true).custom_flags(flags).create(true).truncate(false).open(&path);
        // Whatever is not possible just now is left.
        let _ = match number >> 40 & 7 {
            0 => fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)),
            1 => fs::create_dir(&path).and_then(|()| fs::write(path.join("below"), "x")),
            2 => symlink(outside, &path),
            3 => rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::Fifo, 0o600.into(), 0).map_err(Into::into),
            4 => fs::rename(&path, directory.join(format!("{}", number >> 50 & 63))),
            5 => open().and_then(|file| file.set_len(number >> 45)),
            _ => open().and_then(|mut file| file.write_all(&fill::random(number, (number >> 43) as usize & 0xf_ffff))),
        };
    }
}

#[test]
fn a_tree_in_turmoil_is_backed_up_again_and_again() {
    let source = Scratch::new();
    let (wild, calm) = (source.directory("wild"), source.directory("calm"));
    let elsewhere = Scratch::new();
    let outside = elsewhere.path().join("outside");
    fs::write(&outside, "nobody's business").unwrap();
    for number in 0..50 {
        fs::write(calm.join(number.to_string()), fill::random(number, 20_000)).unwrap();
    }
    let repository = init(Arc::new(Memory::new()));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| churn(&wild, 1, &outside, &over));
        scope.spawn(|| churn(&wild, 2, &outside, &over));
        let _over = Over(&over);
        let start = Instant::now();
        let mut parent = None;
        while start.elapsed() < Duration::from_secs(4) {
            let watch = Watch::default();
            let made = back_up_with(&repository, &[source.path()], parent, &watch, |_| {}).unwrap();
            assert_eq!(made.outcome.errors, watch.errors().len() as u64);
            assert!(
                watch.errors().iter().all(|error| error.starts_with(wild.to_str().unwrap())),
                "{:#?}",
                watch.errors()
            );
            let (target, watch) = (Scratch::new(), Watch::default());
            let index = repository.load_index().unwrap();
            restore_with(&repository, &index, made.tree, target.path(), &watch, |_| {}).unwrap();
            watch.assert_silent();
            crate::support::tree::assert_same(&calm, &below(target.path(), &calm));
            parent = Some(made.tree);
        }
    });
    assert_eq!(fs::read(&outside).unwrap(), b"nobody's business");
}
