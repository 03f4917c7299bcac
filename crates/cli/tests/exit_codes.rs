//! What goes wrong ends with the code that scripts rely on, and says what happened, to what, and the way out.
#![allow(missing_docs)]

mod environment;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use environment::Environment;

#[test]
fn a_wrong_password_is_12() {
    let environment = Environment::with_backup();
    let run = environment.command().env("SNAPBACK_PASSWORD", "wrong").arg("list").output().unwrap();
    environment::Run::from(run).fails(12, ["wrong password", "try:", "--password-file"]);
}

#[test]
fn no_repository_is_10_before_any_password_is_asked() {
    let environment = Environment::empty();
    let run = environment.command().env_remove("SNAPBACK_PASSWORD").arg("list").output().unwrap();
    environment::Run::from(run).fails(10, ["there is no repository at", "try: `snapback repo init"]);
}

#[test]
fn a_file_in_place_of_the_repository_is_10() {
    let environment = Environment::empty();
    fs::write(environment.path("repository"), "something").unwrap();
    environment.run(["list"]).fails(10, ["there is no repository at"]);
}

#[test]
fn an_exclusive_lock_of_another_machine_is_11_and_unlock_is_the_way_out() {
    let environment = Environment::with_backup();
    let other = environment.with_lock_of_another_machine();
    environment.run(["list"]).fails(11, ["locked by process 4711", "elsewhere", "try:", "unlock --all"]);
    environment.run(["backup", "files"]).fails(11, ["elsewhere"]);
    environment.run(["repo", "unlock"]).succeeds();
    assert!(other.exists(), "a lock that may be alive must stay");
    environment.run(["repo", "unlock", "--all"]).succeeds();
    environment.run(["list"]).succeeds();
}

#[test]
fn waiting_for_a_lock_ends_when_it_is_gone() {
    let environment = Environment::with_backup();
    let lock = environment.with_lock_of_another_machine();
    environment.run(["list", "--wait-lock", "1s"]).fails(11, ["waiting:", "elsewhere"]);
    let waiting = environment.command().args(["list", "--wait-lock", "1m"]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    fs::remove_file(lock).unwrap();
    assert!(waiting.wait_with_output().unwrap().status.success());
}

#[test]
fn wrong_usage_is_2_and_suggests_the_nearest() {
    let environment = Environment::new();
    environment.run(["lst"]).fails(2, ["unrecognized subcommand 'lst'", "'list'"]);
    environment.run(["backup", "--dry-rn", "files"]).fails(2, ["--dry-run"]);
    environment.run(["backup"]).fails(2, ["PATH"]);
    environment.run(["forget"]).fails(2, ["no rule", "try: --keep-daily"]);
    environment.run(["list", "--wait-lock", "soon"]).fails(2, ["is not a duration"]);
    environment.run(["list", "-r", "sftp:host:/x"]).fails(2, ["repositories at sftp: are not supported yet"]);
    environment.run(["list", "-r", ""]).fails(2, ["empty"]);
    let run = environment.command().env_remove("SNAPBACK_REPOSITORY").arg("list").output().unwrap();
    environment::Run::from(run).fails(2, ["no repository is named", "try: give -r"]);
}

#[test]
fn an_unknown_backup_is_1_and_suggests_the_nearest() {
    let environment = Environment::with_backup();
    let id = environment.backup();
    let nearly = format!("{}{}", &id[..6], if id.as_bytes()[6] == b'0' { "1" } else { "0" });
    environment.run(["ls", &nearly]).fails(1, ["there is no backup", &format!("did you mean {}?", &id[..8])]);
    environment.run(["ls", "lates"]).fails(1, ["did you mean latest?"]);
    environment.run(["ls", "zzz"]).fails(1, ["there is no backup \"zzz\"", "`snapback list`"]);
    environment.run(["ls", "latest~7"]).fails(1, ["only 2 backups", "`latest~1` is the oldest"]);
    environment.run(["ls", "latest~x"]).fails(2, ["is no backup"]);
}

#[test]
fn an_unknown_path_is_1_and_suggests_the_nearest() {
    let environment = Environment::with_backup();
    let path = environment.files().join("helo");
    environment
        .run(["ls", "latest", path.to_str().unwrap()])
        .fails(1, ["is not in the backup", "did you mean", "hello"]);
    let target = environment.path("out");
    let named = format!("latest:{}", path.display());
    let run = environment.run(["restore", &named, "--to", target.to_str().unwrap()]);
    run.fails(1, ["is not in the backup"]);
    assert!(!target.exists(), "nothing is made for a mistyped path");
}

#[test]
fn a_path_that_is_not_there_is_1_alone_and_3_among_others() {
    let environment = Environment::new();
    environment.write("a", "a");
    environment.run(["backup", "nowhere"]).fails(1, ["nowhere", "No such file"]);
    assert!(environment.stored("snapshots").is_empty());
    environment.run(["backup", "nowhere", "files"]).fails(3, ["nowhere: No such file", "could not be read"]);
    assert_eq!(environment.stored("snapshots").len(), 1);
}

#[test]
fn a_file_that_cannot_be_read_whole_is_3_and_the_rest_is_saved() {
    let environment = Environment::new();
    environment.write("good", "good");
    // It says that it has 4096 bytes, and gives fewer, to root too.
    let sys = "/sys/devices/system/cpu/online";
    environment.run(["backup", "files", sys]).fails(3, [sys, "shrank", "1 file could not be read"]);
    let good = format!("latest:{}", environment.files().join("good").display());
    assert_eq!(environment.run(["cat", &good]).succeeds().stdout, "good");
}

#[test]
fn a_repository_is_not_made_twice() {
    let environment = Environment::new();
    environment.run(["repo", "init"]).fails(1, ["there is a repository at", "already"]);
}

#[test]
fn an_empty_password_and_none_at_all_are_refused() {
    let environment = Environment::empty();
    let run = environment.command().env("SNAPBACK_PASSWORD", "").args(["repo", "init"]).output().unwrap();
    environment::Run::from(run).fails(1, ["the password is empty"]);
    assert!(!environment.path("repository").exists());
    let run = environment.command().env_remove("SNAPBACK_PASSWORD").args(["repo", "init"]).output().unwrap();
    environment::Run::from(run).fails(1, ["no terminal to ask on", "--password-file"]);
}

#[test]
fn errors_are_json_with_json() {
    let environment = Environment::empty();
    let run = environment.run(["list", "--json"]).fails(10, []);
    let error: serde_json::Value = serde_json::from_str(&run.stderr).unwrap();
    assert_eq!(error["type"], "error");
    assert_eq!(error["code"], 10);
    assert!(error["message"].as_str().unwrap().contains("there is no repository"));
    assert!(error["hint"].as_str().unwrap().contains("repo init"));
    assert_eq!(run.stdout, "");
}

#[test]
fn who_closes_the_pipe_early_gets_no_complaint() {
    let environment = Environment::with_backup();
    let mut child = environment
        .command()
        .args(["ls", "-R", "latest"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let run = environment::Run::from(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn a_repository_that_cannot_be_written_to_is_read_without_a_lock() {
    let environment = Environment::with_backup();
    let run = |arguments: &[&str]| {
        let output = environment.command_of_a_reader().args(arguments).output().unwrap();
        environment::Run::from(output)
    };
    let listed = run(&["list"]).succeeds();
    assert!(listed.stderr.contains("without a lock"), "{listed:?}");
    let path = environment.files().join("hello");
    let printed = run(&["cat", &format!("latest:{}", path.display())]).succeeds();
    assert_eq!(printed.stdout, "hello\n");
    let quiet = run(&["list", "--no-lock"]).succeeds();
    assert!(!quiet.stderr.contains("lock"), "{quiet:?}");
    run(&["backup", "files"]).fails(1, ["Permission denied", "try:"]);
    run(&["forget", "latest"]).fails(1, ["Permission denied"]);
}

#[test]
fn what_the_environment_gives_is_not_asked_for() {
    let environment = Environment::empty();
    environment.run(["backup"]).fails(2, ["Usage: snapback backup [OPTIONS]"]);
    environment.run(["snapshot", "create"]).fails(2, ["Usage: snapback snapshot create [OPTIONS] <PROJECT|DIR>"]);
}

#[test]
fn a_target_that_is_no_directory_is_refused() {
    let environment = Environment::with_backup();
    environment.run(["restore", "latest", "--to", "files/hello"]).fails(1, ["it is there, and no directory", "try:"]);
}

#[test]
fn names_in_a_repository_cannot_command_a_terminal_or_look_like_rows() {
    let environment = Environment::new();
    environment.write("a\n\x1b[2Jb/file", "text");
    let path = environment.files().join("a\n\x1b[2Jb");
    let backup = environment.run(["backup".as_ref(), path.as_os_str()]).succeeds();
    for run in [backup, environment.run(["list"]), environment.run(["forget", "--keep-last", "1", "--dry-run"])] {
        assert!(run.stdout.contains("a\\n\\u{1b}[2Jb"), "{run:?}");
    }
    environment.run(["backup", "nothing\x1b[2J"]).fails(1, ["nothing\\u{1b}[2J"]);
}

#[test]
fn what_was_backed_up_under_a_name_that_is_not_utf_8_is_listed() {
    let environment = Environment::new();
    let directory = environment.files().join(OsStr::from_bytes(b"\xff"));
    std::fs::create_dir(&directory).unwrap();
    environment.run(["backup".as_ref(), directory.as_os_str()]).succeeds();
    let listed = environment.run(["ls", "latest"]).succeeds();
    assert_eq!(listed.bytes, [directory.as_os_str().as_bytes(), b"/\n"].concat());
}
