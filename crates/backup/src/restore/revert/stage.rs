//! What has to be made, made beside the live tree: each under its number, with all its attributes.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use repository::Error;
use repository::tree::{Node, NodeKind};

use super::{Options, RevertError, Source};
use crate::attributes::{Before, Entry, Stat, create};
use crate::progress::Progress;
use crate::restore::content::Batch;
use crate::restore::place::Place;
use crate::restore::run::Run;
use crate::restore::{self, Overwrite};

/// Hands on what the caller should see, and keeps what makes the whole of no use.
struct Watch<'a> {
    progress: &'a dyn Progress,
    first: Mutex<Option<String>>,
}

impl Progress for Watch<'_> {
    fn bytes_done(&self, bytes: u64) {
        self.progress.bytes_done(bytes);
    }

    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| format!("{}: {error}", path.display()));
    }

    fn warning(&self, text: &str) {
        self.progress.warning(text);
    }

    fn is_cancelled(&self) -> bool {
        self.progress.is_cancelled()
    }
}

pub(super) fn stage(
    source: Source<'_>,
    options: Options<'_>,
    staging: &Path,
    made: &[(u64, Node)],
) -> Result<(), RevertError> {
    let watch = Watch { progress: options.progress, first: Mutex::default() };
    let restoring = restore::Options {
        path: None,
        include: None,
        exclude: None,
        delete: Vec::new(),
        overwrite: Overwrite::Always,
        dry_run: false,
        verify: false,
        progress: &watch,
    };
    let run = Run::new(source.repository, source.index, &restoring);
    let mut root = run.open_target(staging)?;
    if let Some(root) = Arc::get_mut(&mut root) {
        root.is_fresh = true;
    }
    let mut batch = Batch::default();
    for (number, node) in made {
        // Names that are to be one file are linked when they are in place.
        let name: Box<[u8]> = number.to_string().into_bytes().into();
        let node = Node { name: name.clone(), links: 1, ..node.clone() };
        let place = Place { directory: Arc::clone(&root), name };
        if node.kind == NodeKind::File {
            batch.add(&run, place, node);
            if batch.is_full() {
                std::mem::take(&mut batch).restore(&run)?;
            }
        } else {
            make_other(&run, &place, &node)?;
        }
    }
    batch.restore(&run)?;
    if options.progress.is_cancelled() {
        return Err(Error::Cancelled.into());
    }
    let failed = watch.first.lock().unwrap_or_else(PoisonError::into_inner).take();
    match failed {
        // As an ordinary user some attributes cannot be set, and could not be before.
        Some(error) if !run.has_lost_only_attributes() => Err(RevertError::Refused(error)),
        Some(error) => {
            options.progress.warning(&error);
            Ok(())
        }
        None => Ok(()),
    }
}

fn make_other(run: &Run<'_>, place: &Place, node: &Node) -> Result<(), RevertError> {
    let path = place.path();
    let dir = place.directory.open().map_err(RevertError::io("open the directory of", &path))?;
    let entry = Entry { dir: dir.as_fd(), name: &place.name, dir_path: Path::new("") };
    let made = create(entry, node).map_err(|error| RevertError::io("create", &path)(error.source))?;
    if !made {
        return Err(RevertError::Refused(format!("the backup has something of the unknown kind {}", node.kind)));
    }
    let stat = Stat::at(entry).map_err(|error| RevertError::io("look at", &path)(error.source))?;
    run.finish_file(place, node, None, &Before::changed(&stat));
    Ok(())
}
