//! What servers do to a program: kill it, fill its disk, run it twice at once. After each, what was there restores in
//! full, and the next run succeeds.

mod environment;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use environment::{Environment, contents};

/// A small generator, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(length).collect()
    }
}

/// Some hundred small files and two of several pieces: enough for two packs and for a run of some tenths of a second.
fn fill(environment: &Environment, random: &mut Random) {
    for number in 0..400 {
        let length = (random.next() % 6000) as usize;
        environment.write(&format!("{}/{number}", number % 17), random.bytes(length));
    }
    for number in 0..2 {
        environment.write(&format!("large-{number}"), random.bytes(12_000_000));
    }
}

fn start(environment: &Environment, arguments: &[&str]) -> Child {
    let mut command = environment.command();
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
}

fn restores(environment: &Environment, backup: &str, expected: &[(std::path::PathBuf, Vec<u8>)]) {
    let target = environment.path("restored");
    let _ = std::fs::remove_dir_all(&target);
    environment.run(["restore", backup, "--to", "restored"]).succeeds();
    let restored = target.join(environment.files().strip_prefix("/").unwrap());
    assert!(contents(&restored) == expected, "{backup} came back other than it went in");
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_the_next_run_goes_on() {
    let environment = Environment::with_backup();
    let first = contents(&environment.files());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    fill(&environment, &mut random);
    for round in 0..16 {
        let mut child = start(&environment, &["backup", "files"]);
        std::thread::sleep(Duration::from_millis(150 + random.next() % 600));
        child.kill().unwrap();
        child.wait().unwrap();
        // No half-written file bears a name that counts.
        let check = environment.run(["repo", "check", "--read-data"]);
        assert_eq!(check.code, 0, "after the kill of round {round}: {check:?}");
        environment.write("hello", format!("hello {round}\n"));
    }
    environment.run(["backup", "files"]).succeeds();
    environment.run(["repo", "prune"]).succeeds();
    environment.run(["repo", "check", "--read-data"]).succeeds();
    let last = contents(&environment.files());
    restores(&environment, "latest", &last);
    let list = environment.run(["list", "--json"]).succeeds().json();
    let oldest = list[0]["id"].as_str().unwrap().to_owned();
    environment.write("hello", "hello\n");
    restores(&environment, &oldest, &first);
}

#[test]
fn a_killed_prune_leaves_every_backup_whole() {
    let environment = Environment::new();
    let mut random = Random(0x1234_5678_9abc_def1);
    fill(&environment, &mut random);
    environment.backup();
    for round in 0..10 {
        // Something to rewrite each time: a part of what lies in every pack is no longer needed.
        environment.write(&format!("large-{}", round % 2), random.bytes(9_000_000));
        environment.backup();
        let mut child = start(&environment, &["forget", "--keep-last", "1", "--prune"]);
        std::thread::sleep(Duration::from_millis(150 + random.next() % 500));
        child.kill().unwrap();
        child.wait().unwrap();
        let check = environment.run(["repo", "check", "--read-data"]);
        assert_eq!(check.code, 0, "after the kill of round {round}: {check:?}");
        restores(&environment, "latest", &contents(&environment.files()));
    }
    environment.run(["forget", "--keep-last", "1", "--prune"]).succeeds();
    environment.run(["repo", "check", "--read-data"]).succeeds();
}

#[test]
fn backups_and_prunes_at_once_are_served_one_way_or_refused() {
    let environment = Environment::with_backup();
    let mut random = Random(0xfeed_beef_0bad_cafe);
    fill(&environment, &mut random);
    for round in 0..4 {
        environment.write("hello", format!("hello {round}\n"));
        let both = [&["backup", "files"][..], &["backup", "files"], &["forget", "--keep-last", "2", "--prune"]];
        let children = both.map(|arguments| start(&environment, arguments));
        for (mut child, arguments) in children.into_iter().zip(both) {
            let code = child.wait().unwrap().code();
            assert!(matches!(code, Some(0 | 11)), "round {round}: {arguments:?} ended with {code:?}");
        }
        environment.run(["repo", "check", "--read-data"]).succeeds();
    }
    environment.run(["backup", "files"]).succeeds();
    restores(&environment, "latest", &contents(&environment.files()));
    assert_eq!(environment.stored("locks").len(), 0);
}

#[test]
fn two_backups_at_once_both_succeed() {
    let environment = Environment::new();
    let mut random = Random(0xabcd_ef01_2345_6789);
    fill(&environment, &mut random);
    let children = [(); 3].map(|()| start(&environment, &["backup", "files"]));
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    environment.run(["repo", "check", "--read-data"]).succeeds();
    assert_eq!(environment.run(["list", "--json"]).succeeds().json().as_array().unwrap().len(), 3);
    restores(&environment, "latest", &contents(&environment.files()));
}

/// A file system of its own at `repository`; unmounted at the end, also of a test that fails.
struct Mounted<'a>(&'a Environment);

impl<'a> Mounted<'a> {
    /// `None` as an ordinary user, who cannot mount.
    #[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "what the machine has decides what is tested")]
    fn tmpfs(environment: &'a Environment, megabytes: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "this test needs root's rights to mount a tmpfs");
            eprintln!("skipped: this test needs root's rights to mount a tmpfs");
            return None;
        }
        let directory = environment.path("repository");
        std::fs::create_dir_all(&directory).unwrap();
        let options = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&directory).status();
        assert!(mounted.unwrap().success());
        Some(Mounted(environment))
    }

    fn remount(&self, options: &str) {
        let remounted = Command::new("mount").args(["-o", options]).arg(self.0.path("repository")).status();
        assert!(remounted.unwrap().success());
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0.path("repository")).status();
    }
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_that_was_there() {
    let environment = Environment::empty();
    let Some(disk) = Mounted::tmpfs(&environment, 20) else { return };
    environment.run(["repo", "init"]).succeeds();
    environment.write("hello", "hello\n");
    environment.backup();
    let first = contents(&environment.files());
    let mut random = Random(0x0123_4567_89ab_cdef);
    fill(&environment, &mut random);
    environment.run(["backup", "files"]).fails(1, ["No space left on device"]);
    environment.run(["repo", "check", "--read-data"]).succeeds();
    let second = contents(&environment.files());
    // More room: the next run goes on from what fitted.
    disk.remount("remount,size=80m");
    environment.run(["backup", "files"]).succeeds();
    environment.run(["repo", "check", "--read-data"]).succeeds();
    restores(&environment, "latest", &second);
    restores(&environment, "latest~1", &first);
}

#[test]
fn a_repository_on_a_read_only_disk_is_read_and_not_written() {
    let environment = Environment::empty();
    let Some(disk) = Mounted::tmpfs(&environment, 20) else { return };
    environment.run(["repo", "init"]).succeeds();
    environment.write("hello", "hello\n");
    environment.backup();
    disk.remount("remount,ro");
    environment.run(["list"]).succeeds();
    environment.run(["repo", "check", "--read-data"]).succeeds();
    restores(&environment, "latest", &contents(&environment.files()));
    environment.run(["backup", "files"]).fails(1, ["Read-only file system"]);
    environment.run(["forget", "--keep-last", "1"]).fails(1, ["Read-only file system"]);
}
