//! Check, prune, repair and copy from the command line.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::path::{Path, PathBuf};

use environment::Environment;

fn replace(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A pack of files' bytes: the files are tiny, the directories are not. Damage to a directory shows in any check.
fn data_pack(environment: &Environment) -> PathBuf {
    let size = |pack: &PathBuf| fs::metadata(pack).unwrap().len();
    environment.stored("data").into_iter().min_by_key(size).unwrap()
}

#[test]
fn a_whole_repository_passes_its_check() {
    let environment = Environment::with_backup();
    let run = environment.run(["repo", "check"]).succeeds();
    assert!(run.stdout.contains("checked 1 backup") && run.stdout.contains("no errors"), "{run:?}");
    let lines = environment.run(["repo", "check", "--read-data", "--json"]).succeeds().json();
    let summary = lines.as_array().unwrap().last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["errors"], serde_json::json!([]));
    assert_eq!(summary["packs"], summary["packs_read"]);
    for part in ["1%", "100%", "2/2"] {
        environment.run(["repo", "check", "--read-data-subset", part]).succeeds();
    }
    for part in ["0%", "101%", "x", "3/2", "0/2", "1/257", "-1%"] {
        let argument = format!("--read-data-subset={part}");
        environment.run(["repo", "check", &argument]).fails(2, [part]);
    }
}

#[test]
fn a_check_names_the_damage_and_the_way_out_and_ends_with_1() {
    let environment = Environment::with_backup();
    let pack = data_pack(&environment);
    replace(&pack, |bytes| bytes[30] ^= 1);
    environment.run(["repo", "check"]).succeeds();
    let run = environment.run(["repo", "check", "--read-data"]).fails(1, []);
    let name = pack.file_name().unwrap().to_str().unwrap();
    assert!(run.stdout.contains(&format!("error: pack {name} is damaged")), "{run:?}");
    assert!(run.stdout.contains(&format!("snapback repo repair packs {name}")), "{run:?}");
}

#[test]
fn what_nobody_needs_goes_with_a_prune() {
    let environment = Environment::with_backup();
    let path = environment.files().join("hello");
    fs::write(&path, vec![1; 100_000]).unwrap();
    environment.backup();
    fs::remove_file(&path).unwrap();
    environment.backup();
    let before = environment.stored("data").len();
    environment.run(["forget", "--keep-last", "1"]).succeeds();
    assert_eq!(environment.stored("data").len(), before, "forget alone removes no data");
    environment.run(["repo", "prune", "--dry-run"]).succeeds();
    assert_eq!(environment.stored("data").len(), before);
    let run = environment.run(["repo", "prune", "--max-unused", "0%"]).succeeds();
    assert!(run.stdout.contains("frees") && run.stderr.contains("freed"), "{run:?}");
    assert!(environment.stored("data").len() < before);
    let run = environment.run(["repo", "prune", "--max-unused", "0%"]).succeeds();
    assert!(run.stdout.contains("nothing to prune"), "{run:?}");
    environment.run(["repo", "check", "--read-data"]).succeeds();
    environment.run(["restore", "latest", "--to", "out", "--verify"]).succeeds();
}

#[test]
fn forget_and_prune_in_one() {
    let environment = Environment::with_backup();
    environment.write("hello", "changed\n");
    environment.backup();
    let before = environment.stored("data").len();
    environment.run(["forget", "--keep-last", "1", "--prune", "--max-unused", "0%"]).succeeds();
    assert!(environment.stored("data").len() < before + 2);
    environment.run(["repo", "check", "--read-data"]).succeeds();
    assert!(environment.stored("locks").is_empty());
}

#[test]
fn an_empty_list_of_backups_is_no_reason_to_remove_everything() {
    let environment = Environment::with_backup();
    environment.run(["forget", "latest"]).succeeds();
    environment.run(["repo", "prune"]).fails(1, ["nothing was pruned", "no backup is listed", "--remove-everything"]);
    assert!(!environment.stored("data").is_empty());
    environment.run(["repo", "prune", "--remove-everything"]).succeeds();
    assert!(environment.stored("data").is_empty());
}

#[test]
fn a_damaged_record_can_be_forgotten_by_its_name() {
    let environment = Environment::with_backup();
    let id = environment.backup();
    replace(&environment.path("repository/snapshots").join(&id), |bytes| bytes.truncate(20));
    environment.run(["repo", "check"]).fails(1, []);
    let run = environment.run(["list"]).succeeds();
    assert!(run.stderr.contains("warning:") && run.stderr.contains(&id[..8]), "{run:?}");
    environment.run(["forget", &id[..8]]).succeeds();
    environment.run(["repo", "check"]).succeeds();
    assert_eq!(environment.stored("snapshots").len(), 1);
}

#[test]
fn what_a_check_names_the_repairs_save_step_by_step() {
    let environment = Environment::with_backup();
    let hello = environment.files().join("hello");
    // The pack of the files' data is the one whose loss leaves the trees whole.
    for pack in environment.stored("data") {
        let before = fs::read(&pack).unwrap();
        replace(&pack, |bytes| bytes[5] ^= 1);
        if environment.run(["ls", "-R", "latest"]).code == 0 {
            break;
        }
        replace(&pack, |bytes| bytes.clone_from(&before));
    }
    let report = environment.run(["repo", "check", "--read-data", "--json"]).fails(1, []).json();
    let report = report.as_array().unwrap().last().unwrap().clone();
    let ways: Vec<&str> = report["ways_out"].as_array().unwrap().iter().map(|way| way.as_str().unwrap()).collect();
    let pack = ways[0].strip_prefix("snapback repo repair packs ").unwrap();
    environment.run(["repo", "repair", "packs", "--dry-run", pack]).succeeds();
    environment.run(["repo", "repair", "packs", &pack[..10]]).succeeds();
    environment.run(["repo", "repair", "packs", "zz"]).fails(1, ["there is no pack"]);
    let run = environment.run(["repo", "repair", "index"]).succeeds();
    assert!(run.stdout.contains("the index is right"), "{run:?}");
    let planned = environment.run(["repo", "repair", "backups", "--dry-run"]).succeeds();
    assert!(planned.stdout.contains("shrinks from 6 bytes to 0"), "{planned:?}");
    let run = environment.run(["repo", "repair", "backups", "--forget"]).succeeds();
    assert!(run.stdout.contains("repaired as"), "{run:?}");
    environment.run(["repo", "check", "--read-data"]).succeeds();
    assert_eq!(environment.run(["list", "--json"]).succeeds().json()[0]["tags"], serde_json::json!(["repaired"]));
    let files = environment.run(["ls", "-R", "latest"]).succeeds().stdout;
    assert!(files.contains(hello.to_str().unwrap()));
}

#[test]
fn a_lost_index_is_made_again() {
    let environment = Environment::with_backup();
    for file in environment.stored("index") {
        fs::remove_file(file).unwrap();
    }
    environment.run(["repo", "check"]).fails(1, []);
    environment.run(["repo", "repair", "index", "--dry-run"]).succeeds();
    assert!(environment.stored("index").is_empty());
    environment.run(["repo", "repair", "index"]).succeeds();
    environment.run(["repo", "check", "--read-data"]).succeeds();
}

#[test]
fn copies_are_whole_and_made_once() {
    let environment = Environment::with_backup();
    environment.backup();
    let other = environment.path("other");
    let other = other.to_str().unwrap();
    fs::write(environment.path("other-password"), "other").unwrap();
    environment.run(["repo", "copy", "--to", other]).fails(10, ["there is no repository at"]);
    let init = ["repo", "init", "-r", other, "--password-file", "other-password", "--like", "repository"];
    let like = ["--like-password-command", "echo 'correct horse'", "-q"];
    environment.run(init.iter().chain(&like)).succeeds();

    environment.run(["repo", "copy", "--to", other]).fails(12, ["wrong password", other]);
    let copy = ["repo", "copy", "--to", other, "--to-password-file", "other-password", "--json"];
    let summary = |more: &[&str]| {
        let lines = environment.run(copy.iter().chain(more)).succeeds().json();
        lines.as_array().unwrap().last().unwrap().clone()
    };
    assert_eq!(summary(&["--dry-run"])["to_copy"], 2);
    assert_eq!(summary(&["latest"])["copied"].as_array().unwrap().len(), 1);
    let second = summary(&[]);
    assert_eq!((second["present"].clone(), second["to_copy"].clone()), (1.into(), 1.into()));
    let third = summary(&[]);
    assert_eq!(
        (third["present"].clone(), third["to_copy"].clone(), third["blobs"].clone()),
        (2.into(), 0.into(), 0.into())
    );

    let there = ["-r", other, "--password-file", "other-password"];
    environment.run(["repo", "check", "--read-data"].iter().chain(&there)).succeeds();
    environment.run(["restore", "latest", "--to", "out", "--verify"].iter().chain(&there)).succeeds();
    let backup = environment.run(["backup", "files", "--json"].iter().chain(&there)).succeeds().json();
    assert_eq!(backup.as_array().unwrap().last().unwrap()["data_blobs"], 0, "both cut files alike");
}

#[test]
fn statistics_tell_what_is_stored_and_what_comes_out() {
    let environment = Environment::with_backup();
    environment.backup();
    let statistics = &environment.run(["repo", "stats", "--json"]).succeeds().json();
    let statistics = statistics.as_array().unwrap().last().unwrap();
    assert_eq!(statistics["backups"], 2);
    assert_eq!(statistics["restored_bytes"], 24);
    assert_eq!(statistics["packs"], environment.stored("data").len());
    let one = environment.run(["repo", "stats", "--json", "latest", "-v"]).succeeds().json();
    let one = one.as_array().unwrap().last().unwrap();
    assert_eq!((one["chosen_backups"].clone(), one["restored_bytes"].clone()), (1.into(), 12.into()));
    assert_eq!(one["distinct_files"], 2);
    let text = environment.run(["repo", "stats"]).succeeds().stdout;
    assert!(text.contains("2 backups") && text.contains("restorable"), "{text}");
}
