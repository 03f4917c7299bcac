//! `snapback snapshot mount`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};
use snapshot::mounts;

use crate::error::CommandError;
use crate::global::Global;
use crate::output::{Output, printable};
use crate::signals;
use crate::snapshots::Session;

/// How soon an `umount` by somebody else is seen.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Show a snapshot as a read-only directory, until Ctrl-C or `umount`.
#[derive(Args, Debug)]
pub(crate) struct Command {
    /// Which
    #[arg(value_name = "SNAPSHOT")]
    snapshot: String,

    /// An empty directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    let session = Session::open(global, output)?;
    let (record, handle) = session.find(&command.snapshot)?;
    let point =
        command.directory.canonicalize().with_context(|| format!("cannot mount on {}", command.directory.display()))?;
    let view = session.reopen(&record.directory, &handle)?.view(&handle)?;
    signals::watch();
    bind(view.path(), &point)?;
    if output.json {
        output.json(&serde_json::json!({ "type": "mounted", "id": record.id, "directory": printable(&point) }))?;
    } else {
        let directory = printable(&point);
        output.message(format_args!("snapshot {} is at {directory}, until Ctrl-C or `umount {directory}`", record.id));
    }
    while is_mounted(&point)? {
        if signals::is_cancelled() {
            unmount(&point, UnmountFlags::DETACH).with_context(|| format!("cannot unmount {}", point.display()))?;
            break;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(ExitCode::SUCCESS)
}

fn bind(tree: &Path, point: &Path) -> Result<()> {
    match mount_bind(tree, point) {
        Err(Errno::PERM) => {
            let error = CommandError::new("cannot mount without CAP_SYS_ADMIN");
            return Err(error.hint(format!("run it as root; or look into {} itself", tree.display())).into());
        }
        bound => bound.with_context(|| format!("cannot mount on {}", point.display()))?,
    }
    let read_only =
        mount_remount(point, MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV, "");
    if read_only.is_err() {
        let _ = unmount(point, UnmountFlags::DETACH);
    }
    read_only.with_context(|| format!("cannot make {} read-only", point.display()))
}

fn is_mounted(point: &Path) -> Result<bool> {
    Ok(mounts::mounts()?.iter().any(|mount| mount.point == point))
}
