//! A machine that exists on paper: `sys`, `dev`, `proc` and `etc` below a temporary directory, laid out as the kernel
//! does it. What a guest with a real device mapper shows is held against the same code in `guest.rs`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::place::{Place, Relation, System};
use snapshot::runner::{Outcome, Runner};

/// The machine.
pub(crate) struct Machine {
    root: tempfile::TempDir,
    devices: u32,
    mounts: Vec<String>,
}

/// Answers `zpool status` with a text, and knows nothing else.
struct Pools(&'static str);

impl Runner for Pools {
    fn run(&self, program: &str, arguments: &[std::ffi::OsString]) -> std::io::Result<Outcome> {
        assert_eq!((program, arguments[0].to_str()), ("zpool", Some("status")));
        Ok(Outcome { code: Some(0), stdout: self.0.into(), stderr: Vec::new() })
    }
}

impl Machine {
    pub(crate) fn new() -> Machine {
        let machine = Machine { root: tempfile::tempdir().unwrap(), devices: 0, mounts: Vec::new() };
        machine.write("proc/sys/kernel/hostname", "shop\n");
        machine.write("etc/hosts", "127.0.0.1 localhost\n192.0.2.7 shop.example.org\n");
        machine.write("proc/net/fib_trie", "     |-- 192.0.2.7\n        /32 host LOCAL\n");
        fs::create_dir_all(machine.path("sys/class/block")).unwrap();
        fs::create_dir_all(machine.path("sys/dev/block")).unwrap();
        fs::create_dir_all(machine.path("sys/devices")).unwrap();
        machine
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A block device in a directory below `/sys/devices`.
    fn block(&mut self, name: &str, directory: &str) {
        self.devices += 1;
        let number = format!("8:{}", self.devices);
        fs::create_dir_all(self.path(&format!("sys/devices/{directory}/slaves"))).unwrap();
        self.write(&format!("sys/devices/{directory}/dev"), &format!("{number}\n"));
        self.link(&format!("sys/class/block/{name}"), &format!("../../devices/{directory}"));
        self.link(&format!("sys/dev/block/{number}"), &format!("../../devices/{directory}"));
        self.write(&format!("dev/{}", name.replace('!', "/")), "");
    }

    /// A disk with attributes of its `device`, and partitions.
    pub(crate) fn disk(&mut self, name: &str, hardware: &str, attributes: &[(&str, &str)], partitions: &[&str]) {
        let directory = format!("{hardware}/block/{name}");
        self.block(name, &directory);
        self.link(&format!("sys/devices/{directory}/device"), "../..");
        for (attribute, value) in attributes {
            self.write(&format!("sys/devices/{hardware}/{attribute}"), &format!("{value}\n"));
        }
        for partition in partitions {
            self.block(partition, &format!("{directory}/{partition}"));
            self.write(&format!("sys/devices/{directory}/{partition}/partition"), "1\n");
        }
    }

    /// A namespace of an NVMe controller: a directory of the controller itself.
    pub(crate) fn nvme(&mut self, name: &str, controller: &str, serial: &str, partitions: &[&str]) {
        let directory = format!("{controller}/{name}");
        self.block(name, &directory);
        self.link(&format!("sys/devices/{directory}/device"), "..");
        self.write(&format!("sys/devices/{directory}/wwid"), &format!("eui.{name}\n"));
        for (attribute, value) in [("model", "Example SSD 1TB"), ("serial", serial), ("transport", "pcie")] {
            self.write(&format!("sys/devices/{controller}/{attribute}"), &format!("{value}   \n"));
        }
        for partition in partitions {
            self.block(partition, &format!("{directory}/{partition}"));
            self.write(&format!("sys/devices/{directory}/{partition}/partition"), "1\n");
        }
    }

    /// A device upon others: of the device mapper, of RAID.
    pub(crate) fn stacked(&mut self, name: &str, attributes: &[(&str, &str)], slaves: &[&str]) {
        let directory = format!("virtual/block/{name}");
        self.block(name, &directory);
        for (attribute, value) in attributes {
            self.write(&format!("sys/devices/{directory}/{attribute}"), &format!("{value}\n"));
            if *attribute == "dm/name" {
                self.link(&format!("dev/mapper/{value}"), &format!("../{name}"));
            }
        }
        for slave in slaves {
            self.link(
                &format!("sys/devices/{directory}/slaves/{slave}"),
                &format!("../../../../../class/block/{slave}"),
            );
        }
    }

    /// A btrfs that has these devices.
    pub(crate) fn btrfs(&self, uuid: &str, devices: &[&str]) {
        for device in devices {
            self.link(&format!("sys/fs/btrfs/{uuid}/devices/{device}"), &format!("../../../../class/block/{device}"));
        }
    }

    /// Mounts a block device.
    pub(crate) fn mount(&mut self, point: &str, kind: &str, device: &str) {
        let name = self.path(&format!("dev/{device}")).canonicalize().unwrap();
        let name = name.file_name().unwrap().to_str().unwrap().to_owned();
        let number = fs::read_to_string(self.path(&format!("sys/class/block/{name}/dev"))).unwrap();
        self.mount_as(point, kind, &format!("/dev/{device}"), number.trim(), "rw");
    }

    /// Mounts whatever the kernel would show as a number, a source and options.
    pub(crate) fn mount_as(&mut self, point: &str, kind: &str, source: &str, number: &str, options: &str) {
        let id = 20 + self.mounts.len();
        fs::create_dir_all(self.path(point)).unwrap();
        self.mounts.push(format!("{id} 1 {number} / {point} rw,relatime - {kind} {source} {options}\n"));
        self.write("proc/self/mountinfo", &self.mounts.concat());
    }

    fn system(&self, pools: &'static str) -> System {
        System::open(self.root.path(), Arc::new(Pools(pools))).unwrap()
    }

    pub(crate) fn place(&self, url: &str) -> Place {
        Place::of_repository(url, &self.system(""))
    }

    pub(crate) fn place_in_pool(&self, path: &str, pools: &'static str) -> Place {
        Place::of_path(Path::new(path), &self.system(pools))
    }

    pub(crate) fn relation(&self, one: &str, other: &str) -> Relation {
        let (one, other) = (self.place(one), self.place(other));
        let relation = one.relation_to(&other);
        assert_eq!(relation.nearness, other.relation_to(&one).nearness, "it is the same the other way around");
        relation
    }
}

/// The names of its disks.
pub(crate) fn disks(place: &Place) -> Vec<&str> {
    place.disks.iter().map(|disk| disk.name.as_str()).collect()
}
