//! A guard around commands that succeed, fail, hang or lose their terminal, on a real btrfs.
#![allow(missing_docs)]

mod environment;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use environment::Run;
use environment::btrfs::Shop;
use environment::terminal::Terminal;
use rustix::process::{Pid, Signal, kill_process};

/// A guard that is begun, with whatever its user gave before the command.
fn guard(shop: &Shop, options: &[&str], script: &str) -> Command {
    let mut command = shop.environment.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SHOP", shop.directory());
    command.args(["guard", &shop.name()]).args(options).args(["--", "sh", "-c", script]);
    command
}

fn run(shop: &Shop, options: &[&str], script: &str) -> Run {
    guard(shop, options, script).output().unwrap().into()
}

const BREAKS: &str = "echo broken > $SHOP/index";

/// What `guard --status` has of the last guard.
fn status(shop: &Shop) -> serde_json::Value {
    shop.run(["guard", "--status", "--json"]).succeeds().json().as_array().unwrap().last().cloned().unwrap_or_default()
}

/// Waits until something holds.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill(pid: i64, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// A guard in the background, without a terminal; ended with the test.
struct Background(Child);

impl Background {
    fn start(mut command: Command) -> Background {
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// As `kill -9` does; its children go on.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_that_succeeds_leaves_its_change_and_a_snapshot_for_the_grace() {
    let shop = Shop::new();
    let run = run(&shop, &["--grace", "30m", "--check", "grep -q better $SHOP/index"], "echo better > $SHOP/index")
        .succeeds();
    assert!(run.stderr.contains("passed") && run.stderr.contains("goes in 30 min"), "{run:?}");
    assert_eq!(shop.read("index"), "better\n");
    let list = shop.list();
    assert_eq!((list[0]["purpose"].as_str(), list[0]["held"].as_bool()), (Some("guard"), Some(false)));
    assert!(list[0]["expires"].is_string() && list[0]["note"].as_str().unwrap().contains("sh -c"));
}

#[test]
fn a_command_that_fails_is_rolled_back_and_its_exit_code_is_ours() {
    let shop = Shop::new();
    let run = run(&shop, &["--yes"], "echo broken > $SHOP/index; echo said; exit 7").fails(7, ["is back as it was"]);
    assert_eq!(run.stdout, "said\n", "the command's own output");
    assert_eq!(shop.read("index"), "one");
    shop.run(["rollback", "--undo", "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "broken\n", "the state left behind was kept");
}

#[test]
fn a_signal_that_ends_the_command_is_told_as_shells_do() {
    let shop = Shop::new();
    run(&shop, &["--yes"], "kill -TERM $$").fails(143, []);
    let command = shop.environment.command().args(["guard", &shop.name(), "--", "/nowhere/nothing"]).output().unwrap();
    Run::from(command).fails(127, ["cannot run /nowhere/nothing"]);
    let guarded = shop.list().iter().filter(|snapshot| snapshot["purpose"] == "guard").count();
    assert_eq!(guarded, 1, "what never ran needs no snapshot");
}

#[test]
fn a_check_that_fails_or_hangs_rolls_back() {
    let shop = Shop::new();
    run(&shop, &["--yes", "--check", "grep -q one $SHOP/index", "--check-limit", "1s"], BREAKS)
        .fails(1, ["failed with 1", "is back"]);
    assert_eq!(shop.read("index"), "one");
    run(&shop, &["--yes", "--check", "sleep 60", "--check-limit", "1s"], BREAKS).fails(1, ["did not end", "is back"]);
    assert_eq!(shop.read("index"), "one");
}

#[test]
fn a_check_may_need_a_while() {
    let shop = Shop::new();
    let check = "test -e $SHOP/seen || { touch $SHOP/seen; false; }";
    run(&shop, &["--yes", "--check", check], BREAKS).succeeds();
    assert_eq!(shop.read("index"), "broken\n");
}

#[test]
fn with_nobody_to_ask_nothing_is_rolled_back_and_the_way_is_told() {
    let shop = Shop::new();
    let run = run(&shop, &[], &format!("{BREAKS}; exit 3")).fails(3, ["stays as it is now", "snapback rollback"]);
    assert_eq!(shop.read("index"), "broken\n");
    let id = shop.list()[0]["id"].as_str().unwrap().to_owned();
    assert!(run.stderr.contains(&id));
    shop.run(["rollback", &id]).fails(2, ["no terminal to ask on", "try:", "--yes"]);
    shop.run(["rollback", &id, "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "one");
}

#[test]
fn at_a_terminal_it_asks() {
    let shop = Shop::new();
    for (answer, then, kept) in [("n\n", "stays as it is now", "broken\n"), ("y\n", "is back as it was", "one")] {
        shop.write("index", "one");
        let mut terminal = Terminal::run(&guard(&shop, &[], &format!("{BREAKS}; false")));
        terminal.shows("[y/N]");
        terminal.types(answer);
        terminal.shows(then);
        assert_eq!(terminal.ends(), 1);
        assert_eq!(shop.read("index"), kept);
    }
}

#[test]
fn the_command_has_the_terminal_and_gets_ctrl_c_and_the_guard_survives_it() {
    let shop = Shop::new();
    let script = "test -t 0 && test -t 1 || exit 9; read line; echo got $line; \
        trap 'echo caught; exit 5' INT; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut terminal = Terminal::run(&guard(&shop, &["--yes"], script));
    terminal.types("bread\n");
    terminal.shows("got bread");
    terminal.shows("ready");
    terminal.resize(57);
    terminal.shows("24 57");
    terminal.types("\x03");
    terminal.shows("caught");
    terminal.shows("is back as it was");
    assert_eq!(terminal.ends(), 5);
}

#[test]
fn ctrl_z_stops_both_and_the_shell_can_go_on_with_them() {
    let shop = Shop::new();
    let guard = guard(&shop, &[], "echo begun; read line; echo got $line");
    let mut shell = Command::new("bash");
    shell.envs(guard.get_envs().filter_map(|(key, value)| Some((key, value?))));
    // With job control the guard is a job, in a group of its own in the foreground.
    shell.args(["-c", "set -m; \"$@\"; echo stopped $?; fg >/dev/null; echo ended $?", "shell"]);
    shell.arg(guard.get_program()).args(guard.get_args());
    let mut terminal = Terminal::run(&shell);
    terminal.shows("begun");
    terminal.types("\x1a");
    terminal.shows("stopped 148");
    terminal.types("butter\n");
    terminal.shows("got butter");
    terminal.shows("ended 0");
    assert_eq!(terminal.ends(), 0);
}

#[test]
fn a_signal_to_the_guard_alone_reaches_the_command() {
    let shop = Shop::new();
    let script = "trap 'echo caught > $SHOP/caught; exit 4' TERM; touch $SHOP/ready; while :; do sleep 0.05; done";
    let mut background = Background::start(guard(&shop, &[], script));
    until("the command runs", || shop.directory().join("ready").exists());
    kill(background.0.id().into(), Signal::TERM);
    assert_eq!(background.0.wait().unwrap().code(), Some(4));
    assert_eq!(shop.read("caught"), "caught\n");
}

#[test]
fn confirmed_in_time_it_stays() {
    let shop = Shop::new();
    let mut background = Background::start(guard(&shop, &["--confirm", "1m"], BREAKS));
    until("it waits", || status(&shop)["phase"]["is"] == "waiting");
    let left = status(&shop)["remaining_secs"].as_u64().unwrap();
    assert!((50..=60).contains(&left), "{left}");
    shop.run(["snapshot", "delete", "latest"]).fails(1, ["is held"]);
    shop.run(["confirm"]).succeeds();
    assert_eq!(background.0.wait().unwrap().code(), Some(0));
    assert_eq!(shop.read("index"), "broken\n");
    let watchdog = status(&shop)["watchdog"]["pid"].as_i64().unwrap();
    until("the watchdog ends", || !std::path::Path::new(&format!("/proc/{watchdog}")).exists());
    assert_eq!(shop.list()[0]["held"], false, "it expires after the grace");
}

#[test]
fn unconfirmed_it_goes_back_and_a_late_confirmation_is_told_so() {
    let shop = Shop::new();
    run(&shop, &["--confirm", "1s"], BREAKS).fails(1, ["Reachable?", "is back as it was"]);
    assert_eq!(shop.read("index"), "one");
    shop.run(["confirm"]).fails(1, ["too late", "try: `snapback rollback"]);
}

#[test]
fn a_guard_that_is_killed_while_the_command_runs_goes_back_unless_confirmed() {
    let shop = Shop::new();
    let script = format!("{BREAKS}; exec sleep 30");
    let background = Background::start(guard(&shop, &["--confirm", "1s"], &script));
    until("the command runs", || shop.read("index") == "broken\n");
    background.kill();
    until("it went back", || shop.read("index") == "one");
    until("it is written down", || status(&shop)["phase"]["outcome"]["outcome"] == "rolled-back");
}

#[test]
fn a_guard_that_is_killed_while_it_waits_goes_back_too() {
    let shop = Shop::new();
    let background = Background::start(guard(&shop, &["--confirm", "2s"], BREAKS));
    until("it waits", || status(&shop)["phase"]["is"] == "waiting");
    background.kill();
    assert_eq!(shop.read("index"), "broken\n");
    until("it went back", || shop.read("index") == "one");
}

#[test]
fn when_the_watchdog_is_killed_the_guard_keeps_to_the_deadline() {
    let shop = Shop::new();
    let mut background = Background::start(guard(&shop, &["--confirm", "2s"], BREAKS));
    until("it waits", || status(&shop)["phase"]["is"] == "waiting");
    kill(status(&shop)["watchdog"]["pid"].as_i64().unwrap(), Signal::KILL);
    shop.run(["guard", "--status"]).succeeds();
    assert_eq!(background.0.wait().unwrap().code(), Some(1));
    assert_eq!(shop.read("index"), "one");
}

#[test]
fn a_connection_that_breaks_goes_back_whether_the_command_runs_or_has_ended() {
    for script in [format!("{BREAKS}; sleep 30"), BREAKS.to_owned()] {
        let shop = Shop::new();
        let mut terminal = Terminal::run(&guard(&shop, &["--confirm", "2s"], &script));
        until("it is broken", || shop.read("index") == "broken\n");
        terminal.hang_up();
        until("it went back", || shop.read("index") == "one");
    }
}

#[test]
fn a_command_that_hangs_is_rolled_back_at_its_limit() {
    let shop = Shop::new();
    let background =
        Background::start(guard(&shop, &["--confirm", "1s", "--limit", "1s"], &format!("{BREAKS}; exec sleep 30")));
    until("the command runs", || shop.read("index") == "broken\n");
    until("it went back", || shop.read("index") == "one");
    until("it is written down", || status(&shop)["phase"]["outcome"]["outcome"] == "rolled-back");
    background.kill();
}

/// As after a reboot: whoever ran is gone, and what is written down is of another boot.
fn reboot(shop: &Shop, background: Background) -> String {
    let before = status(shop);
    background.kill();
    kill(before["watchdog"]["pid"].as_i64().unwrap(), Signal::KILL);
    let id = before["id"].as_str().unwrap().to_owned();
    shop.edit("guard", &id, |guard| {
        for of in ["process", "watchdog"] {
            guard[of]["boot"] = "another".into();
        }
        guard["confirm"]["deadline"]["boot"] = "another".into();
    });
    id
}

#[test]
fn after_a_reboot_the_time_goes_on_and_then_it_goes_back() {
    let shop = Shop::new();
    let background = Background::start(guard(&shop, &["--confirm", "4s"], BREAKS));
    until("it waits", || status(&shop)["phase"]["is"] == "waiting");
    let id = reboot(&shop, background);
    // The machine is up for longer than the time to confirm: the tests' clock has not gone back.
    shop.edit("guard", &id, |guard| guard["confirm"]["time_secs"] = (1_u64 << 40).into());
    let begun = Instant::now();
    let resumed = shop.run(["guard", "--resume"]).succeeds();
    assert!(begun.elapsed() > Duration::from_secs(1), "there was time left");
    assert!(resumed.stderr.contains("rolled back"), "{resumed:?}");
    assert_eq!(shop.read("index"), "one");
}

#[test]
fn a_reboot_in_the_midst_of_the_command_goes_back_too() {
    let shop = Shop::new();
    let options = ["--confirm", "1s", "--limit", "1h"];
    let background = Background::start(guard(&shop, &options, &format!("{BREAKS}; exec sleep 30")));
    until("the command runs", || shop.read("index") == "broken\n");
    reboot(&shop, background);
    shop.run(["guard", "--resume"]).succeeds();
    assert_eq!(shop.read("index"), "one");
}

#[test]
fn after_a_reboot_there_is_still_time_to_confirm() {
    let shop = Shop::new();
    let background = Background::start(guard(&shop, &["--confirm", "10m"], BREAKS));
    until("it waits", || status(&shop)["phase"]["is"] == "waiting");
    let id = reboot(&shop, background);
    shop.edit("guard", &id, |guard| guard["confirm"]["time_secs"] = (1_u64 << 40).into());
    assert!(shop.run(["guard", "--status"]).succeeds().stderr.contains("nobody watches"));
    let mut resume = shop.environment.command();
    let mut resumed = Background::start({
        resume.args(["guard", "--resume"]);
        resume
    });
    until("it is watched", || status(&shop)["watched"] == true);
    shop.run(["confirm", &id[..5]]).succeeds();
    assert!(resumed.0.wait().unwrap().success());
    assert_eq!(shop.read("index"), "broken\n");
}

#[test]
fn a_guard_without_deadline_that_was_killed_keeps_its_snapshot_for_a_day() {
    let shop = Shop::new();
    let background = Background::start(guard(&shop, &[], &format!("{BREAKS}; exec sleep 3")));
    until("the command runs", || shop.read("index") == "broken\n");
    background.kill();
    shop.run(["guard", "--resume"]).succeeds();
    assert_eq!(status(&shop)["phase"]["outcome"]["outcome"], "kept");
    assert_eq!(shop.list()[0]["held"], false);
    assert!(shop.list()[0]["expires"].is_string());
    shop.run(["rollback", "latest", "--yes"]).succeeds();
    assert_eq!(shop.read("index"), "one");
}

#[test]
fn two_guards_around_the_same_directory_are_refused() {
    let shop = Shop::new();
    let mut background = Background::start(guard(&shop, &["--confirm", "1m"], "sleep 1"));
    until("the command runs", || status(&shop)["phase"]["is"] == "running");
    run(&shop, &[], "true").fails(1, ["is around", "already", "try: wait until its command has ended"]);
    shop.run(["confirm"]).fails(1, ["still runs", "try: confirm once it has ended"]);
    until("it waits", || status(&shop)["phase"]["is"] == "waiting");
    run(&shop, &[], "true").fails(1, ["is around", "try: `snapback confirm"]);
    shop.run(["confirm"]).succeeds();
    assert_eq!(background.0.wait().unwrap().code(), Some(0));
    run(&shop, &[], "true").succeeds();
}

#[test]
fn what_could_not_be_rolled_back_is_not_risked() {
    let shop = Shop::new();
    // What is known of snapshots would be rolled back, too.
    let mut inside = guard(&shop, &["--yes"], BREAKS);
    inside.env("SNAPBACK_STATE_DIRECTORY", shop.directory().join("state"));
    Run::from(inside.output().unwrap()).fails(1, ["a rollback would not be possible", "try:"]);
    assert_eq!(shop.read("index"), "one", "the command was not run");
    let snapshots = std::fs::read_dir(shop.directory().join("state/snapshots")).unwrap().count();
    assert_eq!(snapshots, 0, "and no snapshot is left");
}
