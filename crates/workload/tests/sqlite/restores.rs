//! Files brought back in the place of others.

use std::fs;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use rusqlite::Connection;
use workload::dump::{self, Part};
use workload::error::Error;
use workload::restore::{Options, Restored, restore};

use crate::busy::{Site, Writer, check};

fn options() -> Options {
    Options { mark: "20261123T130000".to_owned(), ..Options::default() }
}

/// What a dump of the site's database gives now.
fn dumped(site: &Site) -> (Part, Vec<u8>) {
    let part = dump::contents(&site.login(), false).unwrap().parts.remove(0);
    let mut bytes = Vec::new();
    dump::open(&site.login(), &part).unwrap().read_to_end(&mut bytes).unwrap();
    (part, bytes)
}

fn bring_back(site: &Site, dumped: &(Part, Vec<u8>), options: &Options) -> Result<Restored, Error> {
    restore(&site.login(), &dumped.0, &mut Cursor::new(&dumped.1), options)
}

fn other(site: &Site, name: &str) -> String {
    let connection = Connection::open(site.path(name)).unwrap();
    connection.query_row("SELECT group_concat(x) FROM other", [], |row| row.get(0)).unwrap()
}

fn change(site: &Site, to: &str) -> Connection {
    let connection = Connection::open(site.path("app.db")).unwrap();
    connection.execute_batch(&format!("UPDATE other SET x = '{to}'")).unwrap();
    connection
}

#[test]
fn what_was_there_is_kept_with_its_log_and_owner_and_mode_come_back() {
    let site = Site::new("wal");
    let dump = dumped(&site);
    fs::set_permissions(site.path("app.db"), fs::Permissions::from_mode(0o640)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(site.path("app.db"), Some(33), Some(33)).unwrap();
    }
    let before = fs::metadata(site.path("app.db")).unwrap();
    // A program that is killed leaves a log that the file needs.
    let mut writer = std::process::Command::new("sqlite3");
    let mut writer = writer.arg(site.path("app.db")).stdin(std::process::Stdio::piped()).spawn().unwrap();
    io::Write::write_all(writer.stdin.as_mut().unwrap(), b".timeout 20000\nUPDATE other SET x = 'later';\n").unwrap();
    // Not by looking into it: whoever closes it meanwhile locks it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !fs::metadata(site.path("app.db-wal")).is_ok_and(|log| log.len() > 4096) {
        assert!(std::time::Instant::now() < deadline, "the writer does not write");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(fs::metadata(site.path("app.db-wal")).unwrap().len() > 0);

    let restored = bring_back(&site, &dump, &options()).unwrap();
    let kept = "app.db.before-20261123T130000";
    assert_eq!(restored.database, Some(site.path("app.db").canonicalize().unwrap().to_string_lossy().into_owned()));
    assert!(restored.kept.unwrap().ends_with(kept) && restored.warnings.is_empty());
    assert_eq!(site.names(), ["app.db", kept]);
    let after = fs::metadata(site.path("app.db")).unwrap();
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    check(&site.path("app.db"));
    assert_eq!((other(&site, "app.db"), other(&site, kept)), ("kept".to_owned(), "later".to_owned()));
}

#[test]
fn a_log_of_another_file_is_not_played_into_the_new_one() {
    let site = Site::new("wal");
    let dump = dumped(&site);
    // The file is gone or no database any more, its log is not.
    for left in [None, Some("no database")] {
        change(&site, "later");
        let log = site.path("app.db-wal");
        fs::write(&log, "a log").unwrap();
        fs::write(site.path("app.db-journal"), "a journal").unwrap();
        fs::remove_file(site.path("app.db")).unwrap();
        if let Some(left) = left {
            fs::write(site.path("app.db"), left.repeat(1000)).unwrap();
        }
        let mark = format!("m{}", left.is_some());
        let restored = bring_back(&site, &dump, &Options { mark: mark.clone(), ..options() }).unwrap();
        assert!(!log.exists() && !site.path("app.db-journal").exists());
        assert_eq!(fs::read(site.path(&format!("app.db.before-{mark}-wal"))).unwrap(), b"a log");
        assert!(restored.kept.is_some());
        check(&site.path("app.db"));
        assert_eq!(other(&site, "app.db"), "kept");
    }
}

#[test]
fn a_file_that_a_program_has_open_is_left_alone_unless_asked() {
    let site = Site::new("wal");
    let dump = dumped(&site);
    let writer = Writer::start(&site.path("app.db"));
    let error = bring_back(&site, &dump, &options()).unwrap_err().to_string();
    assert!(error.contains("is open in sqlite3 (") && error.contains("stop that first"), "{error}");
    writer.goes_on();
    check(&site.path("app.db"));
    // Asked for, the program goes on with what is kept.
    let restored = loop {
        match bring_back(&site, &dump, &Options { even_if_open: true, ..options() }) {
            // Between two transactions there is little time.
            Err(Error::Refused(why)) if why.contains("in use") => {}
            restored => break restored.unwrap(),
        }
    };
    assert!(restored.warnings[0].contains("until it is started anew"), "{restored:?}");
    writer.goes_on();
    let unchanged = fs::read(site.path("app.db")).unwrap();
    assert!(unchanged == dump.1, "the new file was written to");
    drop(writer);
    check(&site.path("app.db"));
    check(&site.path("app.db.before-20261123T130000"));
}

#[test]
fn under_another_name_the_old_one_stays_and_a_taken_name_is_refused() {
    let site = Site::new("delete");
    let dump = dumped(&site);
    drop(change(&site, "later"));
    let writer = Writer::start(&site.path("app.db"));
    let named = |name: &str| Options { name: Some(name.to_owned()), ..options() };
    let restored = bring_back(&site, &dump, &named("old.db")).unwrap();
    assert_eq!(restored.kept, None);
    drop(writer);
    assert_eq!((other(&site, "app.db"), other(&site, "old.db")), ("later".to_owned(), "kept".to_owned()));
    assert!(bring_back(&site, &dump, &named("old.db")).unwrap_err().to_string().contains("is there already"));
    assert!(bring_back(&site, &dump, &named("sub/old.db")).is_err());
}

#[test]
fn single_tables_come_with_what_belongs_to_them_and_nothing_else() {
    let site = Site::new("wal");
    let dump = dumped(&site);
    let tables = |names: &[&str], name: Option<&str>| Options {
        tables: names.iter().map(|name| (*name).to_owned()).collect(),
        name: name.map(str::to_owned),
        ..options()
    };
    bring_back(&site, &dump, &tables(&["Accounts"], Some("accounts.db"))).unwrap();
    let connection = Connection::open(site.path("accounts.db")).unwrap();
    let names = "SELECT group_concat(name, ' ') FROM (SELECT name FROM sqlite_schema ORDER BY name)";
    let names: String = connection.query_row(names, [], |row| row.get(0)).unwrap();
    assert_eq!(names, "accounts balances positive");
    check(&site.path("accounts.db"));
    let error = bring_back(&site, &dump, &tables(&["acounts"], Some("x.db"))).unwrap_err().to_string();
    assert!(error.contains("no table \"acounts\"; there are accounts, other"), "{error}");
    assert!(bring_back(&site, &dump, &tables(&["accounts"], None)).is_err());
    assert!(!site.names().iter().any(|name| name.contains("restoring")), "{:?}", site.names());
}

/// A stream that breaks after some bytes.
struct Broken<'a>(&'a [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into)? {
            0 => Err(dump::broken(Error::Refused("the connection was cut".to_owned()))),
            length => Ok(length),
        }
    }
}

#[test]
fn a_dump_that_breaks_or_ends_early_or_is_damaged_changes_nothing() {
    let site = Site::new("wal");
    let (part, bytes) = dumped(&site);
    let before = fs::read(site.path("app.db")).unwrap();
    let names = site.names();
    let mut damaged = bytes.clone();
    damaged[8192..40_000].fill(0x5a);
    let mut streams: Vec<(Box<dyn Read + '_>, &str)> = vec![
        (Box::new(Broken(&bytes[..100_000])), "the connection was cut"),
        (Box::new(Cursor::new(&bytes[..100_000])), "ended early"),
        (Box::new(Cursor::new(b"no database")), "no database of SQLite"),
        (Box::new(Cursor::new(&damaged)), "damaged"),
    ];
    for (stream, expected) in &mut streams {
        let error = restore(&site.login(), &part, stream, &options()).unwrap_err().to_string();
        assert!(error.contains(*expected), "{error}");
        assert_eq!(site.names(), names);
        assert!(fs::read(site.path("app.db")).unwrap() == before);
    }
    // What a killed restore left goes with the next one.
    fs::write(site.path("app.db.restoring-x"), "half").unwrap();
    restore(&site.login(), &part, &mut Cursor::new(&bytes), &options()).unwrap();
    assert_eq!(site.names(), ["app.db", "app.db.before-20261123T130000"]);
}
