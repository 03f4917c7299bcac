//! The directories above the backups: which there are, and how the backups in them are called.
//!
//! As in restic's mount, so that people find their way: `ids/<short id>`, `backups/<time>`, `hosts/<host>/<time>` and
//! `tags/<tag>/<time>`, times as the record's writer saw them; `latest` is a link to the newest of its directory.

use std::collections::HashMap;
use std::sync::Arc;

use repository::id::Id;
use repository::record::BackupRecord;
use repository::tree::Timestamp;

/// Longest name of a host's or tag's directory, in bytes: what other file systems take, so that copies of it can be made.
const MAX_NAME: usize = 255;

/// All directories above the backups.
pub(super) struct Listing {
    directories: HashMap<Vec<u8>, Arc<Directory>>,
}

/// One of them.
#[derive(Default)]
pub(super) struct Directory {
    /// Ascending by name.
    pub(super) entries: Vec<(Box<[u8]>, Entry)>,
    /// When the newest backup in it was made.
    pub(super) time: Timestamp,
}

/// What is in such a directory.
#[derive(Clone)]
pub(super) enum Entry {
    /// Another one, with its path below the mount: `hosts/web1`.
    Directory(Arc<[u8]>),
    /// A backup.
    Backup(Arc<Backup>),
    /// `latest`, to an entry of the same directory.
    Link(Arc<Link>),
}

/// A backup's root directory.
#[derive(Debug)]
pub(super) struct Backup {
    pub(super) id: Id,
    pub(super) tree: Id,
    pub(super) time: Timestamp,
    /// As its directory calls it.
    pub(super) name: Box<[u8]>,
}

/// A symbolic link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) target: Box<[u8]>,
    pub(super) time: Timestamp,
}

impl Directory {
    pub(super) fn get(&self, name: &[u8]) -> Option<&Entry> {
        let at = self.entries.binary_search_by(|(other, _)| (**other).cmp(name)).ok()?;
        Some(&self.entries[at].1)
    }
}

impl Listing {
    /// Of backups in the order of their times.
    pub(super) fn new<'a>(backups: impl Iterator<Item = (Id, &'a BackupRecord)>) -> Listing {
        let mut builder = Builder::default();
        for top in ["ids", "backups", "hosts", "tags"] {
            builder.directory(b"", top.as_bytes());
        }
        for (id, record) in backups {
            builder.add(b"ids", id.short().into_bytes(), id, record);
            // Without decimals, as restic does.
            let time = Timestamp { nanos: 0, ..record.time }.to_string().into_bytes();
            builder.add_with_latest(b"backups", &time, id, record);
            let host = builder.directory(b"hosts", &directory_name(&record.hostname));
            builder.add_with_latest(&host, &time, id, record);
            let mut tags: Vec<_> = record.tags.iter().map(|tag| directory_name(tag)).collect();
            tags.sort();
            tags.dedup();
            for tag in tags {
                let tag = builder.directory(b"tags", &tag);
                builder.add_with_latest(&tag, &time, id, record);
            }
        }
        builder.finish()
    }

    /// The directory of a path below the mount; the mount itself is empty.
    pub(super) fn get(&self, path: &[u8]) -> Option<&Arc<Directory>> {
        self.directories.get(path)
    }
}

#[derive(Default)]
struct Builder {
    directories: HashMap<Vec<u8>, BuiltDirectory>,
}

#[derive(Default)]
struct BuiltDirectory {
    entries: HashMap<Vec<u8>, Entry>,
    latest: Option<Box<[u8]>>,
    time: Timestamp,
}

impl Builder {
    fn directory(&mut self, above: &[u8], name: &[u8]) -> Vec<u8> {
        let path = if above.is_empty() { name.to_owned() } else { [above, b"/", name].concat() };
        let entry = Entry::Directory(path.as_slice().into());
        self.directories.entry(above.to_owned()).or_default().entries.entry(name.to_owned()).or_insert(entry);
        self.directories.entry(path.clone()).or_default();
        path
    }

    fn add(&mut self, path: &[u8], name: Vec<u8>, id: Id, record: &BackupRecord) -> Box<[u8]> {
        let directory = self.directories.entry(path.to_owned()).or_default();
        // Two in the same second, or two ids that begin alike: the later one gets a number, as in restic.
        let free = |name: &Vec<u8>| !directory.entries.contains_key(name);
        let numbered = (1..).map(|number| [&name, format!("-{number}").as_bytes()].concat());
        let name = std::iter::once(name.clone()).chain(numbered).find(free).expect("numbers do not end");
        let backup = Backup { id, tree: record.tree, time: record.time, name: name.as_slice().into() };
        directory.time = directory.time.max(record.time);
        directory.entries.insert(name.clone(), Entry::Backup(Arc::new(backup)));
        name.into()
    }

    fn add_with_latest(&mut self, path: &[u8], time: &[u8], id: Id, record: &BackupRecord) {
        let name = self.add(path, time.to_owned(), id, record);
        if let Some(directory) = self.directories.get_mut(path) {
            directory.latest = Some(name);
        }
    }

    fn finish(self) -> Listing {
        let directories = self.directories.into_iter().map(|(path, built)| {
            let mut entries: Vec<_> = built.entries.into_iter().map(|(name, entry)| (name.into(), entry)).collect();
            if let Some(target) = built.latest {
                let link = Entry::Link(Arc::new(Link { target, time: built.time }));
                entries.push((b"latest".as_slice().into(), link));
            }
            entries.sort_by(|(a, _): &(Box<[u8]>, Entry), (b, _)| a.cmp(b));
            (path, Arc::new(Directory { entries, time: built.time }))
        });
        Listing { directories: directories.collect() }
    }
}

/// A host or tag as the name of a directory. Records hold any text, also such that could be no name.
fn directory_name(text: &str) -> Vec<u8> {
    match text {
        "" | "." => b"_".to_vec(),
        ".." => b"__".to_vec(),
        _ => {
            let mut name = text.replace(['/', '\0'], "_");
            name.truncate(name.floor_char_boundary(MAX_NAME));
            name.into_bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: &str, host: &str, tags: &[&str]) -> BackupRecord {
        let tree = Id([7; 32]);
        let document = serde_json::json!({"time": time, "tree": tree, "paths": ["/x"], "hostname": host, "tags": tags});
        serde_json::from_value(document).unwrap()
    }

    fn listing(records: &[BackupRecord]) -> Listing {
        let ids = (1..).map(|number| Id([number; 32]));
        Listing::new(ids.zip(records))
    }

    fn names(listing: &Listing, path: &str) -> Vec<String> {
        let directory = listing.get(path.as_bytes()).unwrap();
        let name = |(name, entry): &(Box<[u8]>, Entry)| {
            let name = String::from_utf8_lossy(name);
            match entry {
                Entry::Directory(path) => format!("{name} = {}/", String::from_utf8_lossy(path)),
                Entry::Backup(backup) => format!("{name} = {}", backup.id.short()),
                Entry::Link(link) => format!("{name} -> {}", String::from_utf8_lossy(&link.target)),
            }
        };
        directory.entries.iter().map(name).collect()
    }

    #[test]
    fn an_empty_repository_has_the_four_directories() {
        let listing = listing(&[]);
        assert_eq!(names(&listing, ""), ["backups = backups/", "hosts = hosts/", "ids = ids/", "tags = tags/"]);
        for directory in ["backups", "hosts", "ids", "tags"] {
            assert!(names(&listing, directory).is_empty());
        }
    }

    #[test]
    fn backups_are_found_by_id_time_host_and_tag() {
        let listing = listing(&[
            record("2026-01-02T03:04:05.123456789+01:00", "web1", &["daily", "daily"]),
            record("2026-01-03T03:04:05Z", "web2", &["daily", "big"]),
        ]);
        let (first, second) = ("2026-01-02T03:04:05+01:00", "2026-01-03T03:04:05Z");
        assert_eq!(names(&listing, "ids"), ["01010101 = 01010101", "02020202 = 02020202"]);
        let both = [format!("{first} = 01010101"), format!("{second} = 02020202"), format!("latest -> {second}")];
        assert_eq!(names(&listing, "backups"), both);
        assert_eq!(names(&listing, "hosts"), ["web1 = hosts/web1/", "web2 = hosts/web2/"]);
        assert_eq!(names(&listing, "hosts/web1"), [format!("{first} = 01010101"), format!("latest -> {first}")]);
        assert_eq!(names(&listing, "tags/daily"), both);
        assert_eq!(names(&listing, "tags/big"), [format!("{second} = 02020202"), format!("latest -> {second}")]);
    }

    #[test]
    fn backups_of_the_same_second_are_numbered() {
        let time = "2026-01-02T03:04:05Z";
        let listing = listing(&[record(time, "h", &[]), record(time, "h", &[]), record(time, "h", &[])]);
        let expected = [
            format!("{time} = 01010101"),
            format!("{time}-1 = 02020202"),
            format!("{time}-2 = 03030303"),
            format!("latest -> {time}-2"),
        ];
        assert_eq!(names(&listing, "backups"), expected);
    }

    #[test]
    fn hosts_and_tags_that_are_no_names_get_some() {
        let long = "ä".repeat(200);
        let listing =
            listing(&[record("2026-01-02T03:04:05Z", "..", &["", ".", "../../etc", "a\0b", &long, "latest"])]);
        assert_eq!(names(&listing, "hosts"), ["__ = hosts/__/"]);
        let tags = names(&listing, "tags");
        let long = format!("{0} = tags/{0}/", "ä".repeat(127));
        let expected =
            [".._.._etc = tags/.._.._etc/", "_ = tags/_/", "a_b = tags/a_b/", "latest = tags/latest/", &long];
        assert_eq!(tags, expected);
    }
}
