use std::fs;
use std::sync::Mutex;

use engine::catalog::{Catalog, Error, Recorder, Task};

use crate::support::{Place, at, fill, is_recorded_by_all, job, settle, use_all};

/// Past the daily look through the whole file.
const DAYS: i64 = 2 * 24 * 3600;

/// The bytes of a catalog with some of everything in it.
fn filled() -> Vec<u8> {
    let place = Place::new();
    fill(&place.open());
    settle(&place.path());
    fs::read(place.path()).unwrap()
}

#[test]
fn what_is_no_database_is_moved_aside_and_a_new_catalog_begun() {
    for bytes in [&b"no database"[..], &[0; 4096], &[0xff; 10_000], b"SQLite format 3\0"] {
        let place = Place::new();
        fs::write(place.path(), bytes).unwrap();
        let catalog = place.open();
        let moved = catalog.take_moved();
        assert_eq!(fs::read(&moved[0].to).unwrap(), bytes, "not a byte is lost");
        assert_eq!(moved.len(), 1);
        assert!(moved[0].to.ends_with("catalog.sqlite.damaged-20260101T000000Z"), "{moved:?}");
        assert_eq!(catalog.take_moved(), [], "it is said once");
        use_all(&catalog);
    }
}

#[test]
fn an_empty_file_is_an_empty_catalog() {
    let place = Place::new();
    fs::write(place.path(), "").unwrap();
    let catalog = place.open();
    assert_eq!(catalog.take_moved(), []);
    use_all(&catalog);
}

#[test]
fn somebody_elses_database_is_not_written_to() {
    let place = Place::new();
    rusqlite::Connection::open(place.path()).unwrap().execute_batch("CREATE TABLE jobs (theirs)").unwrap();
    let before = fs::read(place.path()).unwrap();
    let catalog = place.open();
    let moved = catalog.take_moved();
    assert_eq!(fs::read(&moved[0].to).unwrap(), before);
    use_all(&catalog);
}

#[test]
fn whatever_byte_is_damaged_the_catalog_can_be_used() {
    let whole = filled();
    let pages = whole.len() / 4096;
    assert!(pages >= 20, "{pages}");
    let mut moved = 0;
    for page in 0..pages {
        // The header of the page, the beginning of its cell pointers, and three places in its content.
        let offsets = [0, 3, 5, 8, 13, 1003, 2222 + page, 4095];
        for (number, offset) in offsets.into_iter().enumerate() {
            let place = Place::new();
            let mut bytes = whole.clone();
            for byte in &mut bytes[page * 4096 + offset..][..1 + number % 3 * usize::from(offset < 4000)] {
                *byte ^= if number % 2 == 0 { 0xff } else { 0x10 };
            }
            fs::write(place.path(), &bytes).unwrap();
            // Half of them are found when they are met, half by looking through everything.
            let is_looked_through = page % 2 == 1;
            let now = if is_looked_through { at(DAYS) } else { at(0) };
            let catalog = Catalog::open(place.path(), now).unwrap();
            let is_there = is_recorded_by_all(&catalog);
            assert!(is_there || !is_looked_through, "page {page}, at {offset}");
            moved += place.damaged().len();
        }
    }
    assert!(moved > pages, "only {moved} were found");
}

#[test]
fn a_catalog_that_was_cut_off_anywhere_can_be_used() {
    let whole = filled();
    for length in (1..whole.len()).step_by(1777) {
        let place = Place::new();
        fs::write(place.path(), &whole[..length]).unwrap();
        use_all(&place.open());
        // What is shorter than the smallest page is as good as empty, says SQLite.
        assert_eq!(place.damaged().len(), usize::from(length >= 512), "{length}");
    }
}

#[test]
fn a_log_of_garbage_costs_at_most_what_is_in_it() {
    let place = Place::new();
    fs::write(place.path(), filled()).unwrap();
    let before = place.open().jobs(Task::default(), 1000).unwrap().len();
    let log = place.path().with_file_name("catalog.sqlite-wal");
    fs::write(&log, vec![0x37; 50_000]).unwrap();
    let catalog = place.open();
    assert!(catalog.jobs(Task::default(), 1000).unwrap().len() >= before);
    use_all(&catalog);
}

#[test]
fn what_cannot_be_understood_is_damage_too() {
    for what in [
        "UPDATE backups SET document = '{'",
        "UPDATE jobs SET outcome = 'splendid'",
        "UPDATE jobs SET started = 1 << 62",
        "UPDATE snapshots SET document = '{}'",
        "DROP TABLE events",
        "DROP TABLE facts",
        "ALTER TABLE sizes DROP COLUMN backups",
    ] {
        let place = Place::new();
        fill(&place.open());
        rusqlite::Connection::open(place.path()).unwrap().execute_batch(what).unwrap();
        let catalog = place.open();
        use_all(&catalog);
        assert_eq!(place.damaged().len(), 1, "{what}");
    }
}

#[test]
fn damage_under_an_open_catalog_is_found_by_who_meets_it() {
    let place = Place::new();
    let catalog = place.open();
    fill(&catalog);
    rusqlite::Connection::open(place.path()).unwrap().execute_batch("DROP TABLE events").unwrap();
    use_all(&catalog);
    assert_eq!(catalog.take_moved().len(), 1);
    use_all(&place.open());
}

#[test]
fn a_newer_catalog_is_refused_and_not_touched() {
    let place = Place::new();
    let open = place.open();
    fill(&open);
    rusqlite::Connection::open(place.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    settle(&place.path());
    let before = fs::read(place.path()).unwrap();

    assert!(matches!(open.record_job(&job(0)), Err(Error::Newer { found: 99, .. })), "also by who had it open");
    let refused = Catalog::open(place.path(), at(DAYS)).unwrap_err();
    assert!(matches!(refused, Error::Newer { found: 99, .. }), "{refused}");
    assert!(refused.hint().unwrap().contains("newer snapback"));
    assert!(fs::read(place.path()).unwrap() == before, "not a byte is changed");
    assert_eq!(place.damaged(), <[String; 0]>::default());
}

#[test]
fn a_command_goes_on_without_a_catalog_and_says_so_once() {
    let place = Place::new();
    drop(place.open());
    rusqlite::Connection::open(place.path()).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let said = Mutex::new(Vec::new());
    let recorder = Recorder::open(&place.path(), at(0), |text| said.lock().unwrap().push(text.to_owned()));
    assert_eq!(recorder.note(|catalog| catalog.record_job(&job(0))), None);
    assert_eq!(recorder.note(|catalog| catalog.record_job(&job(1))), None);
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("newer version"), "{said:?}");
}

#[test]
fn one_that_is_deleted_is_made_again_also_under_the_feet_of_who_has_it_open() {
    let place = Place::new();
    let (one, other) = (place.open(), place.open());
    fill(&one);
    fs::remove_file(place.path()).unwrap();
    let ended = job(0).ended(at(1), engine::catalog::Outcome::Succeeded);
    one.record_job(&ended).unwrap();
    assert_eq!(other.jobs(Task::default(), 10).unwrap(), std::slice::from_ref(&ended), "and none of what was deleted");
    assert_eq!(place.open().jobs(Task::default(), 10).unwrap(), [ended]);
    use_all(&other);
}

#[test]
fn a_catalog_that_cannot_be_opened_is_an_error_that_names_it() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    let error = Catalog::open(place.path(), at(0)).unwrap_err();
    assert!(error.to_string().contains("catalog.sqlite"), "{error}");
    assert!(place.path().is_dir(), "a directory is not moved aside");
}
