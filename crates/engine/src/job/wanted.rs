//! What a backup is to hold, besides where it is read.

use backup::patterns::Patterns;

use super::Error;
use crate::config::Project;

/// The project, and what decides which of its entries are taken.
pub(super) struct Wanted<'a> {
    pub(super) project: &'a Project,
    /// The project's patterns, and those for what nobody needs.
    pub(super) left_out: Vec<String>,
    /// All that decides what is in a backup.
    pub(super) settings: String,
    /// After so many backups everything is looked at.
    pub(super) full_walk: u32,
}

impl Wanted<'_> {
    /// The project's own patterns, or what goes beyond them.
    pub(super) fn patterns(&self) -> Result<Option<Patterns>, Error> {
        let Project { name, exclude, .. } = self.project;
        if exclude.is_empty() && self.left_out.is_empty() {
            return Ok(None);
        }
        let read = |texts: &[String]| {
            Patterns::new(texts.iter().map(String::as_str))
                .map_err(|error| Error::Project { project: name.clone(), reason: error.to_string() })
        };
        Ok(Some(read(exclude)?.or(read(&self.left_out)?)))
    }
}
