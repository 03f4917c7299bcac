//! Each command does what its help says, on the real binary.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods, clippy::print_stderr, reason = "what the machine has decides what can be tested")]

mod environment;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use environment::{Environment, Run, contents};

#[test]
fn a_backup_comes_back_as_it_was_with_its_full_path() {
    let environment = Environment::with_backup();
    let target = environment.path("out");
    environment.run(["restore", "latest", "--to", "out", "--verify"]).succeeds();
    let restored = target.join(environment.files().strip_prefix("/").unwrap());
    assert_eq!(contents(&restored), contents(&environment.files()));
    let again = environment.run(["restore", "latest", "--to", "out", "--json"]).succeeds().json();
    assert_eq!(again[0]["files_unchanged"], 2);
    assert_eq!(again[0]["bytes_written"], 0);
}

#[test]
fn only_a_part_is_restored_where_only_a_part_is_named() {
    let environment = Environment::with_backup();
    let part = format!("latest:{}", environment.files().join("sub").display());
    environment.run(["restore", &part, "--to", "out"]).succeeds();
    let restored = environment.path("out").join(environment.files().strip_prefix("/").unwrap());
    assert_eq!(contents(&restored), [("sub/world".into(), b"world\n".to_vec())]);
}

#[test]
fn an_unchanged_backup_reads_and_stores_nothing() {
    let environment = Environment::with_backup();
    let lines = environment.run(["backup", "--json", "files"]).succeeds().json();
    let summary = lines.as_array().unwrap().last().unwrap();
    assert_eq!(summary["type"], "summary");
    assert_eq!(summary["files_unmodified"], 2);
    assert_eq!(summary["files_new"], 0);
    // A tree may be new: that of /tmp, when other tests make directories there.
    assert_eq!(summary["data_blobs"], 0);
    assert_eq!(summary["errors"], 0);
    assert!(summary["parent"].is_string());
}

#[test]
fn a_dry_run_changes_nothing_in_the_repository() {
    let environment = Environment::with_backup();
    environment.write("new", "new");
    let before = contents(&environment.path("repository"));
    let summary = environment.run(["backup", "--json", "--dry-run", "files"]).succeeds().json();
    assert_eq!(summary[0]["files_new"], 1);
    assert_eq!(summary[0]["dry_run"], true);
    assert!(summary[0]["id"].is_null());
    environment.run(["forget", "--keep-last", "1", "--dry-run"]).succeeds();
    assert_eq!(contents(&environment.path("repository")), before);
}

#[test]
fn one_place_is_stored_under_one_path_whatever_links_lead_there() {
    let environment = Environment::new();
    environment.write("sub/a", "a");
    std::os::unix::fs::symlink(environment.files(), environment.path("link")).unwrap();
    environment.run(["backup", "link/sub"]).succeeds();
    environment.run(["backup", "./files/../files/sub/"]).succeeds();
    let records = environment.run(["list", "--json"]).succeeds().json();
    let real = environment.files().join("sub");
    assert_eq!(records[0]["paths"][0], real.to_str().unwrap());
    assert_eq!(records[1]["paths"], records[0]["paths"]);
    assert_eq!(records[1]["parent"], records[0]["id"]);

    let run = environment.run(["backup", "link"]).succeeds();
    assert!(run.stderr.contains("link/ is what it points to"), "{run:?}");
    environment.run(["backup", "link/"]).succeeds();
    let records = environment.run(["list", "--json"]).succeeds().json();
    assert_eq!(records[3]["paths"][0], environment.files().to_str().unwrap());
}

#[test]
fn what_matches_is_left_out_and_the_record_says_so() {
    let environment = Environment::new();
    for name in ["keep", "a.tmp", "b.tmp", "sub/c.log", "cache/x", "large"] {
        environment.write(name, name);
    }
    environment.write("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    environment.write("large", vec![0; 5000]);
    fs::write(environment.path("patterns"), "# comment\n*.tmp\n$HOME/x\n").unwrap();
    let arguments = [
        "backup",
        "files",
        "--exclude-file",
        "patterns",
        "--exclude",
        "!b.tmp",
        "--exclude",
        "*.log",
        "--exclude-caches",
        "--exclude-larger-than",
        "1k",
    ];
    environment.run(arguments).succeeds();
    let listed =
        environment.run(["ls", "-R", "latest"]).succeeds().stdout.replace(environment.files().to_str().unwrap(), "");
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["/b.tmp", "/cache/", "/cache/CACHEDIR.TAG", "/keep", "/sub/"]);
    let record = &environment.run(["list", "--json"]).succeeds().json()[0];
    let home = format!("{}/x", environment.path("home").display());
    assert_eq!(record["excludes"], serde_json::json!(["*.tmp", home, "!b.tmp", "*.log"]));
    environment.run(["backup", "files", "--exclude", "[a"]).fails(2, ["[a"]);
    environment.run(["backup", "files", "--exclude-file", "nowhere"]).fails(1, ["nowhere", "No such file"]);
}

#[test]
fn a_restore_takes_and_leaves_out_by_patterns() {
    let environment = Environment::with_backup();
    let restored =
        |target: &str| contents(&environment.path(target).join(environment.files().strip_prefix("/").unwrap()));
    environment.run(["restore", "latest", "--to", "a", "--include", "world"]).succeeds();
    assert_eq!(restored("a"), [("sub/world".into(), b"world\n".to_vec())]);
    environment.run(["restore", "latest", "--to", "b", "--exclude", "sub"]).succeeds();
    assert_eq!(restored("b"), [("hello".into(), b"hello\n".to_vec())]);
}

#[test]
fn overwriting_follows_the_mode_and_deleting_is_asked_for() {
    let environment = Environment::with_backup();
    let hello = environment.files().join("hello");
    let run = |more: &[&str]| environment.run(["restore", "latest", "--to", "/"].iter().chain(more)).succeeds();
    fs::write(&hello, "newer").unwrap();
    fs::write(environment.files().join("extra"), "extra").unwrap();
    run(&["--overwrite", "never"]);
    run(&["--overwrite", "if-newer"]);
    run(&["--dry-run", "--delete"]);
    assert_eq!(fs::read_to_string(&hello).unwrap(), "newer");
    run(&["--overwrite", "if-changed"]);
    assert_eq!(fs::read_to_string(&hello).unwrap(), "hello\n");
    assert!(environment.files().join("extra").exists());
    let part = format!("latest:{}", environment.files().display());
    environment.run(["restore", &part, "--to", "/", "--delete"]).succeeds();
    assert!(!environment.files().join("extra").exists());
}

#[test]
fn a_record_says_who_when_and_what() {
    let environment = Environment::new();
    environment.write("a", "a");
    environment.run(["backup", "--host", "web", "--tag", "x,y", "--tag", "x", "files"]).succeeds();
    let records = environment.run(["list", "--json"]).succeeds().json();
    let record = &records[0];
    assert_eq!(record["hostname"], "web");
    assert_eq!(record["tags"], serde_json::json!(["x", "y"]));
    assert_eq!(record["program_version"], "snapback 0.1.0");
    assert_eq!(record["summary"]["total_files_processed"], 1);
    assert_eq!(record["time"], record["summary"]["backup_start"]);
    assert_eq!(record["id"].as_str().unwrap()[..8], *record["short_id"].as_str().unwrap());
}

#[test]
fn standard_input_becomes_a_file() {
    let environment = Environment::new();
    // Long enough for several pieces, and incompressible enough to tell their order.
    let mut state = 1_u64;
    let dump: Vec<u8> = (0..3_000_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let run = feed(environment.command().args(["backup", "--json", "--stdin-name", "db/dump.sql"]), &dump).succeeds();
    let summary = run.json();
    assert_eq!(summary.as_array().unwrap().last().unwrap()["total_bytes_processed"], 3_000_000);
    let printed = environment.run(["cat", "latest:/db/dump.sql"]).succeeds();
    assert!(printed.bytes == dump, "the bytes differ");
    assert_eq!(environment.run(["ls", "latest"]).succeeds().stdout, "/db/dump.sql\n");

    let again = feed(environment.command().args(["backup", "--json", "--stdin-name", "db/dump.sql"]), &dump).succeeds();
    let blobs = again.json().as_array().unwrap().last().unwrap()["data_blobs"].clone();
    assert_eq!(blobs, 0, "the same pieces are not stored twice");
    feed(environment.command().args(["backup", "--stdin-name", "/"]), b"").fails(2, ["not the name of a file"]);
    environment.run(["backup", "--stdin-name", "x", "files"]).fails(2, ["cannot be used with"]);
}

fn feed(command: &mut Command, bytes: &[u8]) -> Run {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Whoever refuses to read is judged by what it says.
    let _ = stdin.write_all(bytes);
    drop(stdin);
    child.wait_with_output().unwrap().into()
}

#[test]
fn progress_is_an_object_a_line_and_the_summary_comes_last() {
    let environment = Environment::new();
    let mut command = environment.command();
    command.args(["backup", "--json", "--stdin-name", "x"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[7; 1000]).unwrap();
    // Until the second line is there, it has told its progress at least once.
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let begun = std::time::Instant::now();
    let mut progress = Vec::new();
    while progress.len() < 3 {
        progress.push(lines.next().unwrap().unwrap());
    }
    assert!(begun.elapsed() >= std::time::Duration::from_millis(500), "more than four a second");
    drop(stdin);
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success());
    for line in &progress {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["type"], "progress");
        assert_eq!(line["action"], "backing up");
        assert_eq!(line["bytes_done"], 1000);
        assert!(line["bytes_total"].is_null(), "nobody knows how long a stream is");
    }
    let last: serde_json::Value = serde_json::from_str(rest.last().unwrap()).unwrap();
    assert_eq!((last["type"].clone(), last["total_bytes_processed"].clone()), ("summary".into(), 1000.into()));
}

#[test]
fn ls_lists_what_was_backed_up() {
    let environment = Environment::with_backup();
    let files = environment.files();
    let listed = environment.run(["ls", "latest"]).succeeds().stdout;
    assert_eq!(listed, format!("{0}/hello\n{0}/sub/\n", files.display()));
    let all = environment.run(["ls", "-R", "latest"]).succeeds().stdout;
    assert_eq!(all, format!("{0}/hello\n{0}/sub/\n{0}/sub/world\n", files.display()));
    let long = environment.run(["ls", "-l", "latest", files.join("hello").to_str().unwrap()]).succeeds().stdout;
    assert!(long.starts_with("-rw-") && long.contains("6 B") && long.ends_with("/hello\n"), "{long}");
    let json = environment.run(["ls", "--json", "-R", "latest"]).succeeds().json();
    assert_eq!(json.as_array().unwrap().len(), 3);
    assert_eq!(json[0]["type"], "file");
    assert_eq!(json[0]["size"], 6);
    assert_eq!(json[1]["type"], "dir");
}

#[test]
fn find_shows_each_version_and_who_has_it() {
    let environment = Environment::with_backup();
    environment.backup();
    environment.write("hello", "hello again\n");
    environment.backup();
    let found = environment.run(["find", "hel*", "--json"]).succeeds().json();
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["path"], environment.files().join("hello").to_str().unwrap());
    let versions = found[0]["versions"].as_array().unwrap();
    assert_eq!(versions.len(), 2);
    assert_eq!(versions[0]["backups"].as_array().unwrap().len(), 2);
    assert_eq!(versions[1]["entry"]["size"], 12);

    let count =
        |pattern: &str| environment.run(["find", "--json", pattern]).succeeds().json().as_array().unwrap().len();
    assert_eq!(count("sub/world"), 1);
    assert_eq!(count("/**/files/*"), 2);
    assert_eq!(count("world/"), 0);
    assert_eq!(count("HELLO"), 0);
    assert_eq!(count("nothing"), 0);
    environment.run(["find", "[a"]).fails(2, ["is no pattern"]);
}

#[test]
fn diff_names_every_kind_of_difference_once() {
    let environment = Environment::with_backup();
    environment.write("sub/gone", "1");
    environment.write("kind", "file");
    environment.backup();
    let files = environment.files();
    environment.write("hello", "other\n");
    environment.write("added/deep", "1");
    fs::remove_file(files.join("sub/gone")).unwrap();
    fs::remove_file(files.join("kind")).unwrap();
    std::os::unix::fs::symlink("hello", files.join("kind")).unwrap();
    environment.backup();
    let shown = environment.run(["diff", "latest~1", "latest"]).succeeds();
    let lines: Vec<String> = shown.stdout.lines().map(|line| line.replace(files.to_str().unwrap(), "")).collect();
    assert_eq!(lines, ["+  /added/", "+  /added/deep", "M  /hello", "T  /kind", "-  /sub/gone"]);
    assert!(shown.stderr.contains("1 file added (1 B), 1 file removed (1 B), 2 files changed"), "{}", shown.stderr);
    assert_eq!(environment.run(["diff", "latest", "latest"]).succeeds().stdout, "");
    let json = environment.run(["diff", "--json", "latest~1", "latest"]).succeeds().json();
    assert_eq!(json[2]["change"], "content");
    assert_eq!(json[2]["after"]["size"], 6);
}

#[test]
fn a_directory_comes_as_a_tar_that_gnu_tar_unpacks() {
    let environment = Environment::with_backup();
    let files = environment.files();
    fs::hard_link(files.join("hello"), files.join("sub/again")).unwrap();
    std::os::unix::fs::symlink("hello", files.join("link")).unwrap();
    let long = "n".repeat(120);
    environment.write(&format!("{long}/{long}"), "deep");
    environment.write("empty", "");
    environment.backup();
    let tar = environment.run(["cat", &format!("latest:{}", files.display())]).succeeds().bytes;
    let unpacked = environment.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut unpack = Command::new("tar");
    feed(unpack.args(["--extract", "--preserve-permissions", "--directory"]).arg(&unpacked), &tar).succeeds();
    let unpacked = unpacked.join(files.strip_prefix("/").unwrap());
    assert_eq!(contents(&unpacked), contents(&files));
    for name in ["hello", "sub", &format!("{long}/{long}")] {
        let (before, after) = (fs::metadata(files.join(name)).unwrap(), fs::metadata(unpacked.join(name)).unwrap());
        assert_eq!(before.modified().unwrap(), after.modified().unwrap(), "{name}");
        assert_eq!(before.permissions(), after.permissions(), "{name}");
    }
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(fs::metadata(unpacked.join("hello")).unwrap().nlink(), 2);
    assert_eq!(fs::read_link(unpacked.join("link")).unwrap().to_str(), Some("hello"));
}

#[test]
fn damage_never_passes_for_a_file() {
    let environment = Environment::with_backup();
    for pack in environment.stored("data") {
        let mut bytes = fs::read(&pack).unwrap();
        bytes[20] ^= 1;
        fs::remove_file(&pack).unwrap();
        fs::write(&pack, bytes).unwrap();
    }
    let hello = format!("latest:{}", environment.files().join("hello").display());
    let run = environment.run(["cat", &hello]).fails(1, ["damaged", "try: `snapback repo check"]);
    assert_eq!(run.stdout, "");
}

#[test]
fn tags_are_added_removed_and_replaced() {
    let environment = Environment::with_backup();
    let original = environment.run(["list", "--json"]).succeeds().json()[0]["id"].clone();
    let tags = || environment.run(["list", "--json"]).succeeds().json()[0]["tags"].clone();
    environment.run(["tag", "--add", "a,b", "latest"]).succeeds();
    assert_eq!(tags(), serde_json::json!(["a", "b"]));
    environment.run(["tag", "--remove", "a", "--add", "c", "--tag", "b"]).succeeds();
    assert_eq!(tags(), serde_json::json!(["b", "c"]));
    environment.run(["tag", "--set", "z", "latest"]).succeeds();
    assert_eq!(tags(), serde_json::json!(["z"]));
    environment.run(["tag", "--set", "", "latest"]).succeeds();
    assert!(tags().is_null());
    let record = &environment.run(["list", "--json"]).succeeds().json()[0];
    assert_eq!(record["original"], original, "the first id stays known");
    assert_eq!(record["summary"]["total_files_processed"], 2, "the figures stay");
    assert_eq!(environment.stored("snapshots").len(), 1);
    environment.run(["tag", "--add", "x"]).fails(2, ["no backup is named"]);
    environment.run(["tag", "latest"]).fails(2, ["nothing to change"]);
}

#[test]
fn forget_keeps_what_the_rules_say_and_says_why() {
    let environment = Environment::with_backup();
    environment.backup();
    let last = environment.backup();
    let shown = environment.run(["forget", "--keep-last", "1", "--json", "--dry-run"]).succeeds().json();
    let backups = shown[0]["backups"].as_array().unwrap();
    assert_eq!(backups.iter().filter(|backup| backup["keep"] == true).count(), 1);
    assert_eq!(backups[2]["reasons"], serde_json::json!(["last"]));
    let run = environment.run(["forget", "--keep-last", "1"]).succeeds();
    assert!(run.stdout.contains("1 stay, 2 go") && run.stderr.contains("2 backups removed"), "{run:?}");
    let records = environment.run(["list", "--json"]).succeeds().json();
    assert_eq!(records.as_array().unwrap().len(), 1);
    assert_eq!(records[0]["id"], last);
}

#[test]
fn forget_refuses_rules_that_leave_nothing_but_takes_names() {
    let environment = Environment::with_backup();
    environment.run(["forget", "--keep-tag", "nobody-has-it"]).fails(1, ["would remove all backups of", "forget ID"]);
    assert_eq!(environment.stored("snapshots").len(), 1);
    environment.run(["forget", "latest", "--keep-last", "1"]).fails(2, ["cannot be used with"]);
    environment.run(["forget", "latest"]).succeeds();
    assert!(environment.stored("snapshots").is_empty());
}

#[test]
fn passwords_are_added_changed_and_removed() {
    let environment = Environment::with_backup();
    let list_with =
        |password: &str| environment.command().env("SNAPBACK_PASSWORD", password).arg("list").output().unwrap();
    fs::write(environment.path("second"), "second\n").unwrap();
    environment.run(["repo", "key", "add", "--new-password-file", "second"]).succeeds();
    Run::from(list_with("second")).succeeds();

    let keys = environment.run(["repo", "key", "list", "--json"]).succeeds().json();
    let keys = keys.as_array().unwrap();
    assert_eq!(keys.len(), 2);
    let id = |current: bool| keys.iter().find(|key| key["current"] == current).unwrap()["id"].as_str().unwrap();
    environment.run(["repo", "key", "remove", id(true)]).fails(1, ["is the one in use", "passwd"]);
    environment.run(["repo", "key", "remove", "zz"]).fails(1, ["there is no key"]);
    environment.run(["repo", "key", "remove", &id(false)[..8]]).succeeds();
    Run::from(list_with("second")).fails(12, ["wrong password"]);

    environment.run(["repo", "key", "passwd", "--new-password-command", "echo 'third one'"]).succeeds();
    environment.run(["list"]).fails(12, []);
    Run::from(list_with("third one")).succeeds();
    let file = environment.path("third");
    fs::write(&file, "third one\n").unwrap();
    environment.run(["list", "--password-file", "third"]).succeeds();
    environment.run(["list", "--password-command", "cat third"]).succeeds();
    environment.run(["list", "--password-command", "false"]).fails(1, ["password command", "exit status: 1"]);
    environment.run(["list", "--password-file", "nowhere"]).fails(1, ["nowhere", "No such file"]);
}

#[test]
fn quiet_says_nothing_where_nothing_is_wrong() {
    let environment = Environment::with_backup();
    let run = environment.run(["backup", "-q", "files"]).succeeds();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
    let run = environment.run(["restore", "-q", "latest", "--to", "out"]).succeeds();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}

#[test]
fn no_lock_is_left_behind() {
    let environment = Environment::with_backup();
    environment.run(["list"]).succeeds();
    environment.run(["forget", "--keep-last", "1"]).succeeds();
    environment.run(["ls", "nothing"]).fails(1, []);
    assert!(environment.stored("locks").is_empty());
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let environment = Environment::empty();
    for shell in ["bash", "zsh", "fish"] {
        assert!(environment.run(["completions", shell]).succeeds().stdout.contains("restore"), "{shell}");
    }
    environment.run(["man", "--to", "man"]).succeeds();
    for page in ["snapback.1", "snapback-backup.1", "snapback-repo-key-passwd.1"] {
        assert!(environment.path("man").join(page).exists(), "{page}");
    }
}

#[test]
fn a_mount_shows_the_backups_until_ctrl_c() {
    if !std::path::Path::new("/dev/fuse").exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "/dev/fuse is missing: load the kernel module fuse");
        eprintln!("skipped: /dev/fuse is missing");
        return;
    }
    let environment = Environment::with_backup();
    environment.run(["mount", "nowhere"]).fails(1, ["there is no such directory", "try: mkdir nowhere"]);
    let directory = environment.path("mount");
    fs::create_dir(&directory).unwrap();
    let child = environment.command().args(["mount", "mount"]).stderr(Stdio::piped()).spawn().unwrap();
    let file = directory.join("backups/latest").join(environment.files().strip_prefix("/").unwrap()).join("hello");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !file.exists() {
        assert!(std::time::Instant::now() < until, "nothing is mounted");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "hello\n");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).succeeds();
    assert!(run.stderr.contains("until Ctrl-C"), "{run:?}");
    assert!(!file.exists());
    assert!(environment.stored("locks").is_empty());
}
