//! A database of accounts, and a program that moves money between them: whatever moment one looks at, the sum is the same.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tempfile::TempDir;
use workload::address::{Address, Login};

/// Each holds a page's worth, so that a transfer changes several pages.
pub(crate) const ACCOUNTS: u32 = 2000;
const BALANCE: u64 = 100;

/// A directory with a database `app.db`.
pub(crate) struct Site {
    directory: TempDir,
}

impl Site {
    pub(crate) fn new(journal: &str) -> Site {
        let directory = tempfile::tempdir().unwrap();
        let site = Site { directory };
        make(&site.path("app.db"), journal);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn login(&self) -> Login {
        login(&self.path("app.db"))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn login(path: &Path) -> Login {
    Login::new(Address::Sqlite(path.to_owned()))
}

fn make(path: &Path, journal: &str) {
    let connection = Connection::open(path).unwrap();
    let mode: String = connection.query_row(&format!("PRAGMA journal_mode={journal}"), [], |row| row.get(0)).unwrap();
    assert_eq!(mode, journal);
    connection
        .execute_batch(&format!(
            "BEGIN; CREATE TABLE accounts(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < {ACCOUNTS})
             INSERT INTO accounts SELECT i, {BALANCE}, hex(randomblob(800)) FROM n;
             CREATE INDEX balances ON accounts(balance);
             CREATE TABLE other(x); INSERT INTO other VALUES ('kept');
             CREATE TRIGGER positive BEFORE UPDATE ON accounts WHEN new.balance < 0
             BEGIN SELECT raise(ABORT, 'negative'); END; COMMIT;"
        ))
        .unwrap();
}

/// Opens it, and looks whether it is whole: its integrity, the sum, and how many transfers it has seen.
pub(crate) fn check(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let ask = |query: &str| connection.query_row(query, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(ask("PRAGMA integrity_check"), "ok");
    assert_eq!(ask("SELECT CAST(sum(balance) AS TEXT) FROM accounts"), (u64::from(ACCOUNTS) * BALANCE).to_string());
}

/// Another program that writes until it is dropped.
pub(crate) struct Writer {
    child: Child,
    stop: Arc<AtomicBool>,
    /// Transactions that it has ended.
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(path: &Path) -> Writer {
        let mut child = Command::new("sqlite3")
            .args(["-batch", "-bail"])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sqlite3(1) is installed");
        let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (stop.clone(), done.clone());
        let feed = std::thread::spawn(move || {
            let _ = stdin.write_all(b".timeout 20000\nPRAGMA synchronous=off;\nPRAGMA wal_autocheckpoint=50;\n");
            while !stopped.load(Ordering::Relaxed) {
                let statements = format!(
                    "BEGIN IMMEDIATE; CREATE TEMP TABLE IF NOT EXISTS pick(a, b);
                     DELETE FROM pick; INSERT INTO pick VALUES (abs(random()) % {ACCOUNTS} + 1, abs(random()) % {ACCOUNTS} + 1);
                     UPDATE accounts SET balance = balance - 1, note = hex(randomblob(800)) WHERE id = (SELECT a FROM pick);
                     UPDATE accounts SET balance = balance + 1 WHERE id = (SELECT b FROM pick);
                     COMMIT; SELECT 'done';\n"
                );
                if stdin.write_all(statements.as_bytes()).is_err() {
                    break;
                }
            }
        });
        let read = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line == "done" {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let writer = Writer { child, stop, done, threads: vec![feed, read] };
        writer.goes_on();
        writer
    }

    /// Waits until it has written so much more that it goes on for certain.
    pub(crate) fn goes_on(&self) {
        let until = self.done.load(Ordering::Relaxed) + 50;
        while self.done.load(Ordering::Relaxed) < until {
            assert!(!self.threads[1].is_finished(), "the writer ended");
            std::thread::yield_now();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
