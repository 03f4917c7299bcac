//! Looking into backups without restoring them: walk their trees, find paths, compare two, read a file, pack a
//! directory as tar.
//!
//! Whatever a tree says is taken as hostile: names that would lead out of their directory are reported and left out.
//! Nothing here writes to the file system.

mod content;
mod diff;
mod find;
mod path;
mod tar;
mod walk;

pub use content::{ContentError, write_content};
pub use diff::{Change, Difference, diff};
pub use find::{Finder, Match, Version};
pub use path::{Found, PathError, find_path};
pub use tar::write_tar;
pub use walk::{Descend, walk};
