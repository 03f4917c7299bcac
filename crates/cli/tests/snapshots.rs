//! Taking, looking at, bringing back and deleting snapshots with the real binary on a real btrfs.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use environment::btrfs::{Shop, run};
use environment::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn create_prints_one_object_whose_id_every_command_takes() {
    let shop = Shop::new();
    let created = shop.run(["snapshot", "create", &shop.name(), "--json", "--note", "before lunch"]).succeeds();
    let document: serde_json::Value = serde_json::from_str(&created.stdout).expect("one object");
    let id = document["id"].as_str().unwrap();
    assert_eq!(document["note"], "before lunch");
    assert_eq!(document["directory"], shop.name());
    shop.write("index", "two");
    let diff = shop.run(["snapshot", "diff", &id[..4]]).succeeds();
    assert_eq!(diff.stdout, format!("M  {}/index\n", shop.name()));
    shop.run(["snapshot", "undo", id, "index"]).succeeds();
    assert_eq!(shop.read("index"), "one");
    shop.write("index", "three");
    shop.run(["rollback", &id[..6], "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "one");
    shop.run(["snapshot", "hold", id]).succeeds();
    shop.run(["snapshot", "delete", id]).fails(1, ["is held", "try:", "release"]);
    shop.run(["snapshot", "release", id]).succeeds();
    shop.run(["snapshot", "delete", id]).succeeds();
    shop.run(["snapshot", "delete", id]).fails(1, ["there is no snapshot", "try: `snapback snapshot list`"]);
}

#[test]
fn without_json_create_prints_the_id_alone() {
    let shop = Shop::new();
    let run = shop.run(["snapshot", "create", &shop.name()]).succeeds();
    assert_eq!(run.stdout.trim(), shop.list()[0]["id"].as_str().unwrap());
    assert!(run.stderr.contains("taken in") && run.stderr.contains("expires in 4 h"), "{run:?}");
}

#[test]
fn the_list_shows_what_each_keeps_and_when_it_goes() {
    let shop = Shop::new();
    shop.run(["snapshot", "create", &shop.name(), "--note", "first", "--expire", "never"]).succeeds();
    shop.run(["snapshot", "create", &shop.name(), "--note", "second", "--hold"]).succeeds();
    shop.write("big", &"x".repeat(3_000_000));
    run("sync", ["--file-system", &shop.name()]);
    let list = shop.run(["snapshot", "list"]).succeeds();
    let lines: Vec<&str> = list.stdout.lines().collect();
    assert!(lines[0].contains("Grown since") && lines[0].contains("Reclaimable"), "{list:?}");
    assert!(lines[1].contains("never") && lines[1].contains("first") && lines[1].contains("3.0 MB"), "{list:?}");
    assert!(lines[2].contains("held") && lines[2].contains("second"), "{list:?}");
    let documents = shop.list();
    assert!(documents[0]["grown"].as_u64().unwrap() >= 3_000_000, "{documents:?}");
    assert!(documents[0]["reclaimable"].as_u64().unwrap() < 1_000_000, "{documents:?}");
    let other = shop.environment.path("files");
    assert_eq!(shop.run(["snapshot", "list", other.to_str().unwrap()]).succeeds().stdout, "");
}

#[test]
fn a_snapshot_older_than_a_day_is_warned_about() {
    let shop = Shop::new();
    let id = shop.snapshot();
    shop.edit("snapshots", &id, |record| record["created"] = "2020-01-01T00:00:00Z".into());
    let list = shop.run(["snapshot", "list"]).succeeds();
    assert!(list.stderr.contains(&format!("warning: snapshot {id} is")) && list.stderr.contains("backup"), "{list:?}");
}

#[test]
fn expire_deletes_what_has_had_its_time_and_was_not_held() {
    let shop = Shop::new();
    let (old, held, young) = (shop.snapshot(), shop.snapshot(), shop.snapshot());
    shop.run(["snapshot", "hold", &held]).succeeds();
    for id in [&old, &held] {
        shop.edit("snapshots", id, |record| record["expires"] = "2020-01-01T00:00:00Z".into());
    }
    assert!(shop.run(["snapshot", "expire", "--dry-run"]).succeeds().stderr.contains(&format!("{old} of")));
    assert_eq!(shop.list().len(), 3);
    shop.run(["snapshot", "expire"]).succeeds();
    let left: Vec<_> = shop.list().iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(left, [held, young.clone()]);
    shop.run(["snapshot", "release", "latest~1"]).succeeds();
    shop.edit("snapshots", &young, |record| record["expires"] = "2020-01-01T00:00:00Z".into());
    let run = shop.run(["snapshot", "expire", "--quiet"]).succeeds();
    assert!(run.stderr.contains("no snapshot of") && run.stderr.contains("is left"), "not silently: {run:?}");
}

#[test]
fn a_snapshot_that_went_with_its_file_system_can_only_be_forgotten() {
    let shop = Shop::new();
    let id = shop.snapshot();
    shop.run(["snapshot", "delete", &id, "--forget"]).fails(1, ["is still there", "try: delete it"]);
    rustix::mount::unmount(shop.directory().parent().unwrap(), rustix::mount::UnmountFlags::DETACH).unwrap();
    shop.run(["snapshot", "delete", &id]).fails(1, []);
    let forgotten = shop.run(["snapshot", "delete", &id, "--forget", "--json"]).succeeds();
    assert_eq!(forgotten.json()[0]["deleted"][0], id);
    assert!(shop.list().is_empty());
}

#[test]
fn a_rollback_says_what_is_lost_and_who_is_concerned_and_can_be_undone() {
    let shop = Shop::new();
    shop.write("gone", "soon");
    let id = shop.snapshot();
    shop.write("index", "two");
    shop.write("added", "new");
    fs::remove_file(shop.directory().join("gone")).unwrap();
    let mut holder = std::process::Command::new("sleep").arg("60").current_dir(shop.directory()).spawn().unwrap();
    let plan = shop.run(["rollback", &id, "--dry-run"]);
    let document = shop.run(["rollback", &id, "--dry-run", "--json"]).succeeds().json();
    let losses = &document[0]["directories"][0]["losses"];
    assert_eq!((&losses["changed"], &losses["added"], &losses["removed"]), (&1.into(), &1.into(), &1.into()));
    let rolled_back = shop.run(["rollback", &id, "--yes"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let shown = plan.succeeds().stderr;
    for words in ["1 file changed since, 1 new, 1 deleted come back", "sleep 60", "safety"] {
        assert!(shown.contains(words), "{words:?} is missing in {shown}");
    }
    assert!(rolled_back.succeeds().stderr.contains("still in the old state"));
    assert_eq!((shop.read("index"), shop.read("gone")), ("one".to_owned(), "soon".to_owned()));
    assert!(!shop.directory().join("added").exists());
    shop.run(["rollback", "--undo", "--yes"]).succeeds();
    assert_eq!((shop.read("index"), shop.read("added")), ("two".to_owned(), "new".to_owned()));
}

#[test]
fn a_rollback_asks_at_a_terminal_and_refuses_without() {
    let shop = Shop::new();
    shop.snapshot();
    shop.write("index", "two");
    shop.run(["rollback", "latest"]).fails(2, ["no terminal to ask on", "try:", "--yes"]);
    assert_eq!(shop.read("index"), "two");
    for (answer, code, left) in [("\n", 1, "two"), ("yes\n", 0, "one")] {
        let mut command = shop.environment.command();
        command.args(["rollback", "latest"]);
        let mut terminal = Terminal::run(&command);
        terminal.shows("Go on? [y/N]");
        terminal.types(answer);
        assert_eq!(terminal.ends(), code, "{}", terminal.screen());
        assert_eq!(shop.read("index"), left);
    }
}

#[test]
fn latest_is_none_that_was_kept_on_the_way_back() {
    let shop = Shop::new();
    let id = shop.snapshot();
    shop.write("index", "two");
    shop.write("added", "new");
    shop.run(["snapshot", "undo", "latest", &format!("{}/index", shop.name())]).succeeds();
    shop.run(["rollback", "latest", "--yes"]).succeeds();
    assert!(!shop.directory().join("added").exists());
    let purposes: Vec<_> = shop.list().iter().map(|snapshot| snapshot["purpose"].clone()).collect();
    assert_eq!(purposes, ["asked", "undo", "safety"]);
    assert!(shop.run(["snapshot", "hold", "latest"]).succeeds().stderr.contains(&id));
}

#[test]
fn a_probe_that_hangs_is_ended_and_takes_the_rollback_back() {
    let shop = Shop::new();
    shop.run(["snapshot", "create", &shop.name()]).succeeds();
    shop.write("index", "two");
    let rollback = ["rollback", "latest", "--yes", "--probe", "sleep 600 & sleep 600", "--probe-limit", "1s"];
    shop.run(rollback).fails(1, ["sleep 600", "exit code 124", "sending signal TERM"]);
    assert_eq!(shop.read("index"), "two");
}

#[test]
fn a_probe_that_fails_takes_the_rollback_back() {
    let shop = Shop::new();
    shop.snapshot();
    shop.write("index", "two");
    let probe = format!("grep -q two {}/index", shop.name());
    shop.run(["rollback", "latest", "--yes", "--probe", &probe, "--probe-limit", "1s"]).fails(1, ["failed"]);
    assert_eq!(shop.read("index"), "two");
}

#[test]
fn a_diff_shows_files_and_lines_between_two_snapshots() {
    let shop = Shop::new();
    shop.write("page", "a\nb\nc\n");
    let first = shop.snapshot();
    shop.write("page", "a\nB\nc\n");
    shop.write("new", "");
    let second = shop.snapshot();
    shop.write("page", "something else");
    let diff = shop.run(["snapshot", "diff", &first, &second, "--json"]).succeeds().json();
    let paths: Vec<_> = diff.as_array().unwrap().iter().map(|change| (&change["path"], &change["change"])).collect();
    let path = |name: &str| serde_json::Value::from(format!("{}/{name}", shop.name()));
    assert_eq!(paths, [(&path("new"), &"added".into()), (&path("page"), &"modified".into())]);
    let lines = shop.run(["snapshot", "diff", &first, &second, "--content", "page"]).succeeds().stdout;
    assert!(lines.contains("\n-b\n+B\n"), "{lines}");
}

#[test]
fn undo_tells_first_and_keeps_the_rest() {
    let shop = Shop::new();
    fs::create_dir(shop.directory().join("pages")).unwrap();
    shop.write("pages/a", "a");
    let id = shop.snapshot();
    shop.write("pages/a", "A");
    shop.write("pages/b", "b");
    shop.write("index", "two");
    let page = format!("{}/pages", shop.name());
    let plan = shop.run(["snapshot", "undo", &id, &page, "--dry-run"]).succeeds();
    assert!(plan.stdout.contains("M  ") && !plan.stdout.contains("index"), "{plan:?}");
    assert_eq!(shop.read("pages/a"), "A");
    shop.run(["snapshot", "undo", &id, &page]).succeeds();
    assert_eq!((shop.read("pages/a"), shop.read("pages/b")), ("a".to_owned(), "b".to_owned()));
    assert_eq!(shop.read("index"), "two");
    shop.run(["snapshot", "undo", &id, &page, "--delete"]).succeeds();
    assert!(!shop.directory().join("pages/b").exists());
    shop.run(["snapshot", "undo", &id, "/etc/passwd"]).fails(2, ["is not in"]);
    shop.run(["snapshot", "undo", &id, "nowhere"]).fails(1, ["nowhere"]);
}

#[test]
fn a_mounted_snapshot_is_read_only_and_goes_with_ctrl_c() {
    let shop = Shop::new();
    let id = shop.snapshot();
    shop.write("index", "two");
    let point = shop.environment.path("files");
    let mut command = shop.environment.command();
    command.args(["snapshot", "mount", &id, point.to_str().unwrap()]).stderr(Stdio::null());
    let mut mounted = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !point.join("index").exists() {
        assert!(Instant::now() < until, "it is never mounted");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (read, write) = (fs::read_to_string(point.join("index")), fs::write(point.join("index"), "x"));
    kill_process(Pid::from_child(&mounted), Signal::INT).unwrap();
    assert!(mounted.wait().unwrap().success());
    assert_eq!(read.unwrap(), "one");
    assert_eq!(write.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert!(!point.join("index").exists(), "it is unmounted");
}

#[test]
fn what_is_no_subvolume_says_the_way_out() {
    let shop = Shop::new();
    fs::create_dir(shop.directory().join("pages")).unwrap();
    let below = format!("{}/pages", shop.name());
    shop.run(["snapshot", "create", &below]).fails(1, ["is not a subvolume", "try:", "snapback adopt"]);
    shop.run(["snapshot", "create", "/proc"]).fails(1, ["/proc", "try:"]);
    shop.run(["snapshot", "create", "/nowhere"]).fails(1, ["/nowhere", "No such file"]);
    shop.run(["snapshot", "create", &format!("{}/index", shop.name())]).fails(1, ["is no directory", "try:"]);
    let odd = shop.directory().join(std::ffi::OsStr::from_bytes(b"\xff"));
    fs::create_dir(&odd).unwrap();
    shop.run(["snapshot".as_ref(), "create".as_ref(), odd.as_os_str()]).fails(1, ["is not UTF-8", "try:"]);
    shop.run(["snapshot", "create", &shop.name(), "--expire", "soon"]).fails(2, ["is not a duration"]);
    assert!(shop.list().is_empty());
}

#[test]
fn two_creates_at_once_both_succeed() {
    let shop = Shop::new();
    let start = || {
        let mut command = shop.environment.command();
        command.args(["snapshot", "create", &shop.name(), "-q"]).stdout(Stdio::null()).spawn().unwrap()
    };
    let running: Vec<_> = (0..6).map(|_| start()).collect();
    for mut child in running {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(shop.list().len(), 6);
}

#[test]
fn a_rollback_that_was_killed_is_put_in_order_by_the_next_command_and_it_says_so() {
    let shop = Shop::new();
    shop.snapshot();
    shop.write("index", "two");
    // After the exchange, before it is written down: the fourth rename of a rollback.
    let mut command = std::process::Command::new("strace");
    let binary = shop.environment.command();
    command.envs(binary.get_envs().filter_map(|(key, value)| Some((key, value?))));
    command.args(["-qq", "-o", "/dev/null", "-e", "inject=rename:signal=KILL:when=4"]);
    command.arg(binary.get_program()).args(["rollback", "latest", "--yes"]);
    let killed = command.output().expect("strace is needed for this test");
    assert!(!killed.status.success(), "{killed:?}");
    let next = shop.run(["snapshot", "create", &shop.name()]).succeeds();
    assert!(next.stderr.contains("was cut short: it is"), "{next:?}");
    assert!(["one", "two"].contains(&shop.read("index").as_str()));
    shop.run(["snapshot", "create", &shop.name()]).succeeds();
}

#[test]
fn during_a_rollback_others_wait_for_its_end() {
    let shop = Shop::new();
    let id = shop.snapshot();
    shop.write("index", "two");
    let begun = shop.environment.path("begun");
    let probe = format!("touch {}; sleep 1", begun.display());
    let mut rollback = shop.environment.command();
    rollback.env("PATH", "/usr/bin:/bin").args(["rollback", &id, "--yes", "--probe", &probe]);
    let mut rollback = rollback.stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while !begun.exists() {
        assert!(Instant::now() < until, "it never probes");
        std::thread::sleep(Duration::from_millis(5));
    }
    let created = shop.run(["snapshot", "create", &shop.name()]).succeeds();
    assert!(created.stderr.contains("waiting: another snapback"), "{created:?}");
    assert!(rollback.try_wait().unwrap().is_some(), "it had ended before");
    shop.run(["snapshot", "delete", &id]).succeeds();
    assert_eq!(shop.read("index"), "one");
}

/// Ordinary users have neither the right to make btrfs's snapshots nor to see whether there are any.
#[test]
fn an_ordinary_user_is_told_what_is_missing_and_can_clone_what_is_theirs() {
    let shop = Shop::new();
    let own = shop.directory().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("page"), "one").unwrap();
    for path in [own.clone(), own.join("page")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let binary = shop.environment.path("snapback");
    // Not by ourselves: a process that another thread starts meanwhile would have it open for writing.
    assert!(
        std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_snapback")).arg(&binary).status().unwrap().success()
    );
    for path in [shop.environment.path(""), shop.environment.path("home")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let as_nobody = |arguments: &[&str]| -> environment::Run {
        let mut command = std::process::Command::new(&binary);
        command.env_clear().env("HOME", shop.environment.path("home")).uid(65534).gid(65534).current_dir("/");
        command.args(arguments).output().unwrap().into()
    };
    as_nobody(&["snapshot", "create", &shop.name()]).fails(1, ["CAP_SYS_ADMIN"]);
    let own = own.to_str().unwrap();
    let created = as_nobody(&["snapshot", "create", own]).succeeds();
    assert!(created.stderr.contains("not at one moment"), "{created:?}");
    fs::write(format!("{own}/page"), "two").unwrap();
    as_nobody(&["rollback", "latest", "--yes"]).succeeds();
    assert_eq!(shop.read("own/page"), "one");
    assert!(shop.environment.path("home/.local/state/snapback/snapshots").is_dir());
}
