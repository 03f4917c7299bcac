//! A file that others write to, held for the moment of a snapshot.

use std::fs;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use workload::quiesce::{Files, Held, How, Layout, Quiesced, files, hold};

use crate::busy::{Site, Writer, check};

fn held(site: &Site, layout: Layout) -> Held {
    hold(&[("app".to_owned(), site.login())], &|_: &Files| layout)
}

fn only(quiesced: Vec<Quiesced>) -> Quiesced {
    assert_eq!(quiesced.len(), 1);
    quiesced.into_iter().next().unwrap()
}

#[test]
fn writes_stand_still_while_the_files_are_copied_one_after_the_other() {
    for journal in ["wal", "delete"] {
        let site = Site::new(journal);
        let writer = Writer::start(&site.path("app.db"));
        let mut longest = 0;
        for round in 0..10 {
            let held = held(&site, Layout::Several);
            let copy = site.path(&format!("copy-{round}.db"));
            // Opening and closing the file here must not let the writer go on.
            fs::copy(site.path("app.db"), &copy).unwrap();
            std::thread::yield_now();
            for suffix in ["-wal", "-journal"] {
                let beside = |name: &str| site.path(&format!("{name}{suffix}"));
                if beside("app.db").exists() {
                    fs::copy(beside("app.db"), beside(&format!("copy-{round}.db"))).unwrap();
                }
            }
            let quiesced = only(held.release());
            assert_eq!((quiesced.name.as_str(), &quiesced.how), ("app", &How::WriteLock), "{quiesced:?}");
            assert!(quiesced.server.unwrap().starts_with("SQLite 3."));
            longest = longest.max(quiesced.stood_still_ms);
            check(&copy);
            writer.goes_on();
        }
        assert!(longest < 500, "{longest} ms");
    }
}

#[test]
fn a_transaction_that_goes_on_is_not_waited_for() {
    let site = Site::new("wal");
    let mut writer = Command::new("sqlite3").arg(site.path("app.db")).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"BEGIN IMMEDIATE; UPDATE other SET x = 'changed';\n").unwrap();
    // Until it holds the lock.
    let looker = Connection::open(site.path("app.db")).unwrap();
    while looker.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_ok() {
        std::thread::yield_now();
    }
    let quiesced = only(held(&site, Layout::OneMoment).release());
    let How::Skipped { why } = quiesced.how else { panic!("{quiesced:?}") };
    assert!(why.contains("another program has been writing to it"), "{why}");
    drop(stdin);
    writer.wait().unwrap();
}

#[test]
fn writes_go_on_after_the_limit_even_if_nobody_lets_go() {
    let site = Site::new("wal");
    let writer = Writer::start(&site.path("app.db"));
    let held = held(&site, Layout::OneMoment);
    writer.goes_on();
    let quiesced = only(held.release());
    assert!(matches!(&quiesced.how, How::Skipped { why } if why.contains("within 2 s")), "{quiesced:?}");
    assert!(quiesced.stood_still_ms >= 1000);
    // Dropped, it lets go at once.
    drop(self::held(&site, Layout::OneMoment));
    writer.goes_on();
}

#[test]
fn a_file_outside_of_the_snapshot_or_missing_is_skipped() {
    let site = Site::new("wal");
    std::os::unix::fs::symlink("app.db", site.path("link.db")).unwrap();
    let found = files(&crate::busy::login(&site.path("link.db"))).unwrap();
    assert_eq!((found.directory, found.others.len()), (site.path("app.db").canonicalize().unwrap(), 0));
    let quiesced = only(held(&site, Layout::Outside).release());
    assert!(matches!(&quiesced.how, How::Skipped { why } if why.contains("not in the snapshot")), "{quiesced:?}");
    fs::remove_file(site.path("app.db")).unwrap();
    let quiesced = only(held(&site, Layout::OneMoment).release());
    assert!(matches!(&quiesced.how, How::Skipped { why } if why.contains("no such file")), "{quiesced:?}");
    assert!(!site.path("app.db").exists(), "it was made anew");
}
