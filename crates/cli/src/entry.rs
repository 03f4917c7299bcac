//! One entry of a backup, as `ls`, `find` and `diff` show it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use repository::tree::{Node, NodeKind, st_mode_from_file_mode};
use serde::Serialize;

use crate::human;
use crate::output::{Output, printable};

/// As `--json` shows it.
#[derive(Serialize)]
pub(crate) struct Document {
    pub(crate) path: String,
    #[serde(rename = "type")]
    kind: String,
    permissions: String,
    uid: u32,
    gid: u32,
    user: String,
    group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mtime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_target: Option<String>,
}

impl Document {
    pub(crate) fn new(path: &Path, node: &Node) -> Self {
        let is = |kind: NodeKind| node.kind == kind;
        let target = || String::from_utf8_lossy(&node.link_target).into_owned();
        Document {
            path: path.to_string_lossy().into_owned(),
            kind: node.kind.to_string(),
            permissions: permissions(node),
            uid: node.uid,
            gid: node.gid,
            user: node.user.to_string(),
            group: node.group.to_string(),
            size: is(NodeKind::File).then_some(node.size),
            mtime: node.mtime.to_string(),
            link_target: is(NodeKind::Symlink).then(target),
        }
    }
}

/// What stands before the path in a long listing.
pub(crate) fn long(node: &Node, output: &Output) -> String {
    let owner = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { name.to_owned() };
    let size = match (&node.kind, output.verbose) {
        (NodeKind::File, true) => human::count(node.size),
        (NodeKind::File, false) => human::size(node.size),
        (NodeKind::BlockDevice | NodeKind::CharDevice, _) => {
            format!("{}, {}", rustix::fs::major(node.device), rustix::fs::minor(node.device))
        }
        _ => String::new(),
    };
    let width = if output.verbose { 15 } else { 7 };
    format!(
        "{}  {:8} {:8} {size:>width$}  {}  ",
        permissions(node),
        owner(&node.user, node.uid),
        owner(&node.group, node.gid),
        if output.verbose { human::exact_time(node.mtime) } else { human::local_time(node.mtime) },
    )
}

/// What stands behind the path: a directory's slash, a link's target.
pub(crate) fn suffix(node: &Node, long: bool) -> String {
    match node.kind {
        NodeKind::Dir => "/".to_owned(),
        NodeKind::Symlink if long => {
            format!(" -> {}", printable(Path::new(OsStr::from_bytes(&node.link_target))))
        }
        _ => String::new(),
    }
}

/// `drwxr-sr-x`, as ls(1) has it.
fn permissions(node: &Node) -> String {
    let mode = st_mode_from_file_mode(node.mode);
    let mut text = String::from(match node.kind {
        NodeKind::File => "-",
        NodeKind::Dir => "d",
        NodeKind::Symlink => "l",
        NodeKind::BlockDevice => "b",
        NodeKind::CharDevice => "c",
        NodeKind::Fifo => "p",
        NodeKind::Socket => "s",
        NodeKind::Other(_) => "?",
    });
    // Setuid, setgid and sticky take the place of the x they go with.
    for (shift, special, letters) in [(6, 0o4000, ('s', 'S')), (3, 0o2000, ('s', 'S')), (0, 0o1000, ('t', 'T'))] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letters.0,
            (false, true) => letters.1,
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}
