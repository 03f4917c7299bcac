//! Dumps of files that others write to.

use std::fs;
use std::io::Read as _;

use workload::dump::{self, Format};

use crate::busy::{Site, Writer, check};

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
