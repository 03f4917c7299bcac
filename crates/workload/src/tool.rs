//! The client programs of databases: where they are found, as whom they run, and how they learn a password.
//!
//! The invariant: a password is in no argument, no environment variable and no file on a disk. It is in a memory file that
//! the program inherits (memfd_create(2)), and what is told in arguments is only that file's number.
//!
//! Does not know of any program's arguments.

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::error::Error;

mod stream;

pub use stream::{Output, feed, said};

/// Where system programs lie, as seen by a service with any `PATH`.
const DIRECTORIES: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Where Debian keeps each version's programs; a server has several at once while it is upgraded.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Where the client programs are, if not on this system as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// Looked through alone, if there are any: a server built by hand, or in tests a script that plays a transcript.
    pub directories: Vec<PathBuf>,
    /// What comes before each command: `podman exec -i NAME`. Programs are then found by whoever runs them, users are
    /// those of that command, and a memory file cannot be inherited.
    pub prefix: Vec<OsString>,
    /// As whom they run, if not as whom the address says.
    pub account: Option<User>,
}

/// A program that is needed.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it may be called, the better name first: `mariadb`, `mysql`.
    pub names: &'static [&'static str],
    /// The Debian package that has it.
    pub package: &'static str,
}

impl Tools {
    /// All that are installed; of PostgreSQL's one for each version.
    pub fn all(&self, program: Program) -> Vec<PathBuf> {
        if !self.prefix.is_empty() {
            return program.names.iter().map(PathBuf::from).collect();
        }
        let mut directories = self.directories.clone();
        if directories.is_empty() {
            // First, as what Debian has in /usr/bin chooses a version and a cluster by files of its own.
            directories.extend(versions());
            directories.extend(DIRECTORIES.map(PathBuf::from));
        }
        let mut found: Vec<PathBuf> = Vec::new();
        for name in program.names {
            found.extend(directories.iter().map(|directory| directory.join(name)).filter(|path| runs(path)));
        }
        found
    }

    /// The first that is installed: of PostgreSQL's the newest, which speaks to all older servers.
    ///
    /// # Errors
    /// [`Error::Tool`] with the package.
    pub fn find(&self, program: Program) -> Result<PathBuf, Error> {
        self.all(program).into_iter().next().ok_or_else(|| Error::Tool {
            program: program.names[0].to_owned(),
            reason: "is not installed".to_owned(),
            package: program.package.to_owned(),
        })
    }

    /// The command that runs a program: in the C locale, so that what it says can be read; in `/`, which every user may
    /// enter; without input.
    pub fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        command
    }

    /// What `PROGRAM --version` says, such as `pg_dump (PostgreSQL) 15.18`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn version(&self, program: &Path) -> Result<String, Error> {
        let output = self.command(program).arg("--version").output().map_err(|source| started(program, source))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
    }
}

/// That a program could not be started.
pub fn started(program: &Path, source: io::Error) -> Error {
    Error::Io { action: "start", path: program.to_owned(), source }
}

fn runs(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The directories of PostgreSQL's versions, the newest first.
fn versions() -> Vec<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, directory)| directory).collect()
}

/// A password, or a file of options with one, that lies in memory and is handed to one command.
#[derive(Debug)]
pub struct Secret(OwnedFd);

impl Secret {
    /// A memory file of this content, readable by this user alone.
    ///
    /// # Errors
    /// [`Error::Io`] without memory.
    pub fn new(content: &[u8], reader: Option<&User>) -> Result<Secret, Error> {
        let failed = |source: io::Error| Error::Io { action: "make", path: "a file in memory".into(), source };
        let memory = memfd_create("secret", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        let mut file = fs::File::from(memory);
        file.write_all(content).map_err(failed)?;
        // libpq ignores a file of passwords that others may read, and opens it by name, so as the user who it is for.
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
        if let Some(user) = reader {
            std::os::unix::fs::fchown(&file, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        Ok(Secret(file.into()))
    }

    /// The name under which the command finds it. It can be opened again and again, and by the command's own children.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }

    /// Lets the command inherit it.
    pub fn give(self, command: &mut Command) {
        // SAFETY: between fork and exec it makes one system call on a number that the closure owns, and allocates nothing.
        unsafe {
            command.pre_exec(move || Ok(fcntl_setfd(&self.0, FdFlags::empty())?));
        }
    }
}

/// The password in a file: its first line.
///
/// # Errors
/// [`Error::Io`].
pub fn password(file: &Path) -> Result<String, Error> {
    let text =
        fs::read_to_string(file).map_err(|source| Error::Io { action: "read", path: file.to_owned(), source })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Lets the kernel send a command SIGQUIT when the thread that started it dies, which for the thread of whoever waits for
/// it means when this process is killed. To be called after [`User::run`]: a change of user forgets it.
pub fn quit_with_us(command: &mut Command) {
    let quit = || Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::QUIT))?);
    // SAFETY: between fork and exec it makes one system call, and allocates nothing.
    unsafe {
        command.pre_exec(quit);
    }
}

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its home.
    pub home: PathBuf,
}

impl User {
    /// The user of a name, as passwd(5) has it.
    pub fn named(name: &str) -> Option<User> {
        User::find(|user| user.name == name)
    }

    /// The user of a number; what has no name has its number.
    pub fn numbered(uid: u32, gid: u32) -> User {
        let nameless = || User { name: uid.to_string(), uid, gid, home: "/".into() };
        User::find(|user| user.uid == uid).unwrap_or_else(nameless)
    }

    /// Whose process this is.
    pub fn own() -> Option<User> {
        Some(User::numbered(rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()))
    }

    /// Whom a file or directory belongs to.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn owner(path: &Path) -> Result<User, Error> {
        use std::os::unix::fs::MetadataExt;
        let found =
            fs::metadata(path).map_err(|source| Error::Io { action: "look at", path: path.to_owned(), source })?;
        Ok(User::numbered(found.uid(), found.gid()))
    }

    /// Lets a command run as this user, in no other group than its own. Only root can; a user stays itself.
    pub fn run(&self, command: &mut Command) {
        if is_root() {
            command.uid(self.uid).gid(self.gid);
            command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        }
    }

    fn find(is: impl Fn(&User) -> bool) -> Option<User> {
        let text = fs::read_to_string("/etc/passwd").ok()?;
        text.lines().filter_map(User::read).find(is)
    }

    fn read(line: &str) -> Option<User> {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields[..] else { return None };
        Some(User { name: name.to_owned(), uid: uid.parse().ok()?, gid: gid.parse().ok()?, home: home.into() })
    }
}

/// Whether this process is root's, and may become others.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
