//! Descriptors of the target's directories: as many stay open as a process may have, the oldest are closed, and opened
//! again when they are needed. So neither the depth of a tree nor its width, nor hard links across it, use them up.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, Weak};

use rustix::io::Errno;

use crate::attributes::Stat;

/// Directories open at once, well below the usual limit of 1024 files and above what one batch uses.
const MAX_OPEN: usize = 700;

type Slot = Mutex<Option<Arc<OwnedFd>>>;

/// The descriptors of a run, the oldest first.
#[derive(Default)]
pub(super) struct Handles {
    oldest: Mutex<VecDeque<Weak<Slot>>>,
}

/// One directory's descriptor, which may be closed just now.
pub(super) struct Handle {
    handles: Arc<Handles>,
    slot: Arc<Slot>,
    identity: (u64, u64),
}

impl Handle {
    /// Keeps a directory that stays open: the target itself, which has no name to open it by again.
    pub(super) fn permanent(handles: &Arc<Handles>, open: OwnedFd, stat: &Stat) -> Self {
        let slot = Arc::new(Mutex::new(Some(Arc::new(open))));
        Handle { handles: Arc::clone(handles), slot, identity: (stat.device, stat.inode) }
    }

    /// Keeps an open directory.
    pub(super) fn new(handles: &Arc<Handles>, open: OwnedFd, stat: &Stat) -> Self {
        let handle = Handle::permanent(handles, open, stat);
        handles.opened(&handle.slot);
        handle
    }

    /// The directory if it is open just now.
    pub(super) fn if_open(&self) -> Option<Arc<OwnedFd>> {
        self.slot.lock().expect("no panic while a descriptor is held").clone()
    }

    /// The open directory. One that was closed is opened by `reopen`; another one that has taken its place
    /// meanwhile is refused.
    pub(super) fn get(&self, reopen: impl FnOnce() -> Result<OwnedFd, Errno>) -> Result<Arc<OwnedFd>, Errno> {
        let mut slot = self.slot.lock().expect("no panic while a descriptor is held");
        if let Some(open) = &*slot {
            return Ok(Arc::clone(open));
        }
        let open = reopen()?;
        let stat = Stat::of(open.as_fd())?;
        if (stat.device, stat.inode) != self.identity {
            return Err(Errno::STALE);
        }
        let open = Arc::new(open);
        *slot = Some(Arc::clone(&open));
        drop(slot);
        self.handles.opened(&self.slot);
        Ok(open)
    }
}

impl Handles {
    fn opened(&self, slot: &Arc<Slot>) {
        let mut oldest = self.oldest.lock().expect("no panic while the descriptors are held");
        oldest.push_back(Arc::downgrade(slot));
        let excess = oldest.len().saturating_sub(MAX_OPEN);
        let to_close: Vec<_> = oldest.drain(..excess).collect();
        drop(oldest);
        for slot in to_close.iter().filter_map(Weak::upgrade) {
            // Whoever uses it just now has a share in it, and it is closed after that.
            *slot.lock().expect("no panic while a descriptor is held") = None;
        }
    }
}
