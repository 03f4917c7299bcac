//! Dumps of files that others write to.

use std::fs;
use std::io::Read as _;

use workload::dump::{self, Format};

use crate::busy::{Site, Writer, check, login};

fn dump(site: &Site) -> Vec<u8> {
    let contents = dump::contents(&site.login(), false).unwrap();
    let mut bytes = Vec::new();
    dump::open(&site.login(), &contents.parts[0]).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_dump_in_wal_mode_is_one_moment_and_the_writer_goes_on_meanwhile() {
    let site = Site::new("wal");
    let writer = Writer::start(&site.path("app.db"));
    let contents = dump::contents(&site.login(), false).unwrap();
    assert_eq!((contents.parts.len(), contents.parts[0].format), (1, Format::SqliteFile));
    for round in 0..5 {
        let mut stream = dump::open(&site.login(), &contents.parts[0]).unwrap();
        let mut bytes = vec![0; 100_000];
        stream.read_exact(&mut bytes).unwrap();
        // While the dump is under way.
        writer.goes_on();
        // Whoever reads the file into a backup opens and closes it, which costs other programs their locks.
        for name in ["app.db", "app.db-wal", "app.db-shm"] {
            drop(fs::read(site.path(name)).unwrap());
        }
        writer.goes_on();
        stream.read_to_end(&mut bytes).unwrap();
        // The header says that it has a log, as it was.
        assert_eq!(bytes[18..20], [2, 2]);
        let copy = site.path(&format!("copy-{round}.db"));
        fs::write(&copy, bytes).unwrap();
        check(&copy);
    }
}

#[test]
fn a_dump_with_a_rollback_journal_is_one_moment_too() {
    let site = Site::new("delete");
    let writer = Writer::start(&site.path("app.db"));
    for round in 0..5 {
        let bytes = dump(&site);
        assert_eq!(bytes[18..20], [1, 1]);
        let copy = site.path(&format!("copy-{round}.db"));
        fs::write(&copy, bytes).unwrap();
        check(&copy);
        writer.goes_on();
    }
}

#[test]
fn what_is_no_database_is_told_as_what_it_is() {
    let site = Site::new("wal");
    let path = site.path("app.db");
    let error = |path: &std::path::Path| dump::contents(&login(path), false).unwrap_err().to_string();
    assert!(error(&site.path("none.db")).ends_with("cannot be reached: there is no such file"));
    assert!(!site.path("none.db").exists());
    assert!(error(path.parent().unwrap()).ends_with("it is no file"));
    fs::write(site.path("text.db"), "hello ".repeat(2000)).unwrap();
    assert!(error(&site.path("text.db")).contains("no SQLite database, or an encrypted one"));
    // Cut: the header knows of more.
    let whole = dump(&site);
    fs::write(site.path("cut.db"), &whole[..whole.len() / 2]).unwrap();
    assert!(error(&site.path("cut.db")).contains("it is damaged"), "{}", error(&site.path("cut.db")));
    let mut damaged = whole;
    damaged[100..4000].fill(0x5a);
    fs::write(site.path("damaged.db"), damaged).unwrap();
    assert!(error(&site.path("damaged.db")).contains("it is damaged"), "{}", error(&site.path("damaged.db")));
    // An empty file is a database without tables.
    fs::write(&path, "").unwrap();
    assert_eq!(dump(&site), b"");
}

#[test]
fn a_dump_leaves_the_files_of_a_database_that_nobody_uses_as_they_were() {
    for journal in ["wal", "delete"] {
        let site = Site::new(journal);
        let before = (site.names(), fs::read(site.path("app.db")).unwrap());
        assert!(dump(&site) == before.1);
        assert!((site.names(), fs::read(site.path("app.db")).unwrap()) == before);
    }
}
