//! Databases that a machine has: servers by their sockets and configuration, SQLite files by what they begin with.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use workload::address::{Address, Server};

/// Looked at below one directory, in all: a tree of millions of files is not worth its minutes here.
const MOST_ENTRIES: usize = 200_000;
/// More than these are rather the data of one program, each file of which nobody wants to see.
const MOST_FILES: usize = 20;
/// What <https://sqlite.org/fileformat.html> begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A server that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundServer {
    /// `PostgreSQL`, `MariaDB or MySQL`.
    pub name: &'static str,
    /// The whole server, over its socket.
    pub address: Address,
    /// Where its data is, if that is known.
    pub directory: Option<PathBuf>,
    /// Whether its socket is there.
    pub is_running: bool,
}

/// Files of SQLite below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqliteFiles {
    /// Sorted.
    pub files: Vec<PathBuf>,
    /// Whether there may be more.
    pub has_more: bool,
}

/// Servers below a root directory: `/` for this machine.
pub fn servers(root: &Path) -> Vec<FoundServer> {
    let mut found = postgres(root);
    found.extend(mysql(root));
    found
}

/// Debian's clusters (`/etc/postgresql/VERSION/NAME`), and what has a socket besides.
fn postgres(root: &Path) -> Vec<FoundServer> {
    let server = |port: u16, directory: Option<PathBuf>, is_running| FoundServer {
        name: "PostgreSQL",
        address: Address::Postgres(Server { port: (port != 5432).then_some(port), ..Server::default() }),
        directory,
        is_running,
    };
    let sockets = root.join("run/postgresql");
    let mut found: Vec<(u16, FoundServer)> = Vec::new();
    for version in sorted(&root.join("etc/postgresql")) {
        for cluster in sorted(&version) {
            let Ok(text) = fs::read_to_string(cluster.join("postgresql.conf")) else { continue };
            let port = setting(&text, "port").and_then(|port| port.parse().ok()).unwrap_or(5432);
            let is_running = is_socket(&sockets.join(format!(".s.PGSQL.{port}")));
            let directory = setting(&text, "data_directory").map(PathBuf::from);
            if !found.iter().any(|(known, _)| *known == port) {
                found.push((port, server(port, directory, is_running)));
            }
        }
    }
    for socket in sorted(&sockets) {
        let name = socket.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(port) = name.strip_prefix(".s.PGSQL.").and_then(|port| port.parse().ok()) else { continue };
        if is_socket(&socket) && !found.iter().any(|(known, _)| *known == port) {
            found.push((port, server(port, None, true)));
        }
    }
    found.into_iter().map(|(_, server)| server).collect()
}

/// The last value of a setting in PostgreSQL's file.
fn setting(text: &str, name: &str) -> Option<String> {
    let mut values = text.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix(name)?;
        let value = rest.strip_prefix(|letter: char| letter == '=' || letter.is_whitespace())?;
        let value = value.trim_start_matches(|letter: char| letter == '=' || letter.is_whitespace());
        Some(match value.strip_prefix('\'') {
            Some(quoted) => quoted.split('\'').next().unwrap_or_default().to_owned(),
            None => value.split(['#', ' ', '\t']).next().unwrap_or_default().to_owned(),
        })
    });
    values.next_back().filter(|value| !value.is_empty())
}

/// The usual socket needs no mention in an address; the clients know it.
fn mysql(root: &Path) -> Option<FoundServer> {
    let data = Path::new("var/lib/mysql");
    let directory = fs::read_dir(root.join(data)).is_ok_and(|mut entries| entries.next().is_some());
    let directory = directory.then(|| Path::new("/").join(data));
    let socket = ["run/mysqld/mysqld.sock", "var/lib/mysql/mysql.sock", "tmp/mysql.sock"]
        .into_iter()
        .find(|socket| is_socket(&root.join(socket)));
    if socket.is_none() && directory.is_none() {
        return None;
    }
    let parameters = match socket {
        None | Some("run/mysqld/mysqld.sock") => Vec::new(),
        Some(socket) => vec![("socket".to_owned(), format!("/{socket}"))],
    };
    let address = Address::Mysql(Server { parameters, ..Server::default() });
    Some(FoundServer { name: "MariaDB or MySQL", address, directory, is_running: socket.is_some() })
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Files of SQLite at or below a directory, on its file system alone, without what links lead to. Directories nearer to it
/// are looked at first.
pub fn sqlite_files(directory: &Path) -> SqliteFiles {
    let mut found = SqliteFiles::default();
    let Ok(top) = fs::metadata(directory) else { return found };
    let mut waiting = std::collections::VecDeque::from([directory.to_owned()]);
    let mut seen = 0;
    while let Some(directory) = waiting.pop_front() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MOST_ENTRIES || found.files.len() > MOST_FILES {
                found.has_more = true;
                break;
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                let is_ours = entry.metadata().is_ok_and(|found| found.dev() == top.dev());
                // What programs can fetch again; and our own snapshots and restores.
                let name = entry.file_name();
                let is_left_out = ["node_modules", ".git", ".cache", ".snapback"].into_iter().any(|left| name == *left);
                if is_ours && !is_left_out {
                    waiting.push_back(entry.path());
                }
            } else if kind.is_file() && is_sqlite(&entry) {
                found.files.push(entry.path());
            }
        }
        if found.has_more {
            break;
        }
    }
    found.files.sort();
    found.files.truncate(MOST_FILES);
    found
}

/// A file of whole pages, the first of which says it. Few files have to be opened for that.
fn is_sqlite(entry: &fs::DirEntry) -> bool {
    let name = entry.file_name();
    let name = name.to_string_lossy();
    // Of a restore: what was there before, and what is not there yet.
    if name.contains(".before-") || name.contains(".restoring-") {
        return false;
    }
    let is_paged = entry.metadata().is_ok_and(|found| found.len() > 0 && found.len().is_multiple_of(512));
    let mut start = [0; MAGIC.len()];
    is_paged && File::open(entry.path()).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *MAGIC
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn write(root: &Path, path: &str, bytes: &[u8]) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn servers_are_found_by_their_sockets_and_debians_clusters() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(servers(root), []);
        write(root, "etc/postgresql/15/main/postgresql.conf", b"data_directory = '/var/lib/postgresql/15/main' # x\n");
        let second = b"#port = 5432\ndata_directory='/data/pg'\nport = 5433\t# (change requires restart)\n";
        write(root, "etc/postgresql/16/new/postgresql.conf", second);
        write(root, "var/lib/mysql/ibdata1", b"x");
        fs::create_dir_all(root.join("run/postgresql")).unwrap();
        let sockets = ["run/postgresql/.s.PGSQL.5433", "run/postgresql/.s.PGSQL.6000", "var/lib/mysql/mysql.sock"];
        let _listening = sockets.map(|socket| UnixListener::bind(root.join(socket)).unwrap());
        let found: Vec<_> = servers(root)
            .into_iter()
            .map(|found| (found.address.to_string(), found.directory, found.is_running))
            .collect();
        let directory = |path: &str| Some(PathBuf::from(path));
        assert_eq!(
            found,
            [
                ("postgres:///".to_owned(), directory("/var/lib/postgresql/15/main"), false),
                ("postgres://:5433/".to_owned(), directory("/data/pg"), true),
                ("postgres://:6000/".to_owned(), None, true),
                ("mysql:///?socket=/var/lib/mysql/mysql.sock".to_owned(), directory("/var/lib/mysql"), true),
            ]
        );
        for (address, ..) in found {
            assert_eq!(Address::parse(&address).unwrap().to_string(), address);
        }
    }

    #[test]
    fn files_of_sqlite_are_known_by_what_they_begin_with() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let mut page = vec![0; 1024];
        page[..16].copy_from_slice(MAGIC);
        for name in ["app.db", "deep/er/data", "node_modules/x.db", "app.db.before-20261123T130000"] {
            write(root, name, &page);
        }
        write(root, "text.db", &[b'x'; 1024]);
        write(root, "cut.db", &page[..1000]);
        write(root, "empty.db", b"");
        std::os::unix::fs::symlink("app.db", root.join("link.db")).unwrap();
        std::os::unix::fs::symlink("..", root.join("deep/up")).unwrap();
        let found = sqlite_files(root);
        assert_eq!((found.files, found.has_more), (vec![root.join("app.db"), root.join("deep/er/data")], false));
        for number in 0..30 {
            write(root, &format!("cache/{number}"), &page);
        }
        let found = sqlite_files(root);
        assert_eq!((found.files.len(), found.has_more), (MOST_FILES, true));
        assert_eq!(found.files[0], root.join("app.db"));
    }
}
