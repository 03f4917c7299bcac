//! Copies of files, proven to be good.

use std::fs;
use std::io::{Cursor, Read as _, Write as _};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use workload::dump;
use workload::error::Error;
use workload::verify::{self, Copy, Kind, Questions, Verified};

use crate::busy::Site;

fn verified(site: &Site, name: &str, query: Option<&str>) -> Result<Verified, Error> {
    let path = site.path(name);
    let copy = Copy { kind: Kind::Sqlite, directory: &path, moved: &[], beside: &[] };
    let query = query.map(str::to_owned);
    verify::data_directory(&copy, &Questions { query, work: site.path("work"), ..Questions::default() })
}

#[test]
fn what_a_killed_program_left_is_recovered_in_the_copy_alone() {
    for journal in ["wal", "delete"] {
        let site = Site::new(journal);
        let mut writer = Command::new("sqlite3").arg(site.path("app.db")).stdin(Stdio::piped()).spawn().unwrap();
        // With so small a cache, changes reach the file before they are committed.
        let begun = "PRAGMA cache_size=2; BEGIN; UPDATE other SET x = 'half'; UPDATE accounts SET balance = 1;\n";
        writer.stdin.as_mut().unwrap().write_all(begun.as_bytes()).unwrap();
        let left = site.path(if journal == "wal" { "app.db-wal" } else { "app.db-journal" });
        while !fs::metadata(&left).is_ok_and(|file| file.len() > 1 << 20) {
            std::thread::yield_now();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let beside = left.file_name().unwrap().to_str().unwrap().replace("app.db", "copy.db");
        fs::copy(site.path("app.db"), site.path("copy.db")).unwrap();
        fs::copy(&left, site.path(&beside)).unwrap();
        let (file, log) = (fs::read(site.path("app.db")).unwrap(), fs::read(&left).unwrap());

        let query = "SELECT sum(balance) = 200000 AND (SELECT x FROM other) = 'kept' FROM accounts";
        let verified = verified(&site, "copy.db", Some(query)).unwrap();
        assert_eq!((verified.databases, verified.answer), (vec!["copy.db".to_owned()], Some("1".to_owned())));
        assert_eq!(verified.checks, ["integrity_check of 2 tables", "foreign_key_check", "the query"]);
        assert!(fs::read(site.path("app.db")).unwrap() == file && fs::read(&left).unwrap() == log);
    }
}

#[test]
fn what_is_damaged_or_does_not_agree_is_no_proof() {
    let site = Site::new("delete");
    let reason = |query: &str| verified(&site, "app.db", Some(query)).unwrap_err().to_string();
    for (query, expected) in [
        ("SELECT 0", "it gave \"0\""),
        ("SELECT x FROM other WHERE x = 'none'", "it gave nothing"),
        ("SELECT NULL", "it gave nothing"),
        ("SELECT * FROM none", "no such table: none"),
        ("DELETE FROM other", "readonly database"),
    ] {
        assert!(reason(query).contains(expected), "{query}: {}", reason(query));
    }
    let connection = Connection::open(site.path("app.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA foreign_keys=OFF; CREATE TABLE entries(account REFERENCES accounts(id));
             INSERT INTO entries VALUES (1), (0), (-1);",
        )
        .unwrap();
    assert_eq!(
        verified(&site, "app.db", None).unwrap().warnings,
        ["rows refer to others that are not there, in entries (2)"]
    );
    let mut bytes = fs::read(site.path("app.db")).unwrap();
    // A balance in the table that the index has otherwise.
    let pages = bytes.len() / 4096;
    bytes[(pages / 2) * 4096 + 2000..(pages / 2) * 4096 + 4000].fill(0);
    fs::write(site.path("app.db"), bytes).unwrap();
    let error = verified(&site, "app.db", None);
    assert!(error.is_err(), "{error:?}");
}

#[test]
fn a_dump_is_proven_where_there_is_room_for_work_and_nothing_stays() {
    let site = Site::new("wal");
    let part = dump::contents(&site.login(), false).unwrap().parts.remove(0);
    let mut bytes = Vec::new();
    dump::open(&site.login(), &part).unwrap().read_to_end(&mut bytes).unwrap();
    let work = site.path("work");
    fs::create_dir(&work).unwrap();
    let questions = Questions { query: Some("SELECT count(*) FROM accounts".into()), work, ..Questions::default() };
    let proven =
        verify::dump(std::slice::from_ref(&part), &mut |_| Ok(Box::new(Cursor::new(bytes.clone()))), &questions)
            .unwrap();
    assert_eq!((proven.databases, proven.answer.as_deref()), (vec!["app.db".to_owned()], Some("2000")));
    let cut = bytes[..bytes.len() / 2].to_vec();
    assert!(verify::dump(&[part], &mut |_| Ok(Box::new(Cursor::new(cut.clone()))), &questions).is_err());
    assert_eq!(fs::read_dir(site.path("work")).unwrap().count(), 0);
}
