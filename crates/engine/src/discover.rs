//! What a server has that is worth protecting: found by looking at the usual places, and written down as a first
//! configuration with the reasons as comments.
//!
//! Only looks, below a root directory that is given, and asks no service. What is found is a suggestion: somebody reads
//! the file before anything is done with it.

mod databases;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use snapshot::mounts;
use workload::address::Address;

pub use databases::{FoundServer, SqliteFiles, servers, sqlite_files};

use crate::protect::{NewRepository, free, last_name, quoted};

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Disks' file systems, in the order they were mounted.
    pub filesystems: Vec<Filesystem>,
    /// Directories worth protecting, each once.
    pub directories: Vec<Directory>,
    /// Servers of databases.
    pub servers: Vec<FoundServer>,
}

/// A file system of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Such as `ext4`.
    pub kind: String,
}

/// A directory worth protecting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// What it seems to be.
    pub what: What,
    /// The unit of systemd that uses it, if it is known.
    pub unit: Option<String>,
    /// Files of SQLite in it.
    pub sqlite: SqliteFiles,
}

/// What a directory seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Of a web server, or any other service below `/srv`.
    Site,
    /// With a compose file.
    Compose,
    /// Of a database.
    Database(&'static str),
    /// Volumes of containers.
    Volumes(&'static str),
}

/// Directory, name, units of which the first that is there counts.
const DATABASES: [(&str, &str, &[&str]); 5] = [
    ("var/lib/postgresql", "PostgreSQL", &["postgresql.service"]),
    ("var/lib/mysql", "MariaDB or MySQL", &["mariadb.service", "mysql.service", "mysqld.service"]),
    ("var/lib/mongodb", "MongoDB", &["mongod.service", "mongodb.service"]),
    ("var/lib/redis", "Redis", &["redis-server.service", "redis.service"]),
    ("var/lib/influxdb", "InfluxDB", &["influxdb.service"]),
];

const VOLUMES: [(&str, &str); 2] =
    [("var/lib/docker/volumes", "Docker"), ("var/lib/containers/storage/volumes", "Podman")];

const UNITS: [&str; 4] = ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

const COMPOSE: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// Looks around below a root directory; `/` for this machine. What cannot be read is not there.
pub fn look(root: &Path) -> Found {
    let mut found = Found::default();
    let table = fs::read(root.join("proc/self/mountinfo")).unwrap_or_default();
    for mount in mounts::parse(&table).unwrap_or_default() {
        let is_disk = mount.source.to_string_lossy().starts_with("/dev/") || mount.kind == "zfs";
        let is_system = ["/boot", "/etc", "/proc", "/sys", "/run", "/dev", "/snap"];
        let is_file = !root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point)).is_dir();
        if is_disk && !is_file && !is_system.into_iter().any(|system| mount.point.starts_with(system)) {
            let known = found.filesystems.iter().any(|known| known.point == mount.point);
            if !known {
                found.filesystems.push(Filesystem { point: mount.point, kind: mount.kind });
            }
        }
    }
    for above in ["srv", "var/www", "opt"] {
        for path in directories(&root.join(above)) {
            let is_compose = COMPOSE.into_iter().any(|name| path.join(name).is_file());
            let what = if is_compose { What::Compose } else { What::Site };
            // Below /opt lie programs, which are installed again.
            if is_compose || above != "opt" {
                found.directories.push(Directory::new(root, &path, what));
            }
        }
    }
    for (path, name, units) in DATABASES {
        if !is_empty(&root.join(path)) {
            let is_there = |unit: &&&str| UNITS.into_iter().any(|directory| root.join(directory).join(unit).exists());
            let unit = units.iter().find(is_there).map(|unit| (*unit).to_owned());
            // Its own files are the server's to know.
            let (path, sqlite) = (Path::new("/").join(path), SqliteFiles::default());
            found.directories.push(Directory { path, what: What::Database(name), unit, sqlite });
        }
    }
    for (path, name) in VOLUMES {
        if !directories(&root.join(path)).is_empty() {
            found.directories.push(Directory::new(root, &root.join(path), What::Volumes(name)));
        }
    }
    found.servers = servers(root);
    found
}

impl Directory {
    fn new(root: &Path, path: &Path, what: What) -> Directory {
        let mut sqlite = sqlite_files(path);
        for file in &mut sqlite.files {
            *file = shown(root, file);
        }
        Directory { path: shown(root, path), what, unit: None, sqlite }
    }
}

/// The directories in one that have something in them, sorted. Links are none: they lead to what lies elsewhere.
fn directories(above: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(above) else { return Vec::new() };
    let is_directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    let mut found: Vec<PathBuf> = entries.flatten().filter(is_directory).map(|entry| entry.path()).collect();
    found.retain(|path| !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')));
    found.retain(|path| !is_empty(path));
    found.sort();
    found
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

fn shown(root: &Path, path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(root).unwrap_or(path))
}

/// A first configuration, for somebody to read and change.
pub fn configuration(found: &Found, repository: &NewRepository) -> String {
    let mut text = String::from(
        "# What Snapback protects on this machine, as `snapback init` found it. Change it as you like;\n\
         # `snapback config check` checks it, `snapback serve` runs its plans.\n\n",
    );
    filesystems(&mut text, &found.filesystems);
    let password_file = repository.password_file.to_string_lossy();
    let _ = write!(
        text,
        "# A repository on this machine saves from mistakes, not from a dead disk or a lost server.\n\
         [repository.local]\nurl = {}\npassword-file = {}\n\n\
         # One on another disk, whose name is then added to `to` of the plan below.\n\
         #[repository.usb]\n#url = \"/mnt/usb/backups\"\n#password-file = \"/etc/snapback/usb.password\"\n\n\
         [plan.nightly]\n\
         backup = {{ at = \"02:30\", spread = \"30m\", to = [\"local\"] }}\n\
         #snapshot = {{ every = \"4h\", keep = \"24h\" }}\n\
         keep   = {{ daily = 14, weekly = 8, monthly = 6 }}\n\
         check  = {{ every = \"7d\", read-data = \"10%\" }}\n",
        quoted(&repository.url),
        quoted(&password_file),
    );
    let mut names: Vec<String> = Vec::new();
    for directory in &found.directories {
        let Some(path) = directory.path.to_str() else { continue };
        let name = free(&last_name(&directory.path), |name| names.iter().any(|taken| taken == name));
        let comment = match directory.what {
            What::Site => "Files of a site or a service.".to_owned(),
            What::Compose => "Containers with a compose file.".to_owned(),
            What::Database("PostgreSQL" | "MariaDB or MySQL") => {
                "A server of databases. Take the marks away from the lines below for dumps of them in every backup;\n\
                 # without them its files are copied as they are: from a snapshot, as after a power failure."
                    .to_owned()
            }
            What::Database(database) => format!(
                "{database}. Its files are copied as they are: safe from a snapshot, as after a power failure;\n\
                 # where the file system has no snapshots, add a dump in hooks = {{ before = \"...\" }}."
            ),
            What::Volumes(engine) => format!("Volumes of {engine}."),
        };
        let _ = write!(text, "\n# {comment}\n[project.{name}]\npaths = [{}]\n", quoted(path));
        if let Some(unit) = &directory.unit {
            let _ = writeln!(text, "units = [{}]    # stopped and started around a rollback", quoted(unit));
        }
        text.push_str("plans = [\"nightly\"]\n");
        databases(&mut text, &name, directory, &found.servers);
        names.push(name);
    }
    for server in found.servers.iter().filter(|server| !found.directories.iter().any(|one| has(one, server))) {
        let Some(path) = server.directory.as_deref().and_then(Path::to_str) else { continue };
        let name = free(&last_name(Path::new(path)), |name| names.iter().any(|taken| taken == name));
        let _ = write!(
            text,
            "\n# {}, with its data in a place of its own.\n#[project.{name}]\n#paths = [{}]\n#plans = [\"nightly\"]\n",
            server.name,
            quoted(path)
        );
        whole_server(&mut text, &name, "all", &server.address);
        names.push(name);
    }
    let head =
        if names.is_empty() { "# Nothing was found in the usual places. A project:\n" } else { "# Another one:\n" };
    let name = free("etc", |name| names.iter().any(|taken| taken == name));
    let _ = write!(
        text,
        "\n{head}#[project.{name}]\n#paths   = [\"/etc\"]\n#exclude = [\"*.tmp\", \"cache/\"]\n\
         #probe   = \"curl -fsS http://localhost/health\"\n#plans   = [\"nightly\"]\n"
    );
    text
}

/// Whether the server's data is, or seems to be, in the directory.
fn has(directory: &Directory, server: &FoundServer) -> bool {
    let What::Database(name) = directory.what else { return false };
    let inside = server.directory.as_ref().is_none_or(|data| data.starts_with(&directory.path));
    name == server.name && inside
}

/// What may be switched on of a project: nothing is asked for that somebody has not seen.
fn databases(text: &mut String, project: &str, directory: &Directory, servers: &[FoundServer]) {
    let mut names: Vec<String> = Vec::new();
    let mut name = |wanted: &str| {
        let name = free(wanted, |name| names.iter().any(|taken| taken == name));
        names.push(name.clone());
        name
    };
    for server in servers.iter().filter(|server| has(directory, server)) {
        whole_server(text, project, &name("all"), &server.address);
    }
    if !directory.sqlite.files.is_empty() {
        text.push_str("# A file of SQLite that is in use is whole in every backup only with these lines.\n");
    }
    for file in &directory.sqlite.files {
        // An address is text.
        let Some(address) = file.to_str().map(|path| format!("sqlite:{path}")) else { continue };
        let name = name(&stem(file));
        let _ = write!(text, "#[project.{project}.database.{name}]\n#url = {}\n", quoted(&address));
    }
    if directory.sqlite.has_more {
        text.push_str("# There may be more of them.\n");
    }
}

fn whole_server(text: &mut String, project: &str, name: &str, address: &Address) {
    let address = quoted(&address.to_string());
    let _ = write!(text, "#[project.{project}.database.{name}]\n#url = {address}\n#all = true\n");
}

/// The name of a file without its ending, fit for a name.
pub fn stem(file: &Path) -> String {
    last_name(Path::new(file.file_stem().unwrap_or_default()))
}

fn filesystems(text: &mut String, filesystems: &[Filesystem]) {
    if filesystems.is_empty() {
        return;
    }
    text.push_str("# File systems:\n");
    for Filesystem { point, kind } in filesystems {
        let can = match kind.as_str() {
            "btrfs" | "zfs" => "snapshots in an instant",
            "xfs" => "snapshots by clones of files, if made with reflink",
            _ => "no snapshots of its own, unless on a thin volume; a local backup stands in, or `snapback adopt`",
        };
        let point: String = point.to_string_lossy().chars().filter(|letter| !letter.is_control()).collect();
        let _ = writeln!(text, "#   {point} ({kind}): {can}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// A server: two sites, one of them empty, a compose file, a database with its unit, and a volume.
    fn server() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        file("srv/shop/index.php", "x");
        file("var/www/shop/index.html", "x");
        file("opt/mail/compose.yaml", "x");
        file("opt/program/bin", "x");
        file("var/lib/mysql/ibdata1", "x");
        file("usr/lib/systemd/system/mariadb.service", "x");
        file("var/lib/docker/volumes/db/_data/x", "x");
        for path in ["srv/shop/data/app.db", "srv/shop/data/old/app.sqlite"] {
            file(path, &format!("SQLite format 3\0{}", "x".repeat(1008)));
        }
        file("etc/postgresql/15/own/postgresql.conf", "port = 5433\ndata_directory = '/data/pg'\n");
        fs::create_dir_all(root.path().join("srv/empty")).unwrap();
        fs::create_dir_all(root.path().join("var/lib/postgresql")).unwrap();
        fs::create_dir_all(root.path().join("mnt/data")).unwrap();
        file(
            "proc/self/mountinfo",
            "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n30 22 0:30 / /mnt/data rw - btrfs /dev/sdb1 rw\n\
             31 22 0:5 / /proc rw - proc proc rw\n32 22 8:3 / /boot rw - ext4 /dev/sda2 rw\n",
        );
        root
    }

    #[test]
    fn what_a_server_has_is_found_in_the_usual_places() {
        let found = look(server().path());
        let points: Vec<_> = found.filesystems.iter().map(|one| (one.point.to_str().unwrap(), &*one.kind)).collect();
        assert_eq!(points, [("/", "ext4"), ("/mnt/data", "btrfs")]);
        let directories: Vec<_> =
            found.directories.iter().map(|one| (one.path.to_str().unwrap(), one.what, one.unit.as_deref())).collect();
        assert_eq!(
            directories,
            [
                ("/srv/shop", What::Site, None),
                ("/var/www/shop", What::Site, None),
                ("/opt/mail", What::Compose, None),
                ("/var/lib/mysql", What::Database("MariaDB or MySQL"), Some("mariadb.service")),
                ("/var/lib/docker/volumes", What::Volumes("Docker"), None),
            ]
        );
    }

    #[test]
    fn the_configuration_of_any_server_is_valid_with_every_comment_taken_away_too() {
        let repository = NewRepository { url: "/var/b \"x\"".into(), password_file: "/etc/snapback/p".into() };
        let parse = |text: &str| Config::parse(Path::new("/etc/snapback/snapback.toml"), text, None);
        for found in [look(server().path()), Found::default()] {
            let text = configuration(&found, &repository);
            let config = parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(config.projects.len(), found.directories.len());
            assert_eq!(config.repositories["local"].url, repository.url);
            let servers = found.servers.iter().filter(|server| server.directory == Some("/data/pg".into())).count();
            // What may be switched on fits what is there.
            let active: String = text
                .lines()
                .map(|line| {
                    line.strip_prefix('#').filter(|line| !line.starts_with(' ')).unwrap_or(line).to_owned() + "\n"
                })
                .collect();
            let config = parse(&active).unwrap_or_else(|error| panic!("{error}\n{active}"));
            assert_eq!(config.projects.len(), found.directories.len() + servers + 1);
            assert_eq!(config.warnings, []);
        }
    }

    #[test]
    fn databases_are_proposed_with_the_project_that_they_are_in() {
        let repository = NewRepository { url: "/var/b".into(), password_file: "/etc/snapback/p".into() };
        let text = configuration(&look(server().path()), &repository);
        for expected in [
            "[project.shop]\npaths = [\"/srv/shop\"]\nplans = [\"nightly\"]\n\
             # A file of SQLite that is in use is whole in every backup only with these lines.\n\
             #[project.shop.database.app]\n#url = \"sqlite:/srv/shop/data/app.db\"\n\
             #[project.shop.database.app-2]\n#url = \"sqlite:/srv/shop/data/old/app.sqlite\"\n",
            "plans = [\"nightly\"]\n#[project.mysql.database.all]\n#url = \"mysql:///\"\n#all = true\n",
            "#[project.pg]\n#paths = [\"/data/pg\"]\n#plans = [\"nightly\"]\n\
             #[project.pg.database.all]\n#url = \"postgres://:5433/\"\n#all = true\n",
        ] {
            assert!(text.contains(expected), "{expected}\n---\n{text}");
        }
    }
}
