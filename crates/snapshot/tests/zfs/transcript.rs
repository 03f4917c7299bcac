//! What OpenZFS does and zfs-fuse does not, by recorded answers: each file says where its answers come from.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::{Changed, Handle, Provider, Space};
use snapshot::runner::{Outcome, Runner};
use snapshot::zfs::Zfs;

use crate::pool::run;

/// Answers commands as a file says, in its order; any other command fails the test.
struct Transcript {
    left: Mutex<VecDeque<(String, Outcome)>>,
}

impl Transcript {
    fn of(text: &str, directory: &Path) -> Arc<Transcript> {
        let mut left = VecDeque::<(String, Outcome)>::new();
        for line in text.replace("DIRECTORY", directory.to_str().unwrap()).lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                left.push_back((command.to_owned(), Outcome { code: Some(0), stdout: vec![], stderr: vec![] }));
            } else if !line.starts_with("# ") {
                let answer = &mut left.back_mut().expect("a command comes first").1;
                match line.split_once(' ') {
                    Some(("?", code)) => answer.code = Some(code.parse().unwrap()),
                    Some(("!", words)) => answer.stderr.extend(format!("{words}\n").bytes()),
                    _ => answer.stdout.extend(format!("{line}\n").bytes()),
                }
            }
        }
        Arc::new(Transcript { left: Mutex::new(left) })
    }

    fn assert_done(&self) {
        let left = self.left.lock().unwrap();
        assert!(left.is_empty(), "never asked: {:?}", left.iter().map(|(command, _)| command).collect::<Vec<_>>());
    }
}

impl Runner for Transcript {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        let words: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
        let (command, answer) = self.left.lock().unwrap().pop_front().expect("no more commands");
        assert_eq!(format!("{program} {}", words.join(" ")), command);
        Ok(answer)
    }
}

struct Recorded {
    directory: tempfile::TempDir,
    transcript: Arc<Transcript>,
    provider: Zfs,
}

fn handle(name: &str, guid: &str) -> Handle {
    Handle::Zfs { dataset: "tank/test".to_owned(), name: format!("snapback-{name}"), guid: guid.to_owned() }
}

fn first() -> Handle {
    handle("0123456789ab", "8316696421485736090")
}

fn recorded(text: &str) -> Recorded {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let transcript = Transcript::of(text, &path);
    let provider = Zfs::reopen(&path, &first(), transcript.clone()).unwrap();
    Recorded { directory, transcript, provider }
}

#[test]
fn openzfs_tells_what_changed_unless_it_would_be_too_little() {
    let recorded = recorded(include_str!("transcripts/diff.txt"));
    let root = recorded.directory.path();
    for name in ["newname", "created", "modi fied", "linked"] {
        fs::write(root.join(name), "").unwrap();
    }
    fs::hard_link(root.join("linked"), root.join("another name")).unwrap();
    let told = recorded.provider.changed_paths(&first(), None).unwrap().expect("told");
    let expected = [
        ("", false),
        ("oldname", true),
        ("newname", true),
        ("olddir", true),
        ("newdir", true),
        ("deleted", false),
        ("created", false),
        ("modi fied", false),
    ];
    assert_eq!(told, expected.map(|(path, is_tree)| Changed { path: PathBuf::from(path), is_tree }));
    assert_eq!(recorded.provider.changed_paths(&first(), None).unwrap(), None, "another name is not told");
    let second = handle("cdef01234567", "4406582809013492099");
    let told = recorded.provider.dirty_paths(&second, &first(), 1).unwrap();
    assert_eq!(told.unwrap(), [Changed { path: PathBuf::from("deleted"), is_tree: false }]);
    assert_eq!(recorded.provider.changed_paths(&first(), None).unwrap(), None, "it failed");
    recorded.transcript.assert_done();
}

#[test]
fn openzfs_tells_what_was_written_since_a_snapshot_and_shows_it_below_its_control_directory() {
    let recorded = recorded(include_str!("transcripts/space.txt"));
    let space = recorded.provider.space(&first()).unwrap();
    assert_eq!(space, Space { grown: Some(917_504), reclaimable: Some(131_072) });
    let control = recorded.provider.directory().join(".zfs/snapshot/snapback-0123456789ab");
    fs::create_dir_all(&control).unwrap();
    assert_eq!(recorded.provider.view(&first()).unwrap().path(), control);
    recorded.transcript.assert_done();
}

#[test]
fn a_missing_privilege_a_full_pool_and_a_missing_command_have_a_way_out() {
    let recorded = recorded(include_str!("transcripts/errors.txt"));
    let id: Id = "0123456789ab".parse().unwrap();
    let denied = recorded.provider.create(id).unwrap_err();
    assert!(matches!(&denied, Error::Privilege { capability: "CAP_SYS_ADMIN", .. }), "{denied:?}");
    assert!(denied.hint().unwrap().contains("zfs allow"));
    let full = recorded.provider.create(id).unwrap_err();
    assert!(full.to_string().contains("is full") && full.hint().is_some(), "{full:?}");
    recorded.transcript.assert_done();

    struct Nothing;
    impl Runner for Nothing {
        fn run(&self, _: &str, _: &[OsString]) -> io::Result<Outcome> {
            Err(io::ErrorKind::NotFound.into())
        }
    }
    let provider = Zfs::reopen(recorded.directory.path(), &first(), Arc::new(Nothing)).unwrap();
    let missing = provider.list().unwrap_err();
    assert!(missing.hint().unwrap().contains("zfsutils-linux"), "{missing:?}");
}

#[test]
fn a_dataset_that_fstab_mounts_is_mounted_with_the_same_options() {
    let recorded = recorded(include_str!("transcripts/legacy.txt"));
    let path = recorded.provider.directory();
    // Anything that is mounted there, with the same options.
    run("mount", &["-t", "tmpfs", "-o", "nosuid,noatime", "none", path.to_str().unwrap()]);
    let steps = recorded.provider.plan_switch(&first(), "aaaaaaaaaaaa".parse().unwrap());
    rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).unwrap();
    let steps = steps.unwrap();
    for number in [0, 2, 6] {
        recorded.provider.perform(&steps[number]).unwrap();
    }
    recorded.transcript.assert_done();
}
