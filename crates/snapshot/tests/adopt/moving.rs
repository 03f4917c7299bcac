//! There and back.

use std::path::PathBuf;
use std::process::Command;

use snapshot::adopt;

use crate::disk::{assert_same, describe, run, shell};
use crate::site::{Commands, Site, ext4};

/// What lies below the volume's mount.
fn old_tree(site: &Site) -> PathBuf {
    let point = site.root.join("below");
    std::fs::create_dir_all(&point).unwrap();
    run(Command::new("mount").arg("--bind").args([&site.root.join("srv"), &point]));
    point.join("my shop")
}

fn unmount(site: &Site) {
    run(Command::new("umount").arg(site.root.join("below")));
}

#[test]
fn a_directory_is_moved_onto_a_volume_and_back() {
    let disk = ext4();
    let site = Site::new(&disk);
    let before = site.describe();
    site.adopt().unwrap();
    site.assert_with_volume("after it was moved");
    assert_same(&site.describe(), &before);
    let mounts = snapshot::mounts::mounts().unwrap();
    let mount = mounts.iter().find(|mount| mount.point == site.directory()).unwrap();
    assert_eq!((mount.kind.as_str(), mount.root.to_str()), ("btrfs", Some("/live")));
    let direct = shell(&site.root, &format!("losetup --noheadings --output DIO {}", mount.source.display()));
    assert_eq!(direct.trim(), "1", "the page cache holds nothing twice");

    let old = old_tree(&site);
    assert!(shell(&site.root, "lsattr -d below/*").contains('i'));
    assert!(std::fs::write(old.join("new"), "").is_err(), "nothing can be put into the old directory, even by root");
    let mut kept = describe(&old);
    kept.insert(PathBuf::new(), before[&PathBuf::new()].clone());
    assert_same(&kept, &before);
    unmount(&site);

    shell(
        &site.directory(),
        "rm -r 'with space'; echo more >> large; mkdir new; echo new > new/file; ln new/file another",
    );
    let changed = site.describe();
    site.go_back().unwrap();
    site.assert_without_volume("after it was moved back");
    assert_same(&site.describe(), &changed);
}

#[test]
fn a_directory_is_moved_and_back_where_mounts_are_shared_as_systemd_has_it() {
    let disk = ext4();
    let site = Site::new(&disk);
    // A peer that gets what is mounted in the other, as the namespaces of services do.
    shell(&site.root, "mount --make-rshared .; mkdir peer; mount --bind srv peer");
    let before = site.describe();
    site.adopt().unwrap();
    assert_same(&describe(&site.root.join("peer/my shop")), &before);
    let mounts = snapshot::mounts::mounts().unwrap();
    let peer = mounts.iter().find(|mount| mount.point == site.root.join("peer/my shop")).unwrap();
    assert_eq!(peer.kind, "btrfs", "the peer shows the volume, too");
    site.go_back().unwrap();
    assert_same(&site.describe(), &before);
    assert_eq!(site.mounts(), [site.root.join("peer")]);
    shell(&site.root, "umount peer");
    site.assert_without_volume("after it was moved back");
}

#[test]
fn the_old_content_is_removed_where_that_is_wanted_and_copied_back_all_the_same() {
    let disk = ext4();
    let site = Site::new(&disk);
    let before = site.describe();
    let request = adopt::Request { keeps_old: false, ..site.request() };
    adopt::plan(&request, &site.commands).unwrap().job.run(&site.lock(), &site.commands, &mut |_| {}).unwrap();
    assert_eq!(std::fs::read_dir(old_tree(&site)).unwrap().count(), 0);
    unmount(&site);
    assert_same(&site.describe(), &before);
    site.go_back().unwrap();
    assert_same(&site.describe(), &before);
    site.assert_without_volume("after it was moved back");
}

#[test]
fn what_changes_during_the_copy_is_copied_again() {
    let disk = ext4();
    let site = Site::new(&disk);
    shell(&site.directory(), "mkdir one other; echo 1 > one/f; echo 2 > other/f; echo aaaa > quiet; ln quiet further");
    let change = |name: &str| {
        if name == "stop the units" {
            // Files of the same length and time; directories that change places; names that become one file, or two.
            shell(
                &site.directory(),
                "touch -d 2001-01-01 one/f other/f; mv one x; mv other one; mv x other
                 touch -r quiet /tmp/stamp$$; echo bbbb > quiet; touch -r /tmp/stamp$$ quiet; rm /tmp/stamp$$
                 rm deep/link; ln suid deep/link; rm further; echo bbbb > further; rm -r sticky; mkdir new; echo > new/f
                 rm fifo; mkdir fifo; chmod 711 deep/er; setfattr -x user.comment large; touch -d 2002-02-02 .",
            );
        }
    };
    site.plan().job.run(&site.lock(), &site.commands, &mut |name| change(name)).unwrap();
    let now = site.describe();
    let old = old_tree(&site);
    let mut wanted = describe(&old);
    wanted.insert(PathBuf::new(), now[&PathBuf::new()].clone());
    assert_same(&now, &wanted);
    assert!(now[&PathBuf::new()].contains("1012604400") || now[&PathBuf::new()].contains("1012608000"), "{now:?}");
    unmount(&site);
    assert_eq!(*site.commands.of_systemd.lock().unwrap().first().unwrap(), "stop -- shop.service");
}

#[test]
fn a_directory_in_use_is_put_back_as_it_was() {
    let disk = ext4();
    let site = Site::new(&disk);
    let before = site.describe();
    let mut reader = Command::new("sleep").arg("60").current_dir(site.directory()).spawn().unwrap();
    let plan = site.plan();
    assert!(plan.holders.iter().any(|holder| holder.pid == reader.id()));
    let refused = plan.job.run(&site.lock(), &site.commands, &mut |_| {}).unwrap_err();
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(refused.to_string().contains("is in use by sleep 60 (process"), "{refused}");
    site.assert_without_volume("after it was refused");
    assert_same(&site.describe(), &before);
    assert_eq!(*site.commands.of_systemd.lock().unwrap(), ["stop -- shop.service", "start -- shop.service"]);
    shell(&site.directory(), "echo writable > again");
}

#[test]
fn a_directory_that_is_mounted_elsewhere_too_is_put_back_as_it_was() {
    let disk = ext4();
    let site = Site::new(&disk);
    for (what, shown) in [("srv/my shop/deep", "container"), ("srv/my shop", "container"), ("srv", "container/my shop")]
    {
        shell(
            &site.root,
            &format!("mkdir -p container; mount --bind '{what}' container; mount --make-private container"),
        );
        let refused = site.adopt().unwrap_err().to_string();
        shell(&site.root, "umount container");
        let wanted = format!("is also to be seen at {}, which", site.root.join(shown).display());
        assert!(refused.contains(&wanted), "{what}: {refused}");
        site.assert_without_volume("after it was refused");
    }
}

#[test]
fn a_volume_that_fills_up_leaves_everything_as_it_was() {
    let disk = ext4();
    let site = Site::new(&disk);
    let plan = site.plan();
    // More than was there when it was planned.
    shell(&site.directory(), "head -c 290M /dev/urandom > grown");
    let before = site.describe();
    let error = plan.job.run(&site.lock(), &site.commands, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("No space left on device"), "{error}");
    site.assert_without_volume("after the volume was full");
    assert_same(&site.describe(), &before);
}

#[test]
fn what_cannot_be_moved_is_refused_before_anything_is_done() {
    let disk = ext4();
    let site = Site::new(&disk);
    let refused = |request: adopt::Request| {
        let error = adopt::plan(&request, &site.commands).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    };
    let usual = || site.request();
    let (error, _) = refused(adopt::Request { bytes: 100 << 20, ..usual() });
    assert!(error.contains("needs a volume of 269 MB at least"), "{error}");
    let (error, hint) = refused(adopt::Request { bytes: 2 << 30, ..usual() });
    assert!(error.contains("2182 MB are needed at") && hint.contains("smaller size"), "{error}");
    let (error, _) = refused(adopt::Request { image: site.directory().join("image"), ..usual() });
    assert!(error.contains("inside of itself"), "{error}");
    let (error, _) = refused(adopt::Request { directory: site.root.clone(), ..usual() });
    assert!(error.contains("is a mount point"), "{error}");
    std::fs::write(site.volumes().join("there"), "precious").unwrap();
    let (error, _) = refused(adopt::Request { image: site.volumes().join("there"), ..usual() });
    assert!(error.contains("exists already"), "{error}");
    shell(&site.directory(), "mount -t tmpfs none sticky");
    let (error, hint) = refused(usual());
    assert!(error.contains("is mounted below") && hint.starts_with("unmount it"), "{error}");
    shell(&site.directory(), "umount sticky");
    let without = Commands { has_no_mkfs: true, ..Commands::default() };
    let error = adopt::plan(&usual(), &without).unwrap_err();
    assert_eq!(error.hint(), Some("install the package btrfs-progs"));
    std::fs::remove_file(site.volumes().join("there")).unwrap();
    site.assert_without_volume("after it was only planned");
}

#[test]
fn a_volume_grows_while_it_is_mounted() {
    let disk = ext4();
    let site = Site::new(&disk);
    site.adopt().unwrap();
    let size = || {
        let found = rustix::fs::statvfs(site.directory()).unwrap();
        found.f_blocks * found.f_frsize
    };
    assert_eq!(size(), 280 << 20);
    let volume = site.volume().unwrap();
    volume.grow(320 << 20).unwrap();
    assert_eq!(size(), 320 << 20);
    volume.grow(320 << 20).unwrap();
    assert!(volume.grow(300 << 20).unwrap_err().to_string().contains("do not shrink"));
    let error = volume.grow(4 << 30).unwrap_err();
    assert!(error.to_string().contains("are free"), "{error}");
    assert_eq!(std::fs::metadata(&volume.image).unwrap().len(), 320 << 20);
}

#[test]
fn the_blocks_of_an_image_stay_reserved() {
    use std::os::unix::fs::MetadataExt as _;
    let disk = ext4();
    let site = Site::new(&disk);
    site.adopt().unwrap();
    let volume = site.volume().unwrap();
    let is_whole = || {
        let stat = std::fs::metadata(&volume.image).unwrap();
        stat.blocks() * 512 >= stat.len()
    };
    assert!(is_whole(), "after it was made");
    shell(&site.directory(), "head -c 50M /dev/urandom > large; sync -f .; rm large; sync -f .; fstrim . || true");
    assert!(is_whole(), "after files were removed and discarded");
    shell(&site.volumes(), "fallocate --punch-hole --offset 200MiB --length 9MiB shop.btrfs");
    assert!(!is_whole());
    volume.keep_up().unwrap();
    assert!(is_whole(), "after blocks were reserved again");
}

#[test]
fn a_volume_with_snapshots_is_not_moved_back() {
    let disk = ext4();
    let site = Site::new(&disk);
    site.adopt().unwrap();
    let mounts = snapshot::mounts::mounts().unwrap();
    let Some(snapshot::btrfs::Place::Subvolume(provider)) = snapshot::btrfs::open(&site.directory(), &mounts).unwrap()
    else {
        panic!("the directory is a subvolume");
    };
    use snapshot::provider::Provider as _;
    let snapshot = provider.create(snapshot::id::Id::random()).unwrap();
    let error = adopt::plan_back(&site.volume().unwrap(), Vec::new()).unwrap_err();
    assert!(error.to_string().contains("also holds .snapback"), "{error}");
    provider.delete(&snapshot).unwrap();
    site.go_back().unwrap();
    site.assert_without_volume("after it was moved back");
}

#[test]
fn the_mount_unit_mounts_what_is_there_now() {
    let disk = ext4();
    let site = Site::new(&disk);
    site.adopt().unwrap();
    let before = site.describe();
    let unit = std::fs::read_to_string(site.units().join(adopt::unit_name(&site.directory()))).unwrap();
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{key} in {unit}")).to_owned()
    };
    // As after a restart: systemd calls mount(8) with these.
    run(Command::new("umount").arg(site.directory()));
    assert_eq!(site.mounts(), [] as [PathBuf; 0]);
    run(Command::new("mount").args(["-t", &value("Type"), "-o", &value("Options"), &value("What"), &value("Where")]));
    assert_same(&site.describe(), &before);
    let found = shell(&site.units(), "systemd-analyze verify --man=no *.mount 2>&1 || true");
    assert!(!found.contains("ignoring") && !found.contains("Unknown"), "{found}");
    site.go_back().unwrap();
    assert_same(&site.describe(), &before);
}
