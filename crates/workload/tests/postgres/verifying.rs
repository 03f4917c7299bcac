//! Copies and dumps proven by a throw-away server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use workload::dump;
use workload::error::Error;
use workload::quiesce::{self, Beside, How, Layout};
use workload::verify::{self, Copy, Kind, Questions, Verified};

use crate::login;
use crate::server::{Postgres, own};

fn copied(from: &Path, to: &Path) {
    let status = Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to).status().unwrap();
    // A file that went while it was copied is none of the server's data.
    assert!(to.exists(), "cp: {status}");
}

/// What asks a copy, with a directory for the throw-away server that lives as long.
fn proven(directory: &Path, moved: &[(PathBuf, PathBuf)], beside: &[Beside], query: &str) -> Result<Verified, Error> {
    let work = work();
    let copy = Copy { kind: Kind::Postgres, directory, moved, beside };
    let (database, query) = (Some("bank".to_owned()), Some(query.to_owned()));
    let questions = Questions { database, query, work: work.path().to_owned(), ..Questions::default() };
    let verified = verify::data_directory(&copy, &questions);
    assert!(!work.path().join("sockets/.s.PGSQL.5432").exists(), "the server must be gone");
    verified
}

fn work() -> tempfile::TempDir {
    let work = tempfile::tempdir().unwrap();
    fs::set_permissions(work.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    work
}

/// pgbench's sums agree, whenever it is stopped.
const SUMS: &str = "select (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers) \
    and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)";

#[test]
fn a_copy_of_files_starts_and_is_checked_while_production_runs() {
    let mut server = Postgres::start();
    server.pgbench_tables("bank", 2);
    let load = server.load("bank", 4);
    drop(load);
    // As a snapshot has them: of one moment, with the process number of a server that runs.
    let lock = fs::read(server.data().join("postmaster.pid")).unwrap();
    server.stop();
    let copies = server.directory("copies");
    let copy = copies.join("data");
    copied(&server.data(), &copy);
    fs::write(copy.join("postmaster.pid"), lock).unwrap();
    fs::write(copy.join("postgresql.auto.conf"), "archive_mode = on\narchive_command = 'touch /tmp/x'\n").unwrap();
    server.run();

    let verified = proven(&copy, &[], &[], SUMS).unwrap();
    assert_eq!(verified.databases, ["bank", "postgres"]);
    assert_eq!(verified.answer.as_deref(), Some("t"));
    assert!(verified.checks[0].starts_with("amcheck of "), "{:?}", verified.checks);
    println!("started in {:?}, all of it took {:?}", verified.started_in, verified.took);

    let no = proven(&copy, &[], &[], "select count(*) from pgbench_accounts where aid < 0").unwrap_err().to_string();
    assert!(no.contains("bank answers \"0\""), "{no}");
    let wrong = proven(&copy, &[], &[], "select nothing from nowhere").unwrap_err().to_string();
    assert!(wrong.contains("nowhere"), "{wrong}");
    let live = proven(&server.data(), &[], &[], SUMS).unwrap_err();
    assert!(matches!(live, Error::Refused(_)), "{live}");
    assert_eq!(server.sql("bank", SUMS), "t");
}

#[test]
fn a_damaged_index_and_a_damaged_table_are_found() {
    let mut server = Postgres::start_in(None, &["-k"], "");
    server.pgbench_tables("bank", 1);
    for (relation, page) in [("pgbench_accounts_pkey", 7), ("pgbench_accounts", 100)] {
        let file = server.sql("bank", &format!("select pg_relation_filepath('{relation}')"));
        server.sql("bank", "checkpoint");
        server.stop();
        let copies = server.directory(&format!("copies-{relation}"));
        let copy = copies.join("data");
        copied(&server.data(), &copy);
        server.run();
        let path = copy.join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[page * 8192 + 4000..page * 8192 + 4400].fill(0x5A);
        fs::write(&path, bytes).unwrap();
        let error = proven(&copy, &[], &[], "select true").unwrap_err().to_string();
        assert!(error.contains("amcheck failed"), "{error}");
        fs::remove_file(copy.join("global/pg_control")).unwrap();
        let error = proven(&copy, &[], &[], "select true").unwrap_err().to_string();
        assert!(error.contains("start of a server"), "{error}");
    }
}

#[test]
fn copies_of_several_volumes_under_load_are_put_together_by_the_backups_label() {
    let outside = tempfile::tempdir().unwrap();
    own(outside.path());
    let log = outside.path().join("log");
    let server = Postgres::start_in(None, &["-X", log.to_str().unwrap()], "checkpoint_timeout = 30s");
    let fast = server.directory("fast");
    server.sql("postgres", &format!("create tablespace fast location '{}'", fast.display()));
    server.pgbench_tables("bank", 2);
    server.sql("bank", "alter table pgbench_accounts set tablespace fast");
    let load = server.load("bank", 4);

    let held = quiesce::hold(&[("bank".to_owned(), login(&server, "bank"))], &|files| {
        assert_eq!(files.others.len(), 2);
        Layout::Several
    });
    let copies = server.directory("copies");
    let moved = [(fast.clone(), copies.join("fast")), (log.clone(), copies.join("log"))];
    // Each is copied while it is written to, as the manual allows within a backup; the log comes last.
    copied(&fast, &moved[0].1);
    server.sql("bank", "select count(*) from pgbench_accounts");
    copied(&server.data(), &copies.join("data"));
    copied(&log, &moved[1].1);
    let quiesced = held.release().remove(0);
    drop(load);
    assert_eq!(quiesced.how, How::BackupMode);
    let files: Vec<_> = quiesced.beside.iter().map(|beside| beside.file.as_str()).collect();
    assert_eq!(files, ["backup_label", "tablespace_map"]);

    let copy = copies.join("data");
    let refused = proven(&copy, &moved[1..], &quiesced.beside, SUMS).unwrap_err().to_string();
    assert!(refused.contains("which is not in the copy"), "{refused}");
    let before = server.sql("bank", "select count(*) from pgbench_history");
    let verified = proven(&copy, &moved, &quiesced.beside, SUMS).unwrap();
    assert_eq!(verified.answer.as_deref(), Some("t"));
    assert_eq!(server.sql("bank", "select count(*) from pgbench_history"), before);
    assert_eq!(fs::read_link(copy.join("pg_wal")).unwrap(), moved[1].1);
}

#[test]
fn a_dump_is_loaded_into_an_empty_server_and_asked() {
    let server = Postgres::start();
    server.sql("postgres", "create role teller");
    server.pgbench_tables("bank", 1);
    server.sql("bank", "alter table pgbench_tellers owner to teller; grant select on pgbench_accounts to teller");
    let login = login(&server, "");
    let contents = dump::contents(&login, true).unwrap();
    let work = work();
    let query = Some("select count(*) from pgbench_accounts".to_owned());
    let database = Some("bank".to_owned());
    let questions = Questions { database, query, work: work.path().to_owned(), ..Questions::default() };
    let verified = verify::dump(&contents.parts, &mut |part| dump::open(&login, part), &questions).unwrap();
    assert_eq!(verified.answer.as_deref(), Some("100000"));
    assert!(verified.databases.contains(&"bank".to_owned()), "{:?}", verified.databases);
    println!("took {:?}", verified.took);
}
