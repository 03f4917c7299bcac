//! A project of two directories on two file systems, which go back together: by `rollback`, its undo, `snapshot undo`,
//! and a guard, killed at each of its steps.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::time::{Duration, Instant};

use environment::Run;
use environment::btrfs::{Shop, run};
use environment::killed;

/// `/shop` on one file system and `/shop` on another, and a configuration in which both are the project `shop`.
struct Pair {
    files: Shop,
    data: Shop,
}

impl Pair {
    fn new() -> Pair {
        let pair = Pair { files: Shop::new(), data: Shop::new() };
        let text = format!("[project.shop]\npaths = [{:?}, {:?}]\n", pair.files.name(), pair.data.name());
        fs::write(pair.files.environment.path("snapback.toml"), text).unwrap();
        pair
    }

    fn command(&self) -> std::process::Command {
        let mut command = self.files.environment.command();
        command.env("SNAPBACK_CONFIG", self.files.environment.path("snapback.toml"));
        command
    }

    fn run<const N: usize>(&self, arguments: [&str; N]) -> Run {
        self.command().args(arguments).output().unwrap().into()
    }

    fn write(&self, text: &str) {
        self.files.write("index", text);
        self.data.write("index", text);
    }

    fn read(&self) -> (String, String) {
        (self.files.read("index"), self.data.read("index"))
    }

    /// What both hold.
    fn both(&self) -> String {
        let (one, other) = self.read();
        assert_eq!(one, other, "half of it is another state");
        one
    }

    /// Takes a snapshot of the project, and gives the ids in the order of its paths.
    fn snapshot(&self) -> [String; 2] {
        let made = self.run(["snapshot", "create", "shop", "--json"]).succeeds().json();
        [0, 1].map(|number| made[number]["id"].as_str().unwrap().to_owned())
    }
}

#[test]
fn a_project_of_two_file_systems_goes_back_and_forth_as_one() {
    let pair = Pair::new();
    let [files, data] = pair.snapshot();
    pair.write("two");
    let shown = pair.run(["rollback", "shop", "--dry-run", "--verbose"]).succeeds();
    let takes = format!("This takes {} and {} back to ", pair.files.name(), pair.data.name());
    for text in [takes.as_str(), ", together:", &files, &data, "1 file changed since"] {
        assert!(shown.stderr.contains(text), "{text}: {}", shown.stderr);
    }
    assert_eq!(pair.both(), "two");

    let done = pair.run(["rollback", "shop", "--yes", "--json"]).succeeds().json();
    assert_eq!(pair.both(), "one");
    assert_eq!(done[0]["directories"].as_array().unwrap().len(), 2, "{done}");
    pair.run(["rollback", "--undo", "shop", "--yes"]).succeeds();
    assert_eq!(pair.both(), "two");
    // The undo of the undo, by the id of one of them.
    pair.run(["rollback", "--undo", "--yes"]).succeeds();
    assert_eq!(pair.both(), "one");
    pair.write("three");
    pair.run(["rollback", &data, "--yes"]).succeeds();
    assert_eq!(pair.both(), "one");
    pair.write("four");
    pair.run(["rollback", &data, "--alone", "--yes"]).succeeds();
    assert_eq!(pair.read(), ("four".to_owned(), "one".to_owned()));
    pair.run(["rollback", "shop", "--alone", "--yes"]).fails(2, ["--alone", "snapback snapshot list shop"]);
}

#[test]
fn a_point_in_time_that_lost_a_part_is_no_way_back_for_the_project() {
    let pair = Pair::new();
    let [files, data] = pair.snapshot();
    pair.write("two");
    pair.run(["snapshot", "delete", &data]).succeeds();
    let hint = format!("snapback rollback {files}");
    pair.run(["rollback", "shop", "--yes"]).fails(1, ["has nothing of", &pair.data.name(), &hint]);
    assert_eq!(pair.both(), "two");
    // The snapshots of one directory alone are none of the project.
    pair.run(["snapshot", "create", &pair.data.name()]).succeeds();
    pair.run(["rollback", "shop", "--yes"]).fails(1, ["has nothing of"]);
    pair.run(["rollback", &files, "--yes"]).succeeds();
    assert_eq!(pair.read(), ("one".to_owned(), "two".to_owned()));
}

#[test]
fn files_of_both_are_brought_back_by_one_undo() {
    let pair = Pair::new();
    pair.snapshot();
    pair.write("two");
    pair.files.write("new", "stays");
    let (one, other) = (format!("{}/index", pair.files.name()), format!("{}/index", pair.data.name()));
    pair.run(["snapshot", "undo", "shop", "index"]).fails(2, ["is in no directory of shop", "write the whole path"]);
    let shown = pair.run(["snapshot", "undo", "shop", &one, &other, "--dry-run"]).succeeds();
    assert!(shown.stdout.contains(&one) && shown.stdout.contains(&other), "{shown:?}");
    assert_eq!(pair.both(), "two");
    let done = pair.run(["snapshot", "undo", "shop", &one, &other, "--json"]).succeeds().json();
    assert_eq!(pair.both(), "one");
    assert_eq!(pair.files.read("new"), "stays");
    let safety = done[0]["safety"].as_str().unwrap();
    assert_ne!(done[1]["safety"], safety);
    // What was before it is one point in time, too.
    pair.run(["rollback", safety, "--yes"]).succeeds();
    assert_eq!(pair.both(), "two");
}

#[test]
fn a_directory_in_another_one_of_the_project_does_not_go_back_with_it() {
    let pair = Pair::new();
    run("btrfs", ["subvolume", "create", &format!("{}/db", pair.files.name())]);
    let text = format!("[project.shop]\npaths = [{0:?}, \"{1}/db\"]\n", pair.files.name(), pair.files.name());
    fs::write(pair.files.environment.path("snapback.toml"), text).unwrap();
    pair.files.write("db/table", "one");
    pair.snapshot();
    pair.files.write("db/table", "two");
    pair.run(["rollback", "shop", "--yes"]).fails(1, ["cannot go back in one step", "one after the other"]);
    assert_eq!(pair.files.read("db/table"), "two");
    pair.run(["guard", "shop", "--", "true"]).fails(1, ["a rollback would not be possible"]);
}

/// Breaks both, and fails.
const BREAKS: &str = "echo broken > $FILES/index; echo broken > $DATA/index; false";

fn guard(pair: &Pair, options: &[&str]) -> std::process::Command {
    let mut command = pair.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("FILES", pair.files.directory()).env("DATA", pair.data.directory());
    command.args(["guard", "shop", "--yes"]).args(options).args(["--", "sh", "-c", BREAKS]);
    command
}

/// Nobody is left who would do something.
fn settle(pair: &Pair) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        pair.run(["guard", "--resume"]).succeeds();
        let guards = pair.run(["guard", "--status", "--json"]).succeeds().json();
        if guards.as_array().unwrap().iter().all(|guard| guard["phase"]["is"] == "ended") {
            return;
        }
        assert!(Instant::now() < until, "it never ends: {guards}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_guard_around_a_project_takes_back_all_of_it() {
    let pair = Pair::new();
    let run = Run::from(guard(&pair, &[]).output().unwrap()).fails(1, ["are back as it was"]);
    assert!(run.stderr.contains(&pair.data.name()), "{run:?}");
    assert_eq!(pair.both(), "one");
    pair.run(["rollback", "--undo", "--yes"]).succeeds();
    assert_eq!(pair.both(), "broken\n");
    // One that goes well leaves all as it is, and a command that is none leaves nothing.
    let before = pair.files.list().len();
    pair.run(["guard", "shop", "--", "/does/not/exist"]).fails(127, ["cannot run"]);
    assert_eq!(pair.files.list().len(), before);
    pair.run(["guard", "shop", "--", "true"]).succeeds();
    assert!(pair.files.list().iter().all(|snapshot| snapshot["held"] == false));
}

#[test]
fn unconfirmed_all_of_a_project_goes_back() {
    let pair = Pair::new();
    Run::from(guard(&pair, &["--confirm", "1s"]).output().unwrap()).fails(1, ["are back as it was"]);
    assert_eq!(pair.both(), "one");
}

#[test]
fn killed_at_any_step_a_guard_around_a_project_leaves_the_way_back() {
    let steps = killed::each_step(|step| {
        let pair = Pair::new();
        if !killed::is_killed_at(&guard(&pair, &[]), step, &pair.files.environment.path("strace")) {
            assert_eq!(pair.both(), "one", "nobody was killed");
            return false;
        }
        settle(&pair);
        let state = pair.both();
        if state != "one" {
            assert_eq!(state, "broken\n", "after {step:?}");
            pair.run(["rollback", "shop", "--yes"]).succeeds();
        }
        assert_eq!(pair.both(), "one", "after {step:?}");
        let list = pair.files.list();
        let goes = |snapshot: &serde_json::Value| snapshot["held"] == false && snapshot["expires"].is_string();
        assert!(list.iter().all(goes), "after {step:?} a snapshot stays for ever: {list:?}");
        pair.run(["guard", "shop", "--", "true"]).succeeds();
        true
    });
    assert!(steps > 12, "only {steps} steps");
}
