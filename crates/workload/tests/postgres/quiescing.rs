//! A server that runs, brought to the moment of a snapshot.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use workload::quiesce::{self, How, Layout};

use crate::login;
use crate::server::Postgres;

#[test]
fn a_server_tells_where_its_files_are() {
    let outside = tempfile::tempdir().unwrap();
    crate::server::own(outside.path());
    let log = outside.path().join("log");
    let server = Postgres::start_in(None, &["-X", log.to_str().unwrap()], "");
    let fast = server.directory("fast");
    server.sql("postgres", &format!("create tablespace fast location '{}'", fast.display()));
    let files = quiesce::files(&login(&server, "")).unwrap();
    assert_eq!(files.directory, server.data());
    assert_eq!(files.others, [fast, log.clone()]);
    assert_eq!(files.log, Some(log));
    assert!(files.server.starts_with("PostgreSQL 1"), "{}", files.server);
}

#[test]
fn before_a_snapshot_of_one_moment_a_checkpoint_is_made() {
    let server = Postgres::start();
    let redo = || server.sql("postgres", "select redo_lsn from pg_control_checkpoint()");
    let before = redo();
    let databases = [("a".to_owned(), login(&server, "postgres")), ("b".to_owned(), login(&server, "template1"))];
    let held = quiesce::hold(&databases, &|_| Layout::OneMoment);
    assert_ne!(redo(), before);
    let quiesced = held.release();
    assert_eq!(quiesced.iter().map(|done| done.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(quiesced.iter().all(|done| done.how == How::Checkpoint && done.stood_still_ms == 0), "{quiesced:?}");
}

#[test]
fn under_load_writes_go_on_through_twenty_moments_in_a_row() {
    let server = Postgres::start();
    server.pgbench_tables("bank", 5);
    let databases = [("bank".to_owned(), login(&server, "bank"))];
    let quiet = server.load("bank", 4);
    std::thread::sleep(Duration::from_secs(1));
    let quiet = quiet.longest_stand_still();
    let load = server.load("bank", 4);
    let before: u64 = server.sql("bank", "select count(*) from pgbench_history").parse().unwrap();
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let held = quiesce::hold(&databases, &|_| Layout::OneMoment);
        longest = longest.max(began.elapsed());
        assert_eq!(held.release()[0].how, How::Checkpoint);
    }
    let after: u64 = server.sql("bank", "select count(*) from pgbench_history").parse().unwrap();
    assert!(after > before);
    let stood_still = load.longest_stand_still();
    println!(
        "writes stood still for {stood_still:?} at most, without any of ours for {quiet:?}; took {longest:?} at most"
    );
}

#[test]
fn a_checkpoint_that_takes_too_long_is_not_waited_for() {
    let server = Postgres::start();
    let checkpointer = server.sql("postgres", "select pid from pg_stat_activity where backend_type = 'checkpointer'");
    let checkpointer = Pid::from_raw(checkpointer.parse().unwrap()).unwrap();
    kill_process(checkpointer, Signal::STOP).unwrap();
    let held = quiesce::hold(&[("a".to_owned(), login(&server, "postgres"))], &|_| Layout::OneMoment);
    let quiesced = held.release();
    kill_process(checkpointer, Signal::CONT).unwrap();
    let How::Skipped { why } = &quiesced[0].how else { panic!("{quiesced:?}") };
    assert!(why.contains("a CHECKPOINT takes longer than 2 s"), "{why}");
    assert_eq!(server.sql("postgres", "select 1"), "1");
}

#[test]
fn what_cannot_be_quiesced_is_skipped_with_the_reason() {
    let mut server = Postgres::start();
    server.sql("postgres", "create role shop login");
    let port = server.listen("host all all 127.0.0.1/32 trust");
    let address = workload::address::Address::parse(&format!("postgres://shop@127.0.0.1:{port}/postgres")).unwrap();
    let ordinary = workload::address::Login::new(address);
    let databases =
        [("ordinary".to_owned(), ordinary), ("nowhere".to_owned(), login(&server, "").with_database("nowhere"))];
    let quiesced = quiesce::hold(&databases, &|_| Layout::OneMoment).release();
    let why = |at: usize| match &quiesced[at].how {
        How::Skipped { why } => why.clone(),
        other => panic!("{other:?}"),
    };
    assert!(why(0).contains("permission denied"), "{}", why(0));
    assert!(why(1).contains("has no database \"nowhere\""), "{}", why(1));
    let outside = quiesce::hold(&[("a".to_owned(), login(&server, ""))], &|_| Layout::Outside).release();
    assert!(matches!(&outside[0].how, How::Skipped { why } if why.contains("in the snapshot")), "{outside:?}");
}

/// Under this name this program starts itself with the address of a server, to hold it until it is killed.
const HOLDS: &str = "SNAPBACK_TEST_HOLDS";

#[test]
#[expect(clippy::disallowed_methods, reason = "whom it is told to hold")]
fn when_we_are_killed_the_server_lets_go_by_itself() {
    if let Ok(url) = std::env::var(HOLDS) {
        let login = workload::address::Login::new(workload::address::Address::parse(&url).unwrap());
        let _held = quiesce::hold(&[("a".to_owned(), login)], &|_| Layout::Several);
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let server = Postgres::start();
    let sessions =
        "select count(*) from pg_stat_activity where application_name = 'snapback' and query ~ 'backup_start'";
    let wait_for = |number: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.sql("postgres", sessions) != number {
            assert!(Instant::now() < deadline, "not {number} sessions");
        }
    };
    let name = "quiescing::when_we_are_killed_the_server_lets_go_by_itself";
    let mut holds = std::process::Command::new(std::env::current_exe().unwrap());
    let mut holds = holds.args(["--exact", name]).env(HOLDS, server.url("")).spawn().unwrap();
    wait_for("1");
    holds.kill().unwrap();
    holds.wait().unwrap();
    wait_for("0");
    assert!(server.log().contains("aborting backup due to backend exiting"), "{}", server.log());
}
