//! What the tests need from the system: real file systems, real attributes, the real restic.
//!
//! The table names each program once, with the Debian package that has it and the reason it is wanted. A part is
//! installed only if it is missing, so that a second run touches nothing.

use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A program the tests drive.
pub(crate) struct Part {
    /// The program that shows that the package is there.
    pub(crate) program: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// What the tests do with it.
    pub(crate) why: &'static str,
}

const PARTS: &[Part] = &[
    Part { program: "restic", package: "restic", why: "reads and judges what we write, and writes what we read" },
    Part { program: "getfattr", package: "attr", why: "extended attributes on files to be backed up" },
    Part { program: "setfacl", package: "acl", why: "access control lists on files to be backed up" },
    Part { program: "setcap", package: "libcap2-bin", why: "capabilities on files to be backed up" },
    Part { program: "mkfs.ext4", package: "e2fsprogs", why: "a small ext4 to run full, and flags of files" },
    Part { program: "mkfs.btrfs", package: "btrfs-progs", why: "a btrfs as source and as target" },
    Part { program: "mkfs.xfs", package: "xfsprogs", why: "an XFS as source and as target" },
    Part { program: "fusermount3", package: "fuse3", why: "mounting backups as a file system" },
    Part { program: "losetup", package: "mount", why: "file systems in image files" },
    Part { program: "zfs-fuse", package: "zfs-fuse", why: "a ZFS pool in an image file" },
    Part { program: "linux.uml", package: "user-mode-linux", why: "a guest with a device mapper, for thin volumes" },
    Part { program: "modprobe", package: "kmod", why: "the device mapper's modules in the guest" },
    Part { program: "mdadm", package: "mdadm", why: "a RAID in the guest" },
    Part { program: "sfdisk", package: "fdisk", why: "partitions in the guest" },
    Part { program: "lvs", package: "lvm2", why: "thin volumes in the guest" },
    Part { program: "thin_ls", package: "thin-provisioning-tools", why: "what a thin volume holds alone" },
    Part { program: "pg_ctlcluster", package: "postgresql", why: "a database under load in what is rolled back" },
    Part { program: "sqlite3", package: "sqlite3", why: "a program that writes to a database file all the time" },
    Part { program: "python3", package: "python3", why: "a socket among the files" },
    Part { program: "strace", package: "strace", why: "killing a guard at each of its durable steps" },
    Part { program: "bash", package: "bash", why: "a shell with job control, which stops a guard and goes on with it" },
    Part { program: "setsid", package: "util-linux", why: "a session of its own on a terminal of its own" },
    Part { program: "apt-get", package: "apt", why: "calls the hook, with packages and a configuration of its own" },
    Part { program: "systemd-analyze", package: "systemd", why: "reads the units that are installed" },
    Part { program: "diff", package: "diffutils", why: "comparing a restored tree with its source" },
];

/// The parts that are not on this machine.
pub(crate) fn missing() -> Vec<&'static Part> {
    PARTS.iter().filter(|part| shell::which(part.program).is_none()).collect()
}

/// Installs packages from the machine's own package sources. Needs root.
pub(crate) fn install(parts: &[&Part]) -> Result<()> {
    shell::run(&mut apt_get(&["update", "--quiet"])).context("the lists of packages")?;
    let mut install = apt_get(&["install", "--quiet", "--yes", "--no-install-recommends"]);
    install.args(parts.iter().map(|part| part.package));
    shell::run(&mut install)
}

/// The command with which an administrator installs them.
pub(crate) fn install_line(parts: &[&Part]) -> String {
    let packages: Vec<_> = parts.iter().map(|part| part.package).collect();
    format!("sudo apt-get install --no-install-recommends {}", packages.join(" "))
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    command
}
