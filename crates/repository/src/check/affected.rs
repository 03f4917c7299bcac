//! Which files need what a damaged pack held. Walks all trees once more, but only if something is damaged.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::blob::BlobKind;
use crate::error::Error;
use crate::id::Id;
use crate::index::Index;
use crate::progress::Progress;
use crate::reachable::{At, Flaw, Place, Visitor, walk};
use crate::repository::Repository;
use crate::tree::Node;

use super::report::{Problem, Report};

/// A person needs to know which files, not all ten thousand of them.
const MAX_PLACES: usize = 10;

struct Search {
    /// The lost blobs, each with the problem (by number) that tells of it.
    lost: HashMap<(BlobKind, Id), usize>,
    places: Vec<Mutex<Vec<Place>>>,
}

impl Search {
    fn note(&self, kind: BlobKind, id: &Id, at: &At<'_>) {
        if let Some(&problem) = self.lost.get(&(kind, *id)) {
            let mut places = self.places[problem].lock().expect("no panic while the places are held");
            if places.len() < MAX_PLACES {
                let place = at.place();
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
    }
}

impl Visitor for Search {
    fn node(&self, at: &At<'_>, node: &Node) {
        node.content.iter().flatten().for_each(|id| self.note(BlobKind::Data, id, at));
        node.subtree.iter().for_each(|id| self.note(BlobKind::Tree, id, at));
    }

    fn flaw(&self, _at: &At<'_>, _flaw: Flaw) -> Result<(), Error> {
        Ok(())
    }
}

/// Fills in the files that need lost blobs.
pub(super) fn find(
    repository: &Repository,
    index: &Index,
    records: &[(Id, Id)],
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<(), Error> {
    let mut lost = HashMap::new();
    let mut missing = HashMap::new();
    for (number, problem) in report.errors.iter().enumerate() {
        match problem {
            Problem::PackMissing { pack, .. } => _ = missing.insert(*pack, number),
            Problem::PackSize { lost: blobs, .. } | Problem::PackDamaged { lost: blobs, .. } => {
                lost.extend(blobs.iter().map(|&blob| (blob, number)));
            }
            _ => {}
        }
    }
    if !missing.is_empty() {
        for (pack, blob) in index.iter() {
            if let Some(&number) = missing.get(&index.packs()[pack]) {
                lost.insert((blob.kind, blob.id), number);
            }
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    let places = report.errors.iter().map(|_| Mutex::default()).collect();
    let search = Search { lost, places };
    walk(repository, index, records, &search, progress)?;
    for (problem, places) in report.errors.iter_mut().zip(search.places) {
        if let Problem::PackMissing { affected, .. }
        | Problem::PackSize { affected, .. }
        | Problem::PackDamaged { affected, .. } = problem
        {
            *affected = places.into_inner().expect("no panic while the places are held");
            affected.sort();
        }
    }
    Ok(())
}
