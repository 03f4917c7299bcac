//! Check, prune, repair and copy from the command line.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::path::Path;

use environment::Environment;

fn replace(path: &Path, change: impl Fn(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
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
    let pack = environment.stored("data").remove(0);
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
