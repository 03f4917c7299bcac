//! Files with several names: restored under the first one, the others are linked to it once it is there.

use std::os::fd::AsFd as _;
use std::path::Path;

use repository::tree::{Node, Timestamp};
use rustix::fs::{AtFlags, linkat};
use rustix::io::Errno;

use crate::attributes::{Entry, Stat};
use crate::restore::links::{Link, Name};
use crate::restore::place::Place;
use crate::restore::remove::clear;
use crate::restore::run::{Run, add};
use crate::restore::should_leave;

/// Whether this is a further name of a file that is restored under its first one. Remembers first names.
pub(super) fn is_further_name(run: &Run<'_>, place: &Place, node: &Node) -> bool {
    match run.links.meet(place, node) {
        Name::First => false,
        Name::Further(let_go) => {
            if let Some(place) = let_go {
                run.finish_directory(place.directory);
            }
            true
        }
    }
}

/// The first name does not become what the backup has, so the next one is to be restored by itself.
pub(super) fn forget(run: &Run<'_>, place: &Place, node: &Node) {
    if let Some(place) = run.links.forget(place, node) {
        run.finish_directory(place.directory);
    }
}

/// Makes the further names met so far. All first ones must be there.
pub(super) fn make(run: &Run<'_>) {
    for Link { first, place, mtime } in run.links.take_waiting() {
        if !run.options.dry_run && !run.options.progress.is_cancelled() {
            match link(run, &first, &place, mtime) {
                Ok(made) => add(&run.counts.others, u64::from(made)),
                Err(error) => {
                    let first = first.path();
                    run.error(&place.path(), &format_args!("cannot link it to {}: {error}", first.display()));
                }
            }
        }
        run.finish_directory(first.directory);
        run.finish_directory(place.directory);
    }
}

/// Makes the last ones, and lets go of the directories of names whose others lie outside of the backup.
pub(super) fn end(run: &Run<'_>) {
    make(run);
    for first in run.links.take_first_names() {
        run.finish_directory(first.directory);
    }
}

/// Gives whether there is a link to the first name now.
fn link(run: &Run<'_>, first: &Place, place: &Place, mtime: Timestamp) -> Result<bool, Errno> {
    let (from, to) = (first.directory.open()?, place.directory.open()?);
    let make = || linkat(&from, &*first.name, &to, &*place.name, AtFlags::empty());
    match make() {
        Err(Errno::EXIST) => {}
        made => return made.map(|()| true),
    }
    let is = Stat::at(Entry { dir: to.as_fd(), name: &place.name, dir_path: Path::new("") });
    let should = Stat::at(Entry { dir: from.as_fd(), name: &first.name, dir_path: Path::new("") });
    if let (Ok(is), Ok(should)) = (is, should) {
        if (is.device, is.inode) == (should.device, should.inode) {
            return Ok(true);
        }
        if should_leave(run.options.overwrite, &is, mtime) {
            return Ok(false);
        }
    }
    clear(&to, &place.name, !run.options.delete.is_empty())?;
    make().map(|()| true)
}
