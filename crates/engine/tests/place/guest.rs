//! The device mapper, RAID and loop devices of a real kernel, in a guest with two disks.

#[path = "../../../snapshot/tests/lvm/host.rs"]
mod host;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use engine::place::{Nearness, Place, System};

use crate::machine::disks;

/// Both disks have two parts. The first two are a RAID 1, with LVM and ext4 on it; one of the others has a thin pool and an
/// XFS, the other one is encrypted, with an ext4 and in it a file that is a loop device.
const SET_UP: &str = r#"
    # Those that are built in are no modules. dm-crypt does not load before the ciphers are there.
    modprobe -d /run/m -a cbc ecb xts aes_generic hmac sha256_generic md-mod raid1 loop || true
    modprobe -d /run/m -a dm-thin-pool dm-crypt
    for disk in ubda ubdb; do printf 'size=300MiB\ntype=L\n' | sfdisk --quiet /dev/$disk; done
    mdadm --quiet --create /dev/md0 --run --assume-clean --metadata=1.2 --level=1 --raid-devices=2 /dev/ubda1 /dev/ubdb1
    pvcreate --quiet /dev/md0 /dev/ubda2
    vgcreate --quiet vg-raid /dev/md0; vgcreate --quiet vg-one /dev/ubda2
    lvcreate --quiet --yes --size 100M --name root vg-raid
    lvcreate --quiet --size 500M --thinpool pool vg-one
    lvcreate --quiet --virtualsize 400M --thin --name shop vg-one/pool
    key=$(printf '%064d' 7)
    dmsetup create --noudevrules --noudevsync secret --uuid CRYPT-PLAIN-secret --table \
        "0 $(blockdev --getsz /dev/ubdb2) crypt aes-xts-plain64 $key 0 /dev/ubdb2 0"
    dmsetup mknodes
    mkdir -p /mnt/raid /mnt/thin /mnt/secret /mnt/loop
    mkfs.ext4 -q /dev/mapper/vg--raid-root; mount /dev/mapper/vg--raid-root /mnt/raid
    mkfs.ext4 -q /dev/mapper/vg--one-shop; mount /dev/mapper/vg--one-shop /mnt/thin
    mkfs.ext4 -q /dev/mapper/secret; mount /dev/mapper/secret /mnt/secret
    truncate -s 64M /mnt/secret/image; mkfs.ext4 -q /mnt/secret/image; mount -o loop /mnt/secret/image /mnt/loop
"#;

#[test]
fn real_volumes_in_a_guest() {
    if host::is_in_guest() {
        return look();
    }
    let output = host::run_in_guest("guest::real_volumes_in_a_guest");
    assert!(output.contains("all seen\n") && output.contains("\nRC=0"), "{output}");
}

fn look() {
    let made = Command::new("bash").args(["-euc", SET_UP]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let system = System::open(Path::new("/"), Arc::new(snapshot::runner::System)).unwrap();
    let place = |path: &str| Place::of_path(Path::new(path), &system);
    for (path, expected, through) in [
        ("/mnt/raid", &["ubda", "ubdb"][..], &["(LVM)", "md0 (raid1)", "ubda1", "ubdb1"][..]),
        ("/mnt/thin/repository", &["ubda"], &["(LVM)", "ubda2"]),
        ("/mnt/secret", &["ubdb"], &["(encrypted)", "ubdb2"]),
        ("/mnt/loop", &["ubdb"], &["(/mnt/secret/image)", "ext4 /mnt/secret", "(encrypted)", "ubdb2"]),
    ] {
        let place = place(path);
        host::report(&format!("{path} {place:?}"));
        assert_eq!((disks(&place), &place.doubts[..]), (expected.to_vec(), &[][..]), "{path}");
        for part in through {
            assert!(place.through.iter().any(|through| through.contains(part)), "{part} is missing: {place:?}");
        }
    }
    let relation = |one: &str, other: &str| place(one).relation_to(&place(other));
    assert_eq!(relation("/mnt/thin", "/mnt/raid").nearness, Nearness::SameDisk);
    assert_eq!(relation("/mnt/loop", "/mnt/secret").nearness, Nearness::SameDisk);
    // Two files of the host are its to place.
    let virtual_disks = relation("/mnt/thin", "/mnt/secret");
    assert!(virtual_disks.nearness == Nearness::SameDisk && virtual_disks.doubt.is_some(), "{virtual_disks:?}");
    assert!(place("/run").is_in_memory);
    host::report("all seen");
}
