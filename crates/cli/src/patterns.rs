//! `--exclude` and its like: from arguments and files to patterns.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use backup::patterns::{Patterns, patterns_in_file};
use clap::Args;

use crate::error::CommandError;

/// What to leave out.
#[derive(Args, Clone, Debug)]
pub(crate) struct Exclude {
    /// Leave out what matches, such as '*.tmp' or /var/cache; !PATTERN takes back (may be repeated)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Leave out what matches a line of this file (may be repeated)
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
}

impl Exclude {
    /// All patterns, files' first, so that an argument can take back what a file leaves out.
    pub(crate) fn texts(&self) -> Result<Vec<String>> {
        let mut texts = Vec::new();
        for file in &self.exclude_file {
            texts.extend(read(file)?);
        }
        texts.extend(self.exclude.iter().cloned());
        Ok(texts)
    }
}

/// Patterns, if there are any.
pub(crate) fn patterns(texts: &[String]) -> Result<Option<Patterns>> {
    if texts.is_empty() {
        return Ok(None);
    }
    let hint = "put a \\ before * ? [ to mean the character itself";
    let read = Patterns::new(texts.iter().map(String::as_str));
    Ok(Some(read.map_err(|error| CommandError::usage(error.to_string()).hint(hint))?))
}

fn read(file: &Path) -> Result<Vec<String>> {
    let name = file.display();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the patterns in {name}"))?;
    let patterns = patterns_in_file(&text, |variable| std::env::var(variable).ok());
    Ok(patterns.map_err(|error| CommandError::usage(format!("{name}: {error}")))?)
}
