//! A disk, and what tells whether two are one: NVMe namespaces, boot partitions of an eMMC and the paths of a
//! multipathed disk have several devices for the same piece of hardware.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// A disk, as far as this machine can see it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Disk {
    /// The kernel's name: `sda`, `nvme0n1`.
    pub name: String,
    /// The hardware: its directory in sysfs, without `/sys/devices`.
    pub hardware: String,
    /// What the hardware says it is, if it says so: a World Wide Name, or a serial number with the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whether it is the last thing there is to see.
    pub sight: Sight,
}

/// What lies behind a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// Nothing: it is the thing itself.
    Physical,
    /// A hypervisor, which may keep several of them on one disk.
    Virtual,
    /// A RAID controller, which may do the same.
    Controller,
    /// A network: it lies on another machine.
    Remote,
}

/// What hardware RAID calls itself, in the vendor or the model, in upper case.
const CONTROLLERS: [&str; 11] =
    ["PERC", "LOGICAL VOLUME", "MEGARAID", "SERVERAID", "AVAGO", "MR9", "ADAPTEC", "3WARE", "ARECA", "RAID", "LSI"];

impl Disk {
    /// The disk of a directory in `/sys/class/block` that has a `device`.
    pub(super) fn read(name: &str, directory: &Path, is_virtual_machine: bool) -> Disk {
        let device = directory.join("device");
        let canonical = device.canonicalize().unwrap_or_else(|_| device.clone()).to_string_lossy().into_owned();
        let hardware = canonical.split_once("/sys/devices/").map_or(canonical.as_str(), |(_, below)| below).to_owned();
        let text = |file: &str| {
            let text = std::fs::read_to_string(directory.join(file)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let model = text("device/model").unwrap_or_default();
        // An NVMe disk has one serial number for all its namespaces, and each of them a WWID of its own.
        let serial = text("device/serial").map(|serial| format!("{model} {serial}").trim().to_owned());
        let identity = serial.or_else(|| text("device/wwid")).or_else(|| text("wwid"));
        let make = format!("{} {model}", text("device/vendor").unwrap_or_default()).to_uppercase();
        let transport = text("device/transport").or_else(|| transport_of_paths(&device));
        let sight = if is_remote(name, &hardware, transport.as_deref()) {
            Sight::Remote
        } else if is_virtual(&hardware) || (is_virtual_machine && !hardware.contains("/usb")) {
            Sight::Virtual
        } else if CONTROLLERS.iter().any(|controller| make.contains(controller)) {
            Sight::Controller
        } else {
            Sight::Physical
        };
        Disk { name: name.to_owned(), hardware, identity, sight }
    }

    /// A disk of another machine that has no hardware here.
    pub(super) fn remote(name: &str) -> Disk {
        Disk { name: name.to_owned(), hardware: name.to_owned(), identity: None, sight: Sight::Remote }
    }

    /// Whether it is the same hardware.
    pub fn is(&self, other: &Disk) -> bool {
        self.name == other.name
            || self.hardware == other.hardware
            || (self.identity.is_some() && self.identity == other.identity)
    }

    /// Why it is not known whether another one, of the same sight, is the same hardware.
    pub(super) fn cannot_be_told_from(&self, other: &Disk) -> String {
        let behind = match self.sight {
            Sight::Physical => "the hardware",
            Sight::Virtual => "the virtual machine's host",
            Sight::Controller => "the RAID controller",
            Sight::Remote => "the storage at the other end of the network",
        };
        format!("whether {behind} keeps {} and {} on one disk cannot be seen", self.name, other.name)
    }
}

/// virtio, Hyper-V, Xen, User Mode Linux.
fn is_virtual(hardware: &str) -> bool {
    let part = |start: &str| hardware.split('/').any(|part| part.starts_with(start));
    part("virtio") || part("VMBUS") || part("vbd-") || part("uml-blkdev")
}

/// iSCSI, Fibre Channel, NVMe over fabrics, network block devices, Ceph, ATA over Ethernet.
fn is_remote(name: &str, hardware: &str, transport: Option<&str>) -> bool {
    let part = |start: &str| hardware.split('/').any(|part| part.starts_with(start));
    let named = ["nbd", "rbd", "etherd"].iter().any(|start| name.starts_with(start));
    named || part("session") || part("rport-") || transport.is_some_and(|transport| transport != "pcie")
}

/// With native multipath an NVMe namespace hangs below its subsystem, and only the controllers there know the transport.
fn transport_of_paths(subsystem: &Path) -> Option<String> {
    let controllers = std::fs::read_dir(subsystem).ok()?.flatten();
    let mut transports =
        controllers.filter_map(|controller| std::fs::read_to_string(controller.path().join("transport")).ok());
    transports.next().map(|text| text.trim().to_owned())
}
