//! Attributes on a real file system: what is read from one file and set on another is read again the same.

mod place;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use backup::attributes::{
    Action, Applier, Before, Context, Entry, Moment, Stat, Zone, create, extended_attributes, link_target, node_from,
};
use jiff::tz::TimeZone;
use repository::tree::{ExtendedAttribute, Node, NodeKind, st_mode_from_file_mode};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, makedev, mknodat, open, symlinkat};

use place::{Place, is_root, skip};

const NAME: &[u8] = b"caf\xe9 \xff\n";
/// Of user 1234 reading a file of mode 0640: version 2, then tag, permissions and id of each entry; acl(5).
const ACL: [[u16; 4]; 5] = [
    [0x01, 6, 0xffff, 0xffff],
    [0x02, 4, 1234, 0],
    [0x04, 4, 0xffff, 0xffff],
    [0x10, 4, 0xffff, 0xffff],
    [0x20, 0, 0xffff, 0xffff],
];
/// `cap_net_bind_service=ep`, version 2 of `struct vfs_cap_data`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn acl() -> Vec<u8> {
    let entries = ACL.iter().flatten().flat_map(|part| part.to_le_bytes());
    2_u32.to_le_bytes().into_iter().chain(entries).collect()
}

/// What must come back: all but what the new inode has of its own.
fn restorable(mut node: Node) -> Node {
    node.inode = 0;
    node.ctime = node.mtime;
    node
}

/// Restores what lies at [`NAME`] elsewhere, and returns that place.
fn assert_comes_back(place: &Place) -> Place {
    let node = place.read(NAME);
    let target = Place::new();
    let errors = target.restore(&node, &Applier::new());
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(restorable(target.read(NAME)), restorable(node));
    target
}

#[test]
fn a_node_tells_what_the_inode_has() {
    let place = Place::new();
    fs::write(place.path(NAME), "hello").unwrap();
    place.chmod(NAME, 0o4751);
    place.set_mtime(NAME, 1_700_000_000, 5);
    let context = Context::new(Zone::new(TimeZone::posix("NPT-5:45").unwrap()));
    let stat = place.stat(NAME);
    let node = node_from(NAME, &stat, Path::new("/srv"), &context);
    assert_eq!((&*node.name, &node.kind, node.size, node.links), (NAME, &NodeKind::File, 5, 1));
    assert_eq!(node.mode, 1 << 23 | 0o751);
    assert_eq!((node.mtime.secs, node.mtime.nanos, node.mtime.offset_minutes), (1_700_000_000, 5, 345));
    assert_eq!(node.atime, node.mtime);
    assert_eq!((node.uid, node.inode, node.device_id, node.device), (stat.uid, stat.inode, 0, 0));
    assert!(node.content.is_none() && node.subtree.is_none());
    assert!(stat.mount_root != Some(true) && stat.btime.is_none_or(|born| born.secs > 1_700_000_000));
    let by_fd = Stat::of(File::open(place.path(NAME)).unwrap().as_fd()).unwrap();
    assert_eq!(by_fd, stat);
}

#[test]
fn the_root_of_a_mount_is_seen() {
    let proc = open("/proc", OFlags::DIRECTORY, Mode::empty()).unwrap();
    let root = open("/", OFlags::DIRECTORY, Mode::empty()).unwrap();
    let entry = Entry { dir: root.as_fd(), name: b"proc", dir_path: Path::new("/") };
    let by_name = Stat::at(entry).unwrap();
    assert!(by_name.mount_root != Some(false));
    assert_eq!(by_name.device, Stat::of(proc.as_fd()).unwrap().device);
}

#[test]
fn only_hard_links_name_their_file_system() {
    let place = Place::new();
    place.file(b"one");
    fs::hard_link(place.path(b"one"), place.path(b"two")).unwrap();
    fs::create_dir(place.path(b"dir")).unwrap();
    fs::create_dir(place.path(b"dir/below")).unwrap();
    let (one, two, dir) = (place.read(b"one"), place.read(b"two"), place.read(b"dir"));
    assert!(one.device_id != 0 && one.links == 2);
    assert_eq!((one.device_id, one.inode), (two.device_id, two.inode));
    assert_eq!((dir.device_id, dir.links), (0, 0));
}

#[test]
fn what_has_vanished_is_named() {
    let place = Place::new();
    let error = Stat::at(place.entry(b"gone")).unwrap_err();
    assert_eq!((error.source.kind(), &error.path), (ErrorKind::NotFound, &place.path(b"gone")));
    assert!(error.to_string().ends_with("gone: cannot read its metadata"));
    let error = link_target(place.entry(b"gone")).unwrap_err();
    assert_eq!(error.action, Action::ReadLink);
}

#[test]
fn modes_come_back_with_setuid_setgid_and_sticky() {
    for mode in [0o644, 0o000, 0o444, 0o4755, 0o2755, 0o6711, 0o7777] {
        let place = Place::new();
        place.file(NAME);
        place.chmod(NAME, mode);
        let target = assert_comes_back(&place);
        assert_eq!(target.stat(NAME).mode, 0o100_000 | mode);
    }
    for mode in [0o755, 0o1777, 0o2775, 0o500] {
        let place = Place::new();
        fs::create_dir(place.path(NAME)).unwrap();
        place.chmod(NAME, mode);
        let target = assert_comes_back(&place);
        assert_eq!(target.stat(NAME).mode, 0o040_000 | mode);
    }
}

#[test]
fn times_come_back_to_the_nanosecond_before_1970_and_far_ahead() {
    for (secs, nanos) in
        [(-1, 999_999_999), (-2_000_000_000, 1), (0, 0), (1_700_000_000, 123_456_789), (15_000_000_000, 7)]
    {
        let place = Place::new();
        place.file(NAME);
        place.set_mtime(NAME, secs, nanos);
        let wanted = Moment { secs, nanos };
        if place.stat(NAME).mtime != wanted {
            skip(&format!("{} cannot hold the time {secs}.{nanos:09}", place.temp.path().display()));
            continue;
        }
        let target = assert_comes_back(&place);
        assert_eq!(target.stat(NAME).mtime, wanted);
    }
}

#[test]
fn a_directory_gets_its_time_although_it_was_looked_at_before_its_files_came() {
    let place = Place::new();
    fs::create_dir(place.path(NAME)).unwrap();
    place.set_mtime(NAME, 1_000_000_000, 0);
    let node = place.read(NAME);
    let before = Before::untouched(&place.stat(NAME));
    fs::write(place.path(NAME).join("file"), "").unwrap();
    assert!(place.apply(&node, &Applier::new(), &before).is_empty());
    assert_eq!(place.stat(NAME).mtime.secs, 1_000_000_000);
}

#[test]
fn owners_come_back_and_setuid_survives_the_change() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file(NAME);
    place.chown(NAME, 1234, 4_000_000_000);
    place.chmod(NAME, 0o6755);
    let target = assert_comes_back(&place);
    let stat = target.stat(NAME);
    assert_eq!((stat.uid, stat.gid, stat.mode), (1234, 4_000_000_000, 0o106_755));
}

#[test]
fn an_existing_file_keeps_setuid_and_capability_when_its_owner_changes() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file(NAME);
    place.chmod(NAME, 0o4755);
    place.set_xattr(NAME, "security.capability", &CAPABILITY);
    let mut node = place.read(NAME);
    (node.uid, node.gid) = (1234, 1234);
    assert!(place.restore(&node, &Applier::new()).is_empty());
    let after = place.read(NAME);
    assert_eq!((after.uid, st_mode_from_file_mode(after.mode)), (1234, 0o104_755));
    assert_eq!(after.extended_attributes, node.extended_attributes);
}

#[test]
fn extended_attributes_come_back_empty_binary_long_and_many() {
    let place = Place::new();
    place.file(NAME);
    let long = vec![0xab; 2000];
    if !place.set_xattr(NAME, "user.long", &long) {
        return;
    }
    place.set_xattr(NAME, "user.empty", b"");
    place.set_xattr(NAME, "user.binary", b"\0\xff\n");
    place.set_xattr(NAME, "user.größe", b"utf-8");
    for number in 0..10 {
        place.set_xattr(NAME, &format!("user.{number}{}", "x".repeat(120)), b"");
    }
    assert_eq!(place.read(NAME).extended_attributes.len(), 14);
    let target = assert_comes_back(&place);
    let value = |name: &str| {
        let all = target.read(NAME).extended_attributes;
        all.into_iter().find(|one| &*one.name == name).and_then(|one| one.value)
    };
    assert_eq!(value("user.long").as_deref(), Some(&long[..]));
    assert_eq!(value("user.empty").as_deref(), Some(&b""[..]));
}

#[test]
fn attributes_of_the_system_come_back() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file(NAME);
    place.set_xattr(NAME, "trusted.overlay.origin", b"\0\x01");
    place.set_xattr(NAME, "security.capability", &CAPABILITY);
    let target = assert_comes_back(&place);
    let names: Vec<_> = target.read(NAME).extended_attributes.into_iter().map(|one| one.name).collect();
    assert!(names.contains(&"trusted.overlay.origin".into()) && names.contains(&"security.capability".into()));
}

#[test]
fn access_lists_come_back() {
    let place = Place::new();
    place.file(NAME);
    if !place.set_xattr(NAME, "system.posix_acl_access", &acl()) {
        return;
    }
    let target = assert_comes_back(&place);
    assert_eq!(target.stat(NAME).mode & 0o777, 0o640);
    assert_getfacl_says(&target.path(NAME), "user:1234:r--");

    let place = Place::new();
    fs::create_dir(place.path(NAME)).unwrap();
    place.set_xattr(NAME, "system.posix_acl_default", &acl());
    let target = assert_comes_back(&place);
    assert_getfacl_says(&target.path(NAME), "default:user:1234:r--");
}

fn assert_getfacl_says(path: &Path, line: &str) {
    match Command::new("getfacl").arg("--numeric").arg("--").arg(path).output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.lines().any(|found| found == line), "{text}");
        }
        Err(_) => skip("needs getfacl"),
    }
}

#[test]
fn an_access_list_inherited_from_the_target_directory_goes() {
    let place = Place::new();
    place.file(NAME);
    place.chmod(NAME, 0o664);
    let node = place.read(NAME);
    let target = Place::new();
    if !target.set_xattr(b".", "system.posix_acl_default", &acl()) {
        return;
    }
    assert!(target.restore(&node, &Applier::new()).is_empty());
    assert_eq!(restorable(target.read(NAME)), restorable(node));
    // It had one to remove.
    target.file(b"other");
    assert_eq!(target.read(b"other").extended_attributes.len(), 1);
}

#[test]
fn attributes_that_the_backup_does_not_have_are_removed() {
    let place = Place::new();
    place.file(NAME);
    if !place.set_xattr(NAME, "user.kept", b"1") {
        return;
    }
    let node = place.read(NAME);
    place.set_xattr(NAME, "user.kept", b"2");
    place.set_xattr(NAME, "user.new", b"3");
    place.set_xattr(NAME, "system.posix_acl_access", &acl());
    if is_root() {
        place.set_xattr(NAME, "security.capability", &CAPABILITY);
    }
    assert!(place.restore(&node, &Applier::new()).is_empty());
    assert_eq!(restorable(place.read(NAME)), restorable(node));
}

#[test]
fn labels_of_security_modules_stay() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.file(NAME);
    let node = place.read(NAME);
    place.set_xattr(NAME, "security.label", b"kernel");
    assert!(place.restore(&node, &Applier::new()).is_empty());
    let label = ExtendedAttribute { name: "security.label".into(), value: Some(b"kernel"[..].into()) };
    assert_eq!(place.read(NAME).extended_attributes, [label]);
}

#[test]
fn nothing_is_set_on_a_file_that_has_it_all() {
    let place = Place::new();
    place.file(NAME);
    place.set_xattr(NAME, "user.a", b"1");
    place.chmod(NAME, 0o6751);
    place.set_mtime(NAME, 1_000_000_000, 1);
    let stat = place.stat(NAME);
    let node = place.read(NAME);
    assert!(place.apply(&node, &Applier::new(), &Before::untouched(&stat)).is_empty());
    // Any call that changes an inode would change its ctime.
    assert_eq!(place.stat(NAME), stat);
}

#[test]
fn symbolic_links_come_back_without_being_followed() {
    let place = Place::new();
    place.file(b"target");
    symlinkat(&b"target"[..], &place.dir, NAME).unwrap();
    place.set_mtime(NAME, -5, 5);
    let target = assert_comes_back(&place);
    assert_eq!(target.stat(NAME).mode & 0o170_000, 0o120_000);

    let place = Place::new();
    symlinkat(&b"/nowhere/\xff\xfe"[..], &place.dir, NAME).unwrap();
    if rustix::process::geteuid().is_root() {
        place.chown(NAME, 1234, 1234);
        place.set_xattr(NAME, "trusted.a", b"1");
    }
    let target = assert_comes_back(&place);
    assert_eq!(&*link_target(target.entry(NAME)).unwrap(), b"/nowhere/\xff\xfe");
}

#[test]
fn fifos_and_devices_come_back() {
    let special = [
        (FileType::Fifo, 0),
        (FileType::CharacterDevice, makedev(1, 3)),
        (FileType::BlockDevice, makedev(259, 70_000)),
    ];
    for (kind, device) in special {
        if kind != FileType::Fifo && !is_root() {
            return;
        }
        let place = Place::new();
        match mknodat(&place.dir, NAME, kind, Mode::RUSR, device) {
            Err(rustix::io::Errno::PERM) => {
                skip("this system lets nobody make devices");
                continue;
            }
            answer => answer.unwrap(),
        }
        place.chmod(NAME, 0o646);
        place.set_mtime(NAME, 1_000_000_000, 1);
        if rustix::process::geteuid().is_root() {
            place.chown(NAME, 1234, 1234);
            place.set_xattr(NAME, "trusted.a", b"1");
        }
        let target = assert_comes_back(&place);
        assert_eq!(target.stat(NAME).rdev, device);
    }
}

#[test]
fn sockets_files_and_directories_are_not_made_here() {
    let place = Place::new();
    place.file(NAME);
    let mut node = place.read(NAME);
    node.name = b"other"[..].into();
    for kind in [NodeKind::Socket, NodeKind::File, NodeKind::Dir, NodeKind::Other("door".into())] {
        node.kind = kind;
        assert!(!create(place.entry(b"other"), &node).unwrap());
        assert!(!place.path(b"other").exists());
    }
    node.kind = NodeKind::Fifo;
    let error = create(place.entry(NAME), &node).unwrap_err();
    assert_eq!((error.source.kind(), error.action), (ErrorKind::AlreadyExists, Action::Create("fifo")));
}

#[test]
fn a_link_put_in_the_place_of_a_fifo_leads_nowhere() {
    let place = Place::new();
    place.file(b"victim");
    place.chmod(b"victim", 0o600);
    let before = place.stat(b"victim");
    let fifo = Place::new();
    mknodat(&fifo.dir, NAME, FileType::Fifo, Mode::RUSR, 0).unwrap();
    fifo.chmod(NAME, 0o666);
    let node = fifo.read(NAME);
    symlinkat(&b"victim"[..], &place.dir, NAME).unwrap();
    let errors = place.restore(&node, &Applier::new());
    assert_eq!(errors.iter().map(|error| &error.action).collect::<Vec<_>>(), [&Action::Chmod(0o666)]);
    assert_eq!(place.stat(b"victim"), before);
}

#[test]
fn what_cannot_be_set_is_reported_and_the_rest_is_set() {
    let place = Place::new();
    place.file(NAME);
    let mut node = place.read(NAME);
    node.uid = u32::MAX;
    node.mode = 0o4711;
    node.mtime.secs = 1_000_000_000;
    let attribute = |name: &str| ExtendedAttribute { name: name.into(), value: None };
    node.extended_attributes = vec![attribute("nonsense"), attribute("user.good")];
    let applier = Applier::new();
    let errors = place.restore(&node, &applier);
    let actions: Vec<_> = errors.iter().map(|error| error.action.clone()).collect();
    assert_eq!(actions[0], Action::Chown { uid: u32::MAX, gid: node.gid });
    assert_eq!(actions[1], Action::SetXattr("nonsense".into()));
    assert!(errors.iter().all(|error| error.path == place.path(NAME)));
    let stat = place.stat(NAME);
    assert_eq!((stat.mode & 0o7777, stat.mtime.secs), (0o711, 1_000_000_000));
    // The second file hears nothing of what no file here can have.
    let again = place.restore(&node, &applier);
    assert!(!again.iter().any(|error| error.action == actions[1]));
}

#[test]
fn a_file_system_without_extended_attributes_has_none() {
    let proc = open("/proc/sys", OFlags::DIRECTORY, Mode::empty()).unwrap();
    let entry = Entry { dir: proc.as_fd(), name: b"kernel", dir_path: Path::new("/proc/sys") };
    assert_eq!(extended_attributes(entry, None, &mut |error| panic!("{error}")), []);
}

/// Runs as an ordinary user: in a thread that has given up being root, where that is needed.
fn as_ordinary_user(test: impl FnOnce() + Send) {
    const NOBODY: u32 = 65_534;
    let root = rustix::process::geteuid().is_root();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if root {
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                rustix::thread::set_thread_groups(&[gid]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            test();
        });
        thread.join().unwrap();
    });
}

#[test]
fn an_ordinary_user_gets_the_attributes_of_a_read_only_file() {
    as_ordinary_user(|| {
        let place = Place::new();
        place.file(NAME);
        if !place.set_xattr(NAME, "user.a", b"1") {
            return;
        }
        place.chmod(NAME, 0o444);
        let node = place.read(NAME);
        let target = assert_comes_back(&place);
        // Over an existing file too, which is read-only already.
        let mut changed = node.clone();
        changed.extended_attributes[0].value = Some(b"2"[..].into());
        assert!(target.restore(&changed, &Applier::new()).is_empty());
        assert_eq!(restorable(target.read(NAME)), restorable(changed));
    });
}

#[test]
fn an_ordinary_user_cannot_give_files_away_and_makes_none_setuid_instead() {
    as_ordinary_user(|| {
        let place = Place::new();
        place.file(NAME);
        let mut node = place.read(NAME);
        (node.uid, node.gid) = (0, 0);
        node.mode = 1 << 23 | 1 << 22 | 0o755;
        assert!(place.restore(&node, &Applier::new()).is_empty());
        let stat = place.stat(NAME);
        assert_eq!(stat.mode & 0o7777, 0o755);
        assert_ne!(stat.uid, 0);
    });
}

#[test]
fn what_an_ordinary_user_may_not_set_is_reported_once() {
    as_ordinary_user(|| {
        let place = Place::new();
        place.file(b"one");
        place.file(b"two");
        let applier = Applier::new();
        let restore = |name: &[u8]| {
            let mut node = place.read(name);
            node.extended_attributes =
                vec![ExtendedAttribute { name: "trusted.a".into(), value: Some(b"1"[..].into()) }];
            place.restore(&node, &applier)
        };
        let errors = restore(b"one");
        assert_eq!(errors.len(), 1);
        assert_eq!((&errors[0].path, &errors[0].action), (&place.path(b"one"), &Action::SetXattr("trusted.a".into())));
        assert!(restore(b"two").is_empty());

        let mut node = place.read(b"one");
        node.kind = NodeKind::BlockDevice;
        let error = create(place.entry(b"device"), &node).unwrap_err();
        assert_eq!((error.source.kind(), &error.path), (ErrorKind::PermissionDenied, &place.path(b"device")));
    });
}

#[test]
fn names_that_are_no_text_are_shown_as_well_as_possible() {
    let place = Place::new();
    let error = Stat::at(place.entry(NAME)).unwrap_err();
    assert_eq!(error.path.as_os_str().as_bytes().rsplit(|byte| *byte == b'/').next(), Some(NAME));
}
