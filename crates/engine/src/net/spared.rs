//! What a net neither keeps nor touches.

use std::path::{Path, PathBuf};

use backup::patterns::Patterns;
use snapshot::error::Error;
use snapshot::holders;

use super::{Net, STAGING};

/// Of `/`: what the kernel and each boot make anew, also where it is no file system of its own.
const MADE_ANEW: [&str; 5] = ["/proc/*", "/sys/*", "/dev/*", "/run/*", "/tmp/*"];

impl Net {
    /// As patterns: what lies below the directory of Snapback's own state and of the nets' repository, files that the
    /// kernel itself uses, and directories that only are there while something is brought back.
    pub(super) fn spared(&self) -> Vec<String> {
        let place = &self.store.place;
        let own = [&self.nets.state, &place.repository, &place.password_file].into_iter().cloned();
        let own = own.map(|path| path.canonicalize().unwrap_or(path));
        let all: Vec<PathBuf> = own.chain(holders::kernel_files(&self.directory)).collect();
        let mut patterns = vec![format!("{}/{STAGING}*", below_root(&self.directory))];
        patterns.extend(all.iter().filter(|path| path.starts_with(&self.directory)).map(|path| literal(path)));
        if self.directory == Path::new("/") {
            patterns.extend(MADE_ANEW.map(str::to_owned));
        }
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }
}

/// Reads patterns that were made here.
pub(super) fn patterns<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<Patterns, Error> {
    Patterns::new(texts.into_iter().map(String::as_str)).map_err(|error| Error::refused(error.to_string()))
}

fn below_root(directory: &Path) -> String {
    match directory == Path::new("/") {
        true => String::new(),
        false => literal(directory),
    }
}

/// A pattern for exactly this path.
fn literal(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.to_string_lossy().chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            text.push('\\');
        }
        // What is no UTF-8 cannot be said in a pattern, but by what stands for any character.
        text.push(if letter == char::REPLACEMENT_CHARACTER { '?' } else { letter });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_letters_that_mean_something_in_patterns_means_itself() {
        let path = Path::new(r"/srv/a*b[1]\c?");
        let patterns = patterns(&[literal(path)]).unwrap();
        assert!(patterns.matches(path, true) && patterns.matches(&path.join("below"), false));
        assert!(!patterns.matches(Path::new(r"/srv/axb[1]\c?"), true));
    }
}
