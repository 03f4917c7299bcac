//! A backup as a read-only tree, by FUSE.
//!
//! It is mounted below the state directory, under the name of the process that looks; what a process left that was
//! killed is cleared by the next who looks.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup::mount::{self, Mount};
use backup::progress::Progress;
use repository::lock::Lock;
use rustix::mount::UnmountFlags;
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::provider::{Handle, View};

use super::store::name_tag;
use super::{Net, room};
use crate::process::Process;

struct Mounted {
    mount: Option<Mount>,
    point: PathBuf,
    tree: PathBuf,
    _lock: Arc<Lock>,
}

impl View for Mounted {
    fn path(&self) -> &Path {
        &self.tree
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(self.mount.take());
        let _ = fs::remove_dir(&self.point);
    }
}

impl Net {
    /// Shows a backup.
    pub(super) fn show(&self, handle: &Handle) -> Result<Box<dyn View>, Error> {
        let open = self.opened()?;
        let lock = open.lock(false)?;
        let net = self.net(&open, self.store.backup(handle)?)?;
        let index = open.index()?;
        let views = self.nets.state.join("net-views");
        DirBuilder::new().mode(0o700).recursive(true).create(&views).map_err(Error::io("create", &views))?;
        sweep(&views)?;
        let own = Process::current()?;
        let point = views.join(format!("{}-{}-{}", own.pid, own.start, Id::random()));
        DirBuilder::new().mode(0o700).create(&point).map_err(Error::io("create", &point))?;
        let options = mount::Options { allow_other: rustix::process::geteuid().is_root(), ..mount::Options::default() };
        let progress: Arc<dyn Progress + Send + Sync> = Arc::new(room::Nobody);
        let mounted = mount::mount(Arc::clone(&open.repository), index, &point, &options, progress);
        let mount = mounted.map_err(|error| {
            let _ = fs::remove_dir(&point);
            Error::refused(format!("the net cannot be looked into: {error}"))
                .or("`snapback rollback` works without; looking takes FUSE: /dev/fuse, and fuse3 for ordinary users")
        })?;
        let name = net.name.map(name_tag).unwrap_or_default();
        let below = self.directory.strip_prefix("/").unwrap_or(&self.directory);
        let backup = point.join("tags").join(name).join("latest");
        // The link is followed once and for all, or the root of the view would be one.
        let tree = backup.canonicalize().map_err(Error::io("look into", &backup))?.join(below);
        Ok(Box::new(Mounted { mount: Some(mount), point, tree, _lock: lock }))
    }
}

/// Clears what processes left that are gone.
fn sweep(views: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(views).map_err(Error::io("list", views))? {
        let entry = entry.map_err(Error::io("list", views))?;
        let name = entry.file_name();
        let mut words = name.to_str().unwrap_or_default().split('-').map(str::parse::<u64>);
        let (Some(Ok(pid)), Some(Ok(start))) = (words.next(), words.next()) else { continue };
        let is_there = i32::try_from(pid).ok().and_then(|pid| Process::of(pid).ok());
        if is_there.is_none_or(|process| process.start != start) {
            while rustix::mount::unmount(entry.path(), UnmountFlags::DETACH).is_ok() {}
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}
