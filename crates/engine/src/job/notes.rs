//! What a job writes down for the next one, in the state directory, and can do without: one that is damaged is removed.

use std::fs::DirBuilder;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;

use serde::de::DeserializeOwned;
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::state::State;

/// All of a kind; its directory is there afterwards.
pub(super) fn all<T: DeserializeOwned>(state: &State, kind: &str) -> Result<Vec<(Id, T)>, Error> {
    let directory = state.root().join(kind);
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => made.map_err(Error::io("create", &directory))?,
    }
    loop {
        match state.documents(kind) {
            Err(Error::Damaged { path, .. }) => std::fs::remove_file(&path).map_err(Error::io("remove", &path))?,
            listed => return listed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_note_is_removed_and_the_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let state = State::open(root.path()).unwrap();
        assert!(all::<u32>(&state, "notes").unwrap().is_empty());
        let (whole, damaged) = (Id::random(), Id::random());
        state.write("notes", whole, &7).unwrap();
        std::fs::write(root.path().join(format!("notes/{damaged}.json")), "{").unwrap();
        assert_eq!(all::<u32>(&state, "notes").unwrap(), [(whole, 7)]);
        assert!(!root.path().join(format!("notes/{damaged}.json")).exists());
    }
}
