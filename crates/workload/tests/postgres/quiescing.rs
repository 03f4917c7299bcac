//! A server that runs, brought to the moment of a snapshot.

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
