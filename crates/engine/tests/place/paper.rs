//! Machines on paper.

use engine::place::{Machine as On, Nearness, Sight};

use crate::machine::{Machine, disks};

const SATA: &str = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
const SECOND_SATA: &str = "pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0";
const USB: &str = "pci0000:00/0000:00:14.0/usb2/2-3/2-3:1.0/host4/target4:0:0/4:0:0:0";

/// Two NVMe disks as a RAID 1 with LVM on it; a SATA disk; an encrypted USB disk.
fn server() -> Machine {
    let mut server = Machine::new();
    server.nvme("nvme0n1", "pci0000:00/0000:01:00.0/nvme/nvme0", "S1", &["nvme0n1p1", "nvme0n1p2"]);
    server.nvme("nvme1n1", "pci0000:00/0000:02:00.0/nvme/nvme1", "S2", &["nvme1n1p1", "nvme1n1p2"]);
    server.disk(
        "sda",
        SATA,
        &[("vendor", "ATA"), ("model", "WDC WD40EFRX"), ("wwid", "naa.50014ee2b1234567")],
        &["sda1"],
    );
    server.disk("sdc", USB, &[("vendor", "WD"), ("model", "Elements")], &["sdc1"]);
    server.stacked("md0", &[("md/level", "raid1")], &["nvme0n1p2", "nvme1n1p2"]);
    server.stacked("dm-0", &[("dm/name", "vg-root"), ("dm/uuid", "LVM-aaaa")], &["md0"]);
    server.stacked("dm-1", &[("dm/name", "vg-pool_tdata"), ("dm/uuid", "LVM-bbbb-tdata")], &["md0"]);
    server.stacked("dm-2", &[("dm/name", "vg-pool-tpool"), ("dm/uuid", "LVM-cccc-tpool")], &["dm-1"]);
    server.stacked("dm-3", &[("dm/name", "vg-shop"), ("dm/uuid", "LVM-dddd")], &["dm-2"]);
    server.stacked("dm-4", &[("dm/name", "usb"), ("dm/uuid", "CRYPT-LUKS2-eeee-usb")], &["sdc1"]);
    server.mount("/", "ext4", "mapper/vg-root");
    server.mount("/boot", "ext4", "nvme0n1p1");
    server.mount("/srv/shop", "xfs", "mapper/vg-shop");
    server.mount("/data", "ext4", "sda1");
    server.mount("/mnt/usb", "btrfs", "mapper/usb");
    server.btrfs("0f0f", &["dm-4"]);
    server
}

#[test]
fn a_path_is_followed_through_lvm_raid_encryption_and_partitions_to_all_disks() {
    let server = server();
    for (path, expected) in [
        ("/etc", &["nvme0n1", "nvme1n1"][..]),
        ("/srv/shop/web", &["nvme0n1", "nvme1n1"]),
        ("/boot", &["nvme0n1"]),
        ("/data/repository/that/is/not/there/yet", &["sda"]),
        ("local:/mnt/usb/repository", &["sdc"]),
    ] {
        let place = server.place(path);
        assert_eq!((disks(&place), &place.doubts[..]), (expected.to_vec(), &[][..]), "{path}");
        assert!(place.disks.iter().all(|disk| disk.sight == Sight::Physical), "{path}");
    }
    let shop = server.place("/srv/shop");
    assert_eq!(shop.through[..4], ["dm-3 (LVM)", "dm-2 (LVM)", "dm-1 (LVM)", "md0 (raid1)"]);
}

#[test]
fn how_near_two_paths_are() {
    let server = server();
    for (one, other, nearness) in [
        ("/srv/shop", "/srv/shop/backup", Nearness::SameFilesystem),
        ("/srv/shop", "/var/backups", Nearness::SameDisk),
        // One of two members of a RAID is enough.
        ("/srv/shop", "/boot", Nearness::SameDisk),
        ("/srv/shop", "/data", Nearness::SameMachine),
        ("/srv/shop", "/mnt/usb/repository", Nearness::SameMachine),
        ("/srv/shop", "sftp:user@backup.example.org:/srv", Nearness::Elsewhere),
        ("/srv/shop", "rest:https://user:pass@backup.example.org:8000/", Nearness::Elsewhere),
        ("/srv/shop", "s3:s3.example.org/bucket", Nearness::Elsewhere),
        ("/srv/shop", "b2:bucket:path", Nearness::Elsewhere),
    ] {
        let relation = server.relation(one, other);
        assert_eq!((relation.nearness, relation.doubt), (nearness, None), "{one} {other}");
    }
}

#[test]
fn a_server_that_is_this_machine_is_not_elsewhere() {
    let server = server();
    for url in [
        "sftp:localhost:/b",
        "sftp:user@shop:/b",
        "sftp:SHOP.example.org:/b",
        "rest:http://127.0.0.1:8000/",
        "rest:http://[::1]:8000/",
        "sftp://root@192.0.2.7:22//b",
        "rclone:anything:b",
        "strange:b",
        "not/absolute",
    ] {
        let relation = server.relation("/srv/shop", url);
        assert_eq!(relation.nearness, Nearness::SameDisk, "{url}");
        assert!(relation.doubt.is_some(), "{url}");
    }
}

#[test]
fn network_file_systems_are_elsewhere_unless_they_come_from_here() {
    let mut server = server();
    for (point, kind, source, host) in [
        ("/n/1", "nfs4", "nas:/export", "nas"),
        ("/n/2", "nfs", "[2001:db8::9]:/export", "2001:db8::9"),
        ("/n/3", "cifs", "//NAS/share", "nas"),
        ("/n/4", "fuse.sshfs", "user@nas:", "nas"),
        ("/n/5", "ceph", "user@fsid.name=/", "ceph"),
    ] {
        server.mount_as(point, kind, source, "0:99", "rw");
        assert_eq!(server.place(point).machine, On::Other(host.to_owned()), "{point}");
        assert_eq!(server.relation("/srv/shop", point).nearness, Nearness::Elsewhere, "{point}");
    }
    // Both on the same server, whose disks nobody sees; or even the same export.
    let same = server.relation("/n/1", "/n/3");
    assert!(same.nearness == Nearness::SameDisk && same.doubt.is_some());
    assert_eq!(server.relation("/n/1/a", "/n/1/b").nearness, Nearness::SameFilesystem);
    server.mount_as("/n/6", "nfs4", "shop:/export", "0:98", "rw");
    server.mount_as("/n/7", "fuse.bindfs", "/srv", "0:97", "rw");
    server.mount_as("/n/8", "fuse.rclone", "remote:", "0:96", "rw");
    for point in ["/n/6", "/n/7", "/n/8"] {
        let relation = server.relation("/srv/shop", point);
        assert!(relation.nearness == Nearness::SameDisk && relation.doubt.is_some(), "{point}");
    }
}

#[test]
fn memory_does_not_last() {
    let mut server = server();
    server.mount_as("/run", "tmpfs", "tmpfs", "0:25", "rw");
    server.stacked("zram0", &[], &[]);
    server.mount("/fast", "ext4", "zram0");
    server.write("run/image", "");
    server.stacked("loop3", &[("loop/backing_file", "/run/image")], &[]);
    server.mount("/image", "ext4", "loop3");
    for path in ["/run/repository", "/fast", "/image"] {
        let place = server.place(path);
        assert!(place.is_in_memory && place.disks.is_empty() && place.doubts.is_empty(), "{place:?}");
    }
    assert!(!server.place("/srv/shop").is_in_memory);
}

#[test]
fn a_loop_device_lies_where_its_file_lies() {
    let mut server = server();
    server.write("data/image", "");
    server.stacked("loop0", &[("loop/backing_file", "/data/image")], &[]);
    server.stacked("loop1", &[("loop/backing_file", "/data/gone (deleted)")], &[]);
    server.stacked("loop2", &[("loop/backing_file", "/dev/sda1")], &[]);
    for (number, expected) in [(0, &["sda"][..]), (1, &[]), (2, &["sda"])] {
        server.mount(&format!("/l/{number}"), "ext4", &format!("loop{number}"));
        let place = server.place(&format!("/l/{number}"));
        assert_eq!(disks(&place), expected);
        assert_eq!(place.doubts.is_empty(), !expected.is_empty(), "{place:?}");
    }
    assert_eq!(server.relation("/l/0", "/data").nearness, Nearness::SameDisk);
    assert!(server.relation("/l/1", "/srv/shop").doubt.is_some());
}

#[test]
fn a_loop_device_upon_itself_ends() {
    let mut server = server();
    server.stacked("loop0", &[("loop/backing_file", "/self/image")], &[]);
    server.mount("/self", "ext4", "loop0");
    server.write("self/image", "");
    assert!(!server.place("/self").doubts.is_empty());
}

#[test]
fn btrfs_lies_on_all_its_devices_and_its_subvolumes_are_one_file_system() {
    let mut server = Machine::new();
    server.disk("sda", SATA, &[], &["sda1"]);
    server.disk("sdb", SECOND_SATA, &[], &[]);
    server.disk("sdc", USB, &[], &["sdc1"]);
    server.btrfs("1111", &["sda1", "sdb"]);
    server.btrfs("2222", &["sdc1"]);
    server.mount_as("/", "btrfs", "/dev/sda1", "0:30", "rw,subvol=/@");
    server.mount_as("/srv", "btrfs", "/dev/sda1", "0:30", "rw,subvol=/@srv");
    server.mount_as("/mnt/usb", "btrfs", "/dev/sdc1", "0:31", "rw");
    server.mount_as("/gone", "btrfs", "/dev/sdz1", "0:32", "rw");
    assert_eq!(disks(&server.place("/srv")), ["sda", "sdb"]);
    assert_eq!(server.relation("/", "/srv").nearness, Nearness::SameFilesystem);
    assert_eq!(server.relation("/", "/mnt/usb").nearness, Nearness::SameMachine);
    assert!(server.relation("/", "/gone").doubt.is_some());
}

const POOL: &str = "  pool: tank\n state: ONLINE\nconfig:\n\n\tNAME  STATE READ WRITE CKSUM\n\ttank  ONLINE 0 0 0\n\
    \t  mirror-0  ONLINE 0 0 0\n\t    /dev/sda1  ONLINE 0 0 0\n\t    /dev/sdb  ONLINE 0 0 0\n\nerrors: none\n";

#[test]
fn a_pool_lies_on_all_its_members_and_its_datasets_are_one_file_system() {
    let mut server = Machine::new();
    server.disk("sda", SATA, &[], &["sda1"]);
    server.disk("sdb", SECOND_SATA, &[], &[]);
    server.mount_as("/tank/shop", "zfs", "tank/shop", "0:40", "rw");
    server.mount_as("/tank/backup", "zfs", "tank/backup", "0:41", "rw");
    let (shop, backup) = (server.place_in_pool("/tank/shop", POOL), server.place_in_pool("/tank/backup", POOL));
    assert_eq!(disks(&shop), ["sda", "sdb"]);
    assert_eq!(shop.relation_to(&backup).nearness, Nearness::SameFilesystem);
    assert!(!server.place_in_pool("/tank/shop", "no such pool").doubts.is_empty());
}

#[test]
fn several_devices_of_one_piece_of_hardware_are_one_disk() {
    let mut server = Machine::new();
    let controller = "pci0000:00/0000:01:00.0/nvme/nvme0";
    server.nvme("nvme0n1", controller, "S1", &[]);
    server.nvme("nvme0n2", controller, "S1", &[]);
    server.disk("mmcblk0", "platform/sdhci/mmc0/mmc0:0001", &[], &["mmcblk0p1"]);
    server.disk("mmcblk0boot0", "platform/sdhci/mmc0/mmc0:0001", &[], &[]);
    for (point, device) in [("/", "nvme0n1"), ("/b", "nvme0n2"), ("/e", "mmcblk0p1"), ("/f", "mmcblk0boot0")] {
        server.mount(point, "ext4", device);
    }
    assert_eq!(server.relation("/", "/b").nearness, Nearness::SameDisk);
    assert_eq!(server.relation("/e", "/f").nearness, Nearness::SameDisk);
    assert_eq!(server.relation("/", "/e").nearness, Nearness::SameMachine);
}

#[test]
fn a_multipathed_disk_is_one_and_lies_at_the_other_end_of_the_network() {
    let mut server = Machine::new();
    let path = |host| format!("pci0000:00/0000:05:00.{host}/host{host}/rport-{host}:0-0/target{host}:0:0/{host}:0:0:1");
    server.disk("sda", &path(1), &[("wwid", "naa.600a0b80")], &[]);
    server.disk("sdb", &path(2), &[("wwid", "naa.600a0b80")], &[]);
    server.disk("sdc", &path(3), &[("wwid", "naa.600a0b81")], &[]);
    server.disk("sdd", SATA, &[], &[]);
    server.stacked("dm-0", &[("dm/name", "mpatha"), ("dm/uuid", "mpath-3600a0b80")], &["sda", "sdb"]);
    server.stacked("dm-1", &[("dm/name", "mpatha-part1"), ("dm/uuid", "part1-mpath-3600a0b80")], &["dm-0"]);
    server.mount("/srv", "xfs", "mapper/mpatha-part1");
    server.mount("/other", "xfs", "sdc");
    server.mount("/", "xfs", "sdd");
    let srv = server.place("/srv");
    assert_eq!(disks(&srv), ["sda", "sdb"]);
    assert!(srv.disks.iter().all(|disk| disk.sight == Sight::Remote));
    let storage = server.relation("/srv", "/other");
    assert!(storage.nearness == Nearness::SameDisk && storage.doubt.is_some(), "one storage may serve both");
    assert_eq!(server.relation("/", "/srv").nearness, Nearness::SameMachine);
}

#[test]
fn what_a_hypervisor_or_a_raid_controller_hides_is_a_doubt() {
    let mut guest = Machine::new();
    guest.write("proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor sse2\n");
    guest.disk("vda", "pci0000:00/0000:00:02.0/virtio1", &[], &["vda1"]);
    guest.disk("sda", SATA, &[("model", "QEMU HARDDISK")], &[]);
    guest.disk("sdb", USB, &[], &[]);
    for (point, device) in [("/", "vda1"), ("/data", "sda"), ("/usb", "sdb")] {
        guest.mount(point, "ext4", device);
    }
    let relation = guest.relation("/", "/data");
    assert_eq!(relation.nearness, Nearness::SameDisk);
    assert!(relation.doubt.unwrap().contains("host keeps vda and sda on one disk"));
    assert_eq!(guest.relation("/", "/usb").nearness, Nearness::SameMachine);

    let mut server = Machine::new();
    server.disk("sda", SATA, &[("vendor", "DELL"), ("model", "PERC H730 Mini")], &[]);
    server.disk("sdb", SECOND_SATA, &[("vendor", "DELL"), ("model", "PERC H730 Mini")], &[]);
    server.mount("/", "ext4", "sda");
    server.mount("/data", "ext4", "sdb");
    let relation = server.relation("/", "/data");
    assert!(relation.nearness == Nearness::SameDisk && relation.doubt.unwrap().contains("RAID controller"));
}

#[test]
fn a_container_sees_no_disks() {
    let mut container = Machine::new();
    container.mount_as(
        "/",
        "overlay",
        "overlay",
        "0:50",
        "rw,lowerdir=/var/lib/a,upperdir=/var/lib/b,workdir=/var/lib/w",
    );
    container.mount_as("/volume", "ext4", "/dev/sda1", "8:1", "rw");
    let relation = container.relation("/", "/volume");
    assert!(relation.nearness == Nearness::SameDisk && relation.doubt.is_some());
}

#[test]
fn a_link_leads_to_where_it_points() {
    let server = server();
    server.write("data/here", "");
    server.link("srv/shop/link", "../../data");
    assert_eq!(disks(&server.place("/srv/shop/link/repository")), ["sda"]);
}
