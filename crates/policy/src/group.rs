//! Which backups compete with each other: a rule such as "keep 7 daily" counts within one group.

use std::str::FromStr;

/// What makes two backups belong together. Nothing set puts all of them into one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupBy {
    /// The same host.
    pub host: bool,
    /// The same set of paths.
    pub paths: bool,
    /// The same set of tags.
    pub tags: bool,
}

impl Default for GroupBy {
    /// By host and paths, as restic.
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

/// A group's name: what all of its members share; what is not grouped by is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// Host name.
    pub host: String,
    /// Sorted.
    pub paths: Vec<String>,
    /// Sorted.
    pub tags: Vec<String>,
}

/// A word that nothing can be grouped by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot group by {0:?}; possible are host, paths and tags, separated by commas, or nothing")]
pub struct GroupByError(pub String);

impl GroupBy {
    /// The group of a backup with this host, these paths and tags; their order does not matter.
    pub fn key(self, host: &str, paths: &[String], tags: &[String]) -> GroupKey {
        let sorted = |wanted: bool, list: &[String]| {
            let mut list = if wanted { list.to_vec() } else { Vec::new() };
            list.sort_unstable();
            list
        };
        GroupKey {
            host: if self.host { host.into() } else { String::new() },
            paths: sorted(self.paths, paths),
            tags: sorted(self.tags, tags),
        }
    }
}

impl FromStr for GroupBy {
    type Err = GroupByError;

    /// Reads `host,paths,tags` in any order and in the singular too; an empty text groups by nothing.
    fn from_str(text: &str) -> Result<Self, GroupByError> {
        let mut by = Self { host: false, paths: false, tags: false };
        for word in text.split(',') {
            match word {
                "host" | "hosts" => by.host = true,
                "path" | "paths" => by.paths = true,
                "tag" | "tags" => by.tags = true,
                "" => {}
                _ => return Err(GroupByError(word.into())),
            }
        }
        Ok(by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn grouping_is_read_from_words() {
        assert_eq!("host,paths".parse(), Ok(GroupBy::default()));
        assert_eq!("tag".parse(), Ok(GroupBy { host: false, paths: false, tags: true }));
        assert_eq!("".parse(), Ok(GroupBy { host: false, paths: false, tags: false }));
        assert_eq!("host,user".parse::<GroupBy>(), Err(GroupByError("user".into())));
    }

    #[test]
    fn the_order_of_paths_does_not_make_another_group() {
        let by = GroupBy::default();
        let key = by.key("web", &list(&["/srv", "/etc"]), &list(&["x"]));
        assert_eq!(key, by.key("web", &list(&["/etc", "/srv"]), &[]));
        assert_ne!(key, by.key("web", &list(&["/etc"]), &[]));
        assert_ne!(key, by.key("db", &list(&["/etc", "/srv"]), &[]));
    }

    #[test]
    fn what_is_not_grouped_by_does_not_separate() {
        let by: GroupBy = "tags".parse().unwrap();
        assert_eq!(by.key("web", &list(&["/a"]), &list(&["b", "a"])), by.key("db", &[], &list(&["a", "b"])));
    }
}
