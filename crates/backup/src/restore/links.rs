//! Files with several names: which was the first one, and which wait to be linked to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use repository::tree::{Node, NodeKind, Timestamp};

use crate::restore::place::Place;

#[derive(Default)]
pub(super) struct Links {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By file system and inode of the backup.
    first_names: HashMap<(u64, u64), FirstName>,
    waiting: Vec<Link>,
}

struct FirstName {
    place: Place,
    kind: NodeKind,
    /// Names still to come; some may lie outside of the backup.
    others: u64,
}

/// A name that waits.
pub(super) struct Link {
    /// The name under which the file is restored.
    pub(super) first: Place,
    pub(super) place: Place,
    pub(super) mtime: Timestamp,
}

/// What a name is.
pub(super) enum Name {
    /// The first one of its file, or the only one.
    First,
    /// A further one, which now waits. After the last one, the first one's place is let go.
    Further(Option<Place>),
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the links are held")
    }

    /// Which name of its file this is. Remembers first ones.
    pub(super) fn meet(&self, place: &Place, node: &Node) -> Name {
        if node.links < 2 || node.inode == 0 {
            return Name::First;
        }
        let key = (node.device_id, node.inode);
        let mut state = self.lock();
        let Some(first) = state.first_names.get_mut(&key) else {
            let first = FirstName { place: place.clone(), kind: node.kind.clone(), others: node.links - 1 };
            state.first_names.insert(key, first);
            return Name::First;
        };
        // A link and a file are never one inode; whoever says so would have the one stand in for the other.
        if first.kind != node.kind {
            return Name::First;
        }
        first.others = first.others.saturating_sub(1);
        let is_last = first.others == 0;
        let link = Link { first: first.place.clone(), place: place.clone(), mtime: node.mtime };
        state.waiting.push(link);
        let known = if is_last { state.first_names.remove(&key) } else { None };
        Name::Further(known.map(|first| first.place))
    }

    /// The first name does not become what the backup has, so the next one is to be restored by itself. Gives the place
    /// that is let go.
    pub(super) fn forget(&self, place: &Place, node: &Node) -> Option<Place> {
        let mut state = self.lock();
        let key = (node.device_id, node.inode);
        let is_first =
            |known: &FirstName| Arc::ptr_eq(&known.place.directory, &place.directory) && known.place.name == place.name;
        let is_known = node.links >= 2 && state.first_names.get(&key).is_some_and(is_first);
        if is_known { state.first_names.remove(&key).map(|first| first.place) } else { None }
    }

    /// How many names wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The names that wait.
    pub(super) fn take_waiting(&self) -> Vec<Link> {
        std::mem::take(&mut self.lock().waiting)
    }

    /// The places of first names whose others lie outside of the backup.
    pub(super) fn take_first_names(&self) -> Vec<Place> {
        std::mem::take(&mut self.lock().first_names).into_values().map(|first| first.place).collect()
    }
}
