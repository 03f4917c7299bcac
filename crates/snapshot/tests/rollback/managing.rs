//! Making, deleting, holding and expiring.

use jiff::SignedDuration;
use snapshot::error::Error;
use snapshot::expire::{self, Limits, Warning};
use snapshot::manage::{self, Deleted};
use snapshot::provider::{Provider as _, Space};
use snapshot::record::Record;

use crate::site::{NOW, Site, asked, fill};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

#[test]
fn a_creation_that_was_cut_short_is_cleaned_up_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::at(root.path(), true);
    fill(&site.plain.directory, false);
    let whole = site.snapshot();
    let cut = Record { id: snapshot::id::Id::random(), handle: None, ..whole.clone() };
    site.state.save(&cut).unwrap();
    site.plain.create(cut.id).unwrap();
    assert_eq!(manage::list(&site.state, NOW).unwrap().len(), 1, "one that was not finished is not shown");
    let next = site.snapshot();
    let mut there: Vec<_> = site.plain.list().unwrap().into_iter().map(|(id, _)| id).collect();
    there.sort();
    let mut expected = [whole.id, next.id];
    expected.sort();
    assert_eq!(there, expected);
    assert_eq!(site.state.records().unwrap().len(), 2);
}

#[test]
fn a_held_snapshot_is_not_deleted_until_it_is_released() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::at(root.path(), true);
    let record = site.snapshot();
    manage::set_held(&site.lock(), record.id, true).unwrap();
    let refused = manage::delete(&site.lock(), &site.plain, record.id).unwrap_err();
    assert!(refused.hint().unwrap().contains("release"), "{refused}");
    manage::set_held(&site.lock(), record.id, false).unwrap();
    assert_eq!(manage::delete(&site.lock(), &site.plain, record.id).unwrap(), Deleted::Now);
    assert!(site.plain.list().unwrap().is_empty() && site.state.records().unwrap().is_empty());
}

#[test]
fn expiry_takes_what_is_over_and_never_what_is_held_or_of_others() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::at(root.path(), true);
    let make = |hours: i32, is_held| {
        let request = manage::Request { expires: Some(NOW + HOUR * hours), is_held, ..asked() };
        manage::create(&site.lock(), &site.plain, request, NOW).unwrap().id
    };
    let (over, held, living, forever) = (make(1, false), make(1, true), make(9, false), site.snapshot().id);
    let strange = snapshot::id::Id::random();
    site.plain.create(strange).unwrap();
    let now = NOW + HOUR;
    assert_eq!(expire::decide(&site.state.records().unwrap(), NOW + HOUR - SignedDuration::from_secs(1)), []);
    let decided = expire::decide(&site.state.records().unwrap(), now);
    assert_eq!(decided, [over]);
    // Whoever hands in more than was decided does not get it.
    let done = expire::perform(&site.lock(), &[over, held, living], now, &site.open());
    assert!(matches!(&done[..], [(_, Ok(Deleted::Now)), (_, Err(Error::Refused { .. })), (_, Err(_))]), "{done:?}");
    let mut there: Vec<_> = site.plain.list().unwrap().into_iter().map(|(id, _)| id).collect();
    let mut expected = [held, living, forever, strange];
    there.sort();
    expected.sort();
    assert_eq!(there, expected);
}

#[test]
fn age_growth_and_lack_of_space_are_warned_about() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::at(root.path(), true);
    let record = site.snapshot();
    let limits = Limits { age: HOUR * 24, grown: 1000, free: 5000 };
    let warn = |now, grown, free| {
        let space = move |_: &Record| Some(Space { grown: Some(grown), reclaimable: None });
        expire::warnings(&site.state.records().unwrap(), now, limits, &space, &move |_| Some(free))
    };
    assert_eq!(warn(NOW + HOUR * 24, 1000, 5000), []);
    let (id, directory) = (record.id, site.plain.directory.clone());
    let all = [
        Warning::Old { id, age_secs: 90_000 },
        Warning::Grown { id, grown: 1001 },
        Warning::LowSpace { directory, free: 4999 },
    ];
    assert_eq!(warn(NOW + HOUR * 25, 1001, 4999), all);
    assert!(expire::free_space(root.path()).unwrap() > 0);
}

#[test]
fn two_creations_at_once_come_one_after_the_other() {
    let root = tempfile::tempdir().unwrap();
    let site = Site::at(root.path(), true);
    fill(&site.plain.directory, false);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| site.snapshot());
        }
    });
    let records = site.state.records().unwrap();
    assert!(records.len() == 4 && records.iter().all(|record| record.handle.is_some()));
}
