//! Patterns for paths: what to leave out, or to take alone. They mean what they mean to restic.
//!
//! A pattern is compared component by component. One that begins with `/` begins at the root, every other one matches
//! anywhere in the path. What matches a directory covers everything below it. `**` stands for any number of
//! components; within a component see [`Glob`]. `!` before a pattern takes back what patterns before it matched. In one
//! thing this is gitignore rather than restic: a `/` at the end means directories alone.
//!
//! Does not know of the file system: what is compared is the text of the path. Source: restic's
//! `doc/040_backup.rst`, "Excluding files".

mod glob;
mod list;
mod pattern;

use std::borrow::Cow;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub use list::patterns_in_file;

use glob::Glob;
use pattern::{Pattern, prefixes};

/// A pattern that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern \"{pattern}\" {reason}")]
pub struct PatternError {
    /// As it was given.
    pub pattern: String,
    /// What is wrong with it; follows the pattern in the message.
    pub reason: String,
}

/// Patterns for paths.
#[derive(Debug, Default)]
pub struct Patterns {
    /// A path matches if it matches one of them; each takes back only its own.
    lists: Vec<List>,
}

impl Patterns {
    /// Reads patterns; later ones win. Empty ones are left out.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Patterns, PatternError> {
        Ok(Patterns { lists: vec![List::new(patterns, false)?] })
    }

    /// Reads patterns to which `A` is `a`, in all of Unicode.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub fn ignoring_case<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Patterns, PatternError> {
        Ok(Patterns { lists: vec![List::new(patterns, true)?] })
    }

    /// Matches what one of the two matches; `!` works within each alone.
    pub fn or(mut self, other: Patterns) -> Patterns {
        self.lists.extend(other.lists);
        self
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.lists.iter().all(|list| list.patterns.is_empty())
    }

    /// The patterns as they were given.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.lists.iter().flat_map(|list| &list.patterns).map(|pattern| &*pattern.text)
    }

    /// What tells them from others: each list, and whether it ignores case.
    pub(crate) fn as_given(&self) -> impl Iterator<Item = (bool, Vec<&str>)> {
        self.lists.iter().map(|list| (list.ignore_case, list.patterns.iter().map(|pattern| &*pattern.text).collect()))
    }

    /// Whether a path, or a directory above it, matches. Paths are absolute, without `.` and `..`.
    pub fn matches(&self, path: &Path, is_directory: bool) -> bool {
        self.lists.iter().any(|list| list.matches(path.as_os_str().as_bytes(), is_directory))
    }

    /// Whether something below a directory may match; `false` is certain.
    pub fn may_match_below(&self, directory: &Path) -> bool {
        self.lists.iter().any(|list| list.may_match_below(directory.as_os_str().as_bytes()))
    }
}

/// Patterns in their order, found by the last component of what they match: so most are never looked at.
#[derive(Debug)]
struct List {
    patterns: Vec<Pattern>,
    ignore_case: bool,
    has_negated: bool,
    by_name: HashMap<Box<[u8]>, Vec<usize>>,
    /// Lengths of the names in `by_name` (a bit for each, all from 63 in one): rules most components out unhashed.
    name_lengths: u64,
    by_last_byte: Vec<Vec<usize>>,
    by_first_byte: Vec<Vec<usize>>,
    /// With nothing to be found by.
    others: Vec<usize>,
    /// The last one that matches everything.
    everything: Option<usize>,
}

impl List {
    fn new<'p>(patterns: impl IntoIterator<Item = &'p str>, ignore_case: bool) -> Result<List, PatternError> {
        let read = |text: &str| {
            Pattern::new(text, ignore_case)
                .map_err(|reason| PatternError { pattern: text.to_owned(), reason: reason.to_owned() })
        };
        let patterns = patterns.into_iter().filter(|text| !text.is_empty()).map(read);
        let mut list = List {
            patterns: patterns.collect::<Result<_, _>>()?,
            ignore_case,
            has_negated: false,
            by_name: HashMap::new(),
            name_lengths: 0,
            by_last_byte: vec![Vec::new(); 256],
            by_first_byte: vec![Vec::new(); 256],
            others: Vec::new(),
            everything: None,
        };
        for (number, pattern) in list.patterns.iter().enumerate() {
            list.has_negated |= pattern.is_negated;
            let place = match pattern.last() {
                None => {
                    list.everything = Some(number);
                    continue;
                }
                Some(Glob::Literal(name)) => {
                    list.name_lengths |= length_bit(name);
                    list.by_name.entry(name.clone()).or_default()
                }
                Some(Glob::Wild { prefix, suffix, .. }) => match (suffix.last(), prefix.first()) {
                    (Some(last), _) => &mut list.by_last_byte[usize::from(*last)],
                    (None, Some(first)) => &mut list.by_first_byte[usize::from(*first)],
                    (None, None) => &mut list.others,
                },
            };
            place.push(number);
        }
        Ok(list)
    }

    fn matches(&self, path: &[u8], is_directory: bool) -> bool {
        let path = self.folded(path);
        // The last pattern that matches decides.
        let mut last = self.everything;
        for (prefix, name, is_last) in prefixes(&path) {
            let is_directory = is_directory || !is_last;
            let may_be_named = self.name_lengths & length_bit(name) != 0;
            let by_name = may_be_named.then(|| self.by_name.get(name)).flatten();
            let found = [
                by_name.map_or(&[][..], Vec::as_slice),
                &self.by_last_byte[usize::from(name[name.len() - 1])],
                &self.by_first_byte[usize::from(name[0])],
                &self.others,
            ];
            for number in found.into_iter().flatten() {
                if last < Some(*number) && self.patterns[*number].matches_to_end(prefix, is_directory) {
                    if !self.has_negated {
                        return true;
                    }
                    last = Some(*number);
                }
            }
        }
        last.is_some_and(|number| !self.patterns[number].is_negated)
    }

    fn may_match_below(&self, directory: &[u8]) -> bool {
        let directory = self.folded(directory);
        let decides = |pattern: &&Pattern| match pattern.is_negated {
            // It takes back everything below that patterns before it may match.
            true => pattern.covers(&directory, true),
            false => pattern.may_match_below(&directory),
        };
        self.patterns.iter().rev().find(decides).is_some_and(|pattern| !pattern.is_negated)
    }

    fn folded<'p>(&self, path: &'p [u8]) -> Cow<'p, [u8]> {
        if !self.ignore_case {
            return Cow::Borrowed(path);
        }
        let mut folded = Vec::with_capacity(path.len());
        for chunk in path.utf8_chunks() {
            folded.extend_from_slice(chunk.valid().to_lowercase().as_bytes());
            folded.extend_from_slice(chunk.invalid());
        }
        Cow::Owned(folded)
    }
}

fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

#[cfg(test)]
mod tests;
