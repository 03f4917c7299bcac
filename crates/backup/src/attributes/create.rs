//! Making what has no contents.

use repository::tree::{Node, NodeKind};
use rustix::fs::{FileType, Mode, mknodat, symlinkat};

use super::{Action, AttributeError, Entry};

/// Makes a symbolic link, fifo or device, for its owner alone until the attributes are applied. `false` if the node is
/// something else: files and directories are the restore's work, and a socket is made by the program that listens.
///
/// # Errors
/// That of symlink(2) or mknod(2); `AlreadyExists` if something is in the way; devices are for root only.
pub fn create(entry: Entry<'_>, node: &Node) -> Result<bool, AttributeError> {
    let special = |kind, device| mknodat(entry.dir, entry.name, kind, Mode::RUSR | Mode::WUSR, device);
    let (what, made) = match node.kind {
        NodeKind::Symlink => ("symbolic link", symlinkat(&*node.link_target, entry.dir, entry.name)),
        NodeKind::Fifo => ("fifo", special(FileType::Fifo, 0)),
        NodeKind::BlockDevice => ("block device", special(FileType::BlockDevice, node.device)),
        NodeKind::CharDevice => ("character device", special(FileType::CharacterDevice, node.device)),
        _ => return Ok(false),
    };
    made.map(|()| true).map_err(|source| entry.error(Action::Create(what), source))
}
