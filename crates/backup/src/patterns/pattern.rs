//! One pattern for whole paths.

use crate::patterns::glob::Glob;

/// A pattern, cut at its `**`. Each run must match that many components one behind the other; between two runs there
/// may be any number of components.
#[derive(Debug)]
pub(super) struct Pattern {
    /// As it was given.
    pub(super) text: String,
    pub(super) is_negated: bool,
    /// The first run must begin at the root.
    is_rooted: bool,
    /// A trailing `/`.
    only_directories: bool,
    runs: Vec<Vec<Glob>>,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it, to follow the pattern in a message.
    pub(super) fn new(text: &str, ignore_case: bool) -> Result<Pattern, &'static str> {
        let folded = if ignore_case { text.to_lowercase() } else { text.to_owned() };
        let (is_negated, rest) = match folded.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, &*folded),
        };
        if rest.is_empty() {
            return Err("is empty");
        }
        let rooted = rest.starts_with('/');
        let components = clean(rest)?;
        if components.is_empty() && !rooted {
            return Err("can match nothing: paths are compared without . and ..");
        }
        let mut runs: Vec<Vec<Glob>> = vec![Vec::new()];
        for component in &components {
            match *component {
                "**" => runs.push(Vec::new()),
                component => runs.last_mut().expect("there is always one").push(Glob::new(component)?),
            }
        }
        // With a run of nothing first, the next one may begin anywhere.
        let is_rooted = rooted && !runs[0].is_empty();
        runs.retain(|run| !run.is_empty());
        Ok(Pattern {
            text: text.to_owned(),
            is_negated,
            is_rooted,
            only_directories: rest.ends_with('/') && !runs.is_empty(),
            runs,
        })
    }

    /// What the last component of a match looks like; `None` if the pattern matches everything.
    pub(super) fn last(&self) -> Option<&Glob> {
        self.runs.last()?.last()
    }

    /// Whether a match ends with the end of this path. What lies below is covered then.
    pub(super) fn matches_to_end(&self, path: &[u8], is_directory: bool) -> bool {
        if (self.only_directories && !is_directory) || (self.is_rooted && !path.starts_with(b"/")) {
            return false;
        }
        let Some((last, before)) = self.runs.split_last() else { return true };
        let Some(mut rest) = match_end(last, path) else { return false };
        // From the right, each run as far right as it goes: that leaves the most room to those before it.
        for (number, run) in before.iter().enumerate().rev() {
            let must_begin = self.is_rooted && number == 0;
            loop {
                match match_end(run, rest) {
                    Some(left) if !must_begin || is_root(left) => {
                        rest = left;
                        break;
                    }
                    _ => match split_last(rest) {
                        Some((above, _)) => rest = above,
                        None => return false,
                    },
                }
            }
        }
        !self.is_rooted || is_root(rest)
    }

    /// Whether the path or a directory above it matches.
    pub(super) fn covers(&self, path: &[u8], is_directory: bool) -> bool {
        prefixes(path).any(|(prefix, _, is_last)| self.matches_to_end(prefix, is_directory || !is_last))
            || self.runs.is_empty()
    }

    /// Whether something below a directory may match.
    pub(super) fn may_match_below(&self, directory: &[u8]) -> bool {
        if !self.is_rooted {
            return true;
        }
        // Up to the first `**` each level must agree; what is deeper is then open, or covered.
        let components = prefixes(directory).map(|(_, component, _)| component);
        self.runs[0].iter().zip(components).all(|(glob, component)| glob.matches(component))
    }
}

/// The components of a pattern, without empty ones and `.`; `..` takes the one before it away, as Go's
/// `filepath.Clean` has it.
fn clean(text: &str) -> Result<Vec<&str>, &'static str> {
    let mut components = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                if components.pop().is_none() && !text.starts_with('/') {
                    return Err("can match nothing: paths are compared without . and ..");
                }
            }
            component => components.push(component),
        }
    }
    Ok(components)
}

/// What is left of a path whose last components match the run.
fn match_end<'p>(run: &[Glob], path: &'p [u8]) -> Option<&'p [u8]> {
    let mut rest = path;
    for glob in run.iter().rev() {
        let (above, component) = split_last(rest)?;
        if !glob.matches(component) {
            return None;
        }
        rest = above;
    }
    Some(rest)
}

fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    Some((&path[..start], &path[start..end]))
}

fn is_root(path: &[u8]) -> bool {
    path.iter().all(|byte| *byte == b'/')
}

/// The directories on the way to a path and the path itself: each with its last component, and whether it is the path.
pub(super) fn prefixes(path: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], bool)> {
    let length = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let mut start = 0;
    std::iter::from_fn(move || {
        start += path[start..length].iter().position(|byte| *byte != b'/')?;
        let end = path[start..length].iter().position(|byte| *byte == b'/').map_or(length, |at| start + at);
        let component = &path[start..end];
        start = end;
        Some((&path[..end], component, end == length))
    })
}
