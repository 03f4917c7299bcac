//! What is wrong with a configuration, where, and what would mend it.

use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// The file.
    pub path: PathBuf,
    /// Where in it, if it is at one place.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What would mend it.
    pub fix: Option<String>,
}

/// A place in a file, as editors count: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// That of a byte of a text. One past its end is at its end.
    pub(crate) fn of(text: &str, offset: usize) -> Self {
        let offset = text.floor_char_boundary(offset.min(text.len()));
        let before = &text[..offset];
        let line = before.rsplit('\n').next().unwrap_or(before);
        Self { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 }
    }
}

impl fmt::Display for Issue {
    /// `FILE:LINE:COLUMN: MESSAGE`, without the fix, as compilers do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.path.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("there is no configuration file {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It makes no sense.
    #[error("{}", list(issues))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that was found, in the order of the file; never empty.
        issues: Vec<Issue>,
    },
}

impl ConfigError {
    /// The file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Missing { path } | Self::Unreadable { path, .. } | Self::Invalid { path, .. } => path,
        }
    }

    /// What would mend it.
    pub fn fix(&self) -> Option<&str> {
        match self {
            Self::Missing { .. } => Some("snapback protect DIR, or snapback init, writes one"),
            Self::Unreadable { .. } => None,
            Self::Invalid { issues, .. } => match &issues[..] {
                [issue] => issue.fix.as_deref(),
                _ => Some("snapback config check tells what would mend each of them"),
            },
        }
    }
}

/// One a line.
fn list(issues: &[Issue]) -> String {
    issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_as_editors_do() {
        let place = |offset| {
            let Place { line, column } = Place::of("ab\nä = 1\n", offset);
            (line, column)
        };
        assert_eq!(place(0), (1, 1));
        assert_eq!(place(2), (1, 3));
        assert_eq!(place(3), (2, 1));
        assert_eq!(place(5), (2, 2));
        assert_eq!(place(99), (3, 1));
    }
}
