//! Ctrl-C leaves no lock, and a repository in which the next run goes on.
#![allow(missing_docs)]

mod environment;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use environment::{Environment, Run};
use rustix::process::{Pid, Signal, kill_process};

/// A backup of a pipe that nobody writes to any more: it would run for ever.
fn endless(environment: &Environment) -> (Child, std::process::ChildStdin) {
    endless_by(environment, environment.command())
}

fn endless_by(environment: &Environment, mut command: Command) -> (Child, std::process::ChildStdin) {
    let mut child = command
        .args(["backup", "--stdin-name", "x"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.take().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while environment.stored("locks").is_empty() {
        assert!(Instant::now() < until, "it never took its lock");
        std::thread::sleep(Duration::from_millis(5));
    }
    (child, stdin)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_first_signal_ends_the_run_in_order() {
    for (sent, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let environment = Environment::with_backup();
        let (child, mut stdin) = endless(&environment);
        signal(&child, sent);
        // The read that waits returns when something comes.
        std::io::Write::write_all(&mut stdin, b"more").unwrap();
        let run = Run::from(child.wait_with_output().unwrap()).fails(code, ["interrupted", "the next run goes on"]);
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        assert!(environment.stored("locks").is_empty(), "a lock is left");
        assert_eq!(environment.stored("snapshots").len(), 1, "an interrupted run is no backup");
        environment.run(["backup", "files"]).succeeds();
    }
}

#[test]
fn a_second_signal_ends_it_at_once_and_its_lock_is_known_to_be_stale() {
    let environment = Environment::with_backup();
    let (child, _stdin) = endless(&environment);
    signal(&child, Signal::INT);
    std::thread::sleep(Duration::from_millis(100));
    signal(&child, Signal::INT);
    Run::from(child.wait_with_output().unwrap()).fails(130, []);
    environment.run(["forget", "--keep-last", "1"]).succeeds();
    assert!(environment.stored("locks").is_empty(), "the stale lock was tidied away");
}

#[test]
fn a_run_that_was_killed_is_gone_on_with() {
    let environment = Environment::with_backup();
    let (mut child, _stdin) = endless(&environment);
    child.kill().unwrap();
    child.wait().unwrap();
    environment.run(["backup", "files"]).succeeds();
    environment.run(["restore", "latest", "--to", "out", "--verify"]).succeeds();
}

#[test]
fn a_run_whose_starter_ignores_the_end_of_the_terminal_goes_on() {
    let environment = Environment::with_backup();
    let plain = environment.command();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(plain.get_current_dir().unwrap());
    let (child, mut stdin) = endless_by(&environment, command);
    signal(&child, Signal::HUP);
    std::io::Write::write_all(&mut stdin, b"more").unwrap();
    drop(stdin);
    Run::from(child.wait_with_output().unwrap()).succeeds();
    assert_eq!(environment.stored("snapshots").len(), 2);
}
