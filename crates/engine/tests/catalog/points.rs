use engine::catalog::{KnownBackup, Size};
use repository::id::Id;

use crate::support::{Place, at, backup, snapshot};

#[test]
fn a_repositorys_address_is_known_without_its_password() {
    let place = Place::new();
    let catalog = place.open();
    catalog.record_repository("offsite", "rest:https://me:hunter2@backup.example.org/shop").unwrap();
    catalog.record_repository("offsite", "rest:https://me:hunter2@backup.example.org/shop").unwrap();
    assert_eq!(catalog.repositories().unwrap()[0].url, "rest:https://me:***@backup.example.org/shop");
    drop(catalog);
    for name in place.names() {
        let bytes = std::fs::read(place.path().with_file_name(&name)).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{name}");
    }
}

#[test]
fn after_a_look_at_a_repository_what_it_does_not_have_is_gone() {
    let place = Place::new();
    let catalog = place.open();
    for number in 1..=3 {
        catalog.record_backup("usb", &backup(number, i64::from(number))).unwrap();
    }
    catalog.record_backup("offsite", &backup(1, 1)).unwrap();
    let listing = catalog.begin_listing("usb").unwrap();
    catalog.end_listing(&listing, &[backup(2, 2), backup(4, 4)], at(10)).unwrap();
    let numbers = |repository| -> Vec<u8> {
        catalog.backups(Some("shop"), Some(repository)).unwrap().iter().map(|(_, backup)| backup.id.0[0]).collect()
    };
    assert_eq!(numbers("usb"), [4, 2]);
    assert_eq!(numbers("offsite"), [1]);
    assert_eq!(catalog.repositories().unwrap()[0].seen, Some(at(10)));
    assert_eq!(catalog.newest_backup("shop", Some("usb")).unwrap().unwrap().1, backup(4, 4));
    assert_eq!(catalog.newest_backup("blog", None).unwrap(), None);
}

#[test]
fn what_others_do_during_a_look_is_not_undone_by_it() {
    let place = Place::new();
    let (daemon, command) = (place.open(), place.open());
    daemon.record_backup("usb", &backup(1, 1)).unwrap();
    daemon.record_backup("usb", &backup(2, 2)).unwrap();
    let listing = command.begin_listing("usb").unwrap();
    let seen = [backup(1, 1), backup(2, 2)];
    // Made after the listing, and removed after it.
    daemon.record_backup("usb", &backup(3, 3)).unwrap();
    daemon.forget_backups("usb", &[Id([1; 32])]).unwrap();
    command.end_listing(&listing, &seen, at(10)).unwrap();
    let known: Vec<KnownBackup> = daemon.backups(None, None).unwrap().into_iter().map(|(_, backup)| backup).collect();
    assert_eq!(known, [backup(3, 3), backup(2, 2)]);
}

#[test]
fn snapshots_are_those_of_the_state_directory() {
    let place = Place::new();
    let catalog = place.open();
    let (old, new) = (snapshot(1), snapshot(2));
    catalog.record_snapshot(&old).unwrap();
    let unfinished = snapshot::record::Record { handle: None, ..snapshot(3) };
    let list = || Ok::<_, String>(vec![new.clone(), unfinished.clone()]);
    assert_eq!(catalog.replace_snapshots(list).unwrap(), Ok(1));
    assert_eq!(catalog.snapshots().unwrap(), std::slice::from_ref(&new));
    let failed = catalog.replace_snapshots(|| Err("a record is damaged")).unwrap();
    assert_eq!(failed, Err("a record is damaged"));
    assert_eq!(catalog.snapshots().unwrap(), [new], "what cannot be listed is not gone");
}

#[test]
fn sizes_are_a_series() {
    let place = Place::new();
    let catalog = place.open();
    for secs in [30, 10, 20] {
        catalog.record_size("usb", Size { at: at(secs), bytes: secs as u64, backups: 1 }).unwrap();
    }
    let bytes = |since| -> Vec<u64> { catalog.sizes("usb", since).unwrap().iter().map(|size| size.bytes).collect() };
    assert_eq!(bytes(at(0)), [10, 20, 30]);
    assert_eq!(bytes(at(20)), [20, 30]);
}
