//! A server that runs, brought to the moment of a snapshot.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use workload::quiesce::{self, How, LIMIT, Layout, Quiesced};

use crate::login;
use crate::server::MariaDb;

fn hold(server: &MariaDb) -> quiesce::Held {
    quiesce::hold(&[("bank".to_owned(), login(server, "bank"))], &|_| Layout::OneMoment)
}

fn only(quiesced: Vec<Quiesced>) -> Quiesced {
    <[Quiesced; 1]>::try_from(quiesced).unwrap().into_iter().next().unwrap()
}

fn transfers(server: &MariaDb) -> u64 {
    server.sql("select count(*) from bank.transfer").parse().unwrap()
}

#[test]
fn while_it_is_held_nothing_is_written_and_then_all_goes_on() {
    let server = MariaDb::start();
    server.bank();
    let load = server.load(4);
    let held = hold(&server);
    let before = (transfers(&server), server.sql("select count(*) from bank.note"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(before, (transfers(&server), server.sql("select count(*) from bank.note")));
    let done = only(held.release());
    assert_eq!(done.how, How::BackupStage);
    assert!(done.server.unwrap().starts_with("MariaDB 10."));
    assert!((100..2000).contains(&done.stood_still_ms), "{}", done.stood_still_ms);
    let deadline = Instant::now() + Duration::from_secs(10);
    while transfers(&server) < before.0 + 20 {
        assert!(Instant::now() < deadline, "writes do not go on");
    }
    drop(load);
}

#[test]
fn a_snapshot_that_takes_too_long_finds_writes_going_on() {
    let server = MariaDb::start();
    server.bank();
    let load = server.load(1);
    let began = Instant::now();
    let held = hold(&server);
    let before = transfers(&server);
    while transfers(&server) == before {
        assert!(began.elapsed() < LIMIT * 5, "nobody lets go");
    }
    let done = only(held.release());
    assert!(matches!(&done.how, How::Skipped { why } if why.contains("within 2 s")), "{done:?}");
    drop(load);
}

#[test]
fn a_statement_that_writes_for_long_is_not_waited_for() {
    let server = MariaDb::start();
    server.bank();
    let mut long = server.client();
    let mut long = long.args(["-e", "insert into bank.note select null, sleep(30)"]).spawn().unwrap();
    let running = "select count(*) from information_schema.processlist where info like 'insert%' and time > 0";
    while server.sql(running) == "0" {}
    let held = hold(&server);
    let others = Instant::now();
    server.sql("insert into bank.transfer values (null, 1, now(6)); create table bank.other (x int)");
    let others = others.elapsed();
    let done = only(held.release());
    let How::Skipped { why } = &done.how else { panic!("{done:?}") };
    assert!(why.contains("BACKUP STAGE") && why.contains("running for"), "{why}");
    assert!(others < Duration::from_secs(5), "{others:?}");
    let _ = long.kill();
    let _ = long.wait();
}

#[test]
fn files_on_several_volumes_or_elsewhere_are_skipped_and_a_server_that_is_down_too() {
    let mut server = MariaDb::start();
    for (layout, expected) in [(Layout::Several, "several volumes"), (Layout::Outside, "not in the snapshot")] {
        let done = only(quiesce::hold(&[("a".to_owned(), login(&server, ""))], &|_| layout).release());
        assert!(matches!(&done.how, How::Skipped { why } if why.contains(expected)), "{done:?}");
    }
    server.stop();
    let done = only(quiesce::hold(&[("a".to_owned(), login(&server, ""))], &|_| Layout::OneMoment).release());
    assert!(matches!(&done.how, How::Skipped { why } if why.contains("cannot be reached")), "{done:?}");
}

#[test]
fn a_server_tells_where_its_files_are() {
    let outside = tempfile::tempdir().unwrap();
    crate::server::own(outside.path());
    let log = outside.path().to_str().unwrap();
    let server = MariaDb::start_in(None, &[&format!("--log-bin={log}/bin"), "--server-id=1"]);
    let far = server.directory("far");
    server.sql(&format!(
        "create database a; create table a.t (x int) engine = innodb data directory = '{}'",
        far.display()
    ));
    let files = quiesce::files(&login(&server, "")).unwrap();
    assert_eq!(files.directory, server.data());
    let mut others = [far.join("a/t.ibd"), outside.path().to_owned()];
    others.sort();
    assert_eq!(files.others, others);
    assert!(files.server.starts_with("MariaDB 1"), "{}", files.server);
}

/// The process that holds, so that it can be killed or stopped.
fn holder(server: &MariaDb) -> std::process::Child {
    // This very program, as a test that holds until it is ended.
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "quiescing::holds_until_it_is_ended", "--nocapture"])
        .env("SNAPBACK_TEST_HOLDS", server.url("bank"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[expect(clippy::disallowed_methods, reason = "told by the test that starts it")]
fn holds_until_it_is_ended() {
    let Ok(url) = std::env::var("SNAPBACK_TEST_HOLDS") else { return };
    let login = workload::address::Login::new(workload::address::Address::parse(&url).unwrap());
    let _held = quiesce::hold(&[("bank".to_owned(), login)], &|_| Layout::OneMoment);
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn killed_or_stopped_nothing_stays_held() {
    let server = MariaDb::start();
    server.bank();
    let locks = "select count(*) from information_schema.processlist where time_ms > 0 and id <> connection_id() and command = 'Sleep'";
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::STOP] {
        let mut holder = holder(&server);
        let write = "set statement max_statement_time = 0.05 for insert into bank.note values (null, 'x')";
        let deadline = Instant::now() + Duration::from_secs(20);
        while server.sql(locks) == "0" || server.try_sql(write).is_ok() {
            assert!(Instant::now() < deadline, "nothing is held");
        }
        let pid = rustix::process::Pid::from_child(&holder);
        rustix::process::kill_process(pid, signal).unwrap();
        let began = Instant::now();
        server.sql("insert into bank.transfer values (null, 1, now(6)); insert into bank.note values (null, 'y')");
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(8), "{waited:?}");
        let _ = holder.kill();
        let _ = holder.wait();
    }
}
