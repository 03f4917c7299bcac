//! The real binary in a directory of its own: its own HOME, no variables of the machine, one line to set up.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses some of it")]
#![allow(clippy::disallowed_methods, reason = "a lock must be fresh")]

pub mod btrfs;
pub mod daemon;
pub mod killed;
pub mod terminal;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use repository::Repository;
use repository::storage::{FileKind, Local};

pub struct Environment {
    directory: tempfile::TempDir,
}

/// What a run printed and how it ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub bytes: Vec<u8>,
}

impl Environment {
    /// A place without a repository.
    pub fn empty() -> Self {
        let directory = tempfile::tempdir().expect("the system gives a directory");
        fs::create_dir(directory.path().join("home")).unwrap();
        fs::create_dir(directory.path().join("files")).unwrap();
        Environment { directory }
    }

    /// With a repository.
    pub fn new() -> Self {
        let environment = Environment::empty();
        environment.run(["repo", "init"]).succeeds();
        environment
    }

    /// With a repository and a backup of two files, `files/hello` and `files/sub/world`.
    pub fn with_backup() -> Self {
        let environment = Environment::new();
        environment.write("hello", "hello\n");
        environment.write("sub/world", "world\n");
        environment.backup();
        environment
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where the files to be backed up lie.
    pub fn files(&self) -> PathBuf {
        self.path("files").canonicalize().unwrap()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.files().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The binary with its environment; the password is right.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_snapback"));
        command
            .env_clear()
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .env("SNAPBACK_STATE_DIRECTORY", self.path("state"))
            .env("SNAPBACK_REPOSITORY", self.path("repository"))
            .env("SNAPBACK_PASSWORD", "correct horse")
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Run {
        self.command().args(arguments).output().expect("the binary starts").into()
    }

    /// Backs up `files`, and gives the backup's id.
    pub fn backup(&self) -> String {
        let run = self.run(["backup", "--json", "files"]).succeeds();
        run.json().as_array().and_then(|lines| lines.last()).unwrap()["id"].as_str().unwrap().to_owned()
    }

    /// Leaves a fresh exclusive lock, as a process of another machine would.
    pub fn with_lock_of_another_machine(&self) -> PathBuf {
        let storage = Arc::new(Local::new(self.path("repository")));
        let repository = Repository::open(storage, b"correct horse").unwrap();
        let time = jiff::Timestamp::now();
        let lock = serde_json::json!({
            "time": time.to_string(), "exclusive": true, "hostname": "elsewhere", "username": "somebody", "pid": 4711,
        });
        let id = repository.save(FileKind::Lock, lock.to_string().as_bytes()).unwrap();
        self.path("repository/locks").join(id.to_string())
    }

    /// The binary as a user who can read everything here, and write nothing.
    pub fn command_of_a_reader(&self) -> Command {
        let everything = [self.directory.path().to_owned()].into_iter().chain(all(self.directory.path()));
        // Of a link, what it points to would change, wherever that is.
        for path in everything.filter(|path| !path.is_symlink()) {
            let mode = if path.is_dir() { 0o555 } else { 0o444 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = self.command();
        // Permissions do not bind root.
        if rustix::process::getuid().is_root() {
            let binary = self.path("snapback");
            // Not by ourselves: a process that another thread starts meanwhile would have it open for writing.
            let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_snapback")).arg(&binary).status().unwrap();
            assert!(copied.success());
            fs::set_permissions(&binary, fs::Permissions::from_mode(0o555)).unwrap();
            let environment: Vec<_> =
                command.get_envs().map(|(key, value)| (key.to_owned(), value.unwrap().to_owned())).collect();
            command = Command::new(binary);
            command.env_clear().envs(environment).current_dir(self.directory.path()).uid(65534).gid(65534);
        }
        command
    }

    /// Names of the files in a directory of the repository.
    pub fn stored(&self, kind: &str) -> Vec<PathBuf> {
        all(&self.path("repository").join(kind)).into_iter().filter(|path| path.is_file()).collect()
    }
}

/// Files have no way to be removed from a directory that cannot be written to.
impl Drop for Environment {
    fn drop(&mut self) {
        for path in [self.directory.path().to_owned()].into_iter().chain(all(self.directory.path())) {
            if path.is_dir() && !path.is_symlink() {
                let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o755));
            }
        }
    }
}

/// Everything below a directory, directories before what they hold.
fn all(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        found.push(path.clone());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(all(&path));
        }
    }
    found
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }
}

impl Run {
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Ends with the code, and says something on stderr that contains each of the words.
    #[track_caller]
    pub fn fails<const N: usize>(self, code: i32, words: [&str; N]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is missing in {}", self.stderr);
        }
        self
    }

    /// Everything on stdout: one document, or the array of the lines' documents.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let documents = serde_json::Deserializer::from_str(&self.stdout).into_iter::<serde_json::Value>();
        let documents: Vec<_> = documents.map(|document| document.expect("stdout is JSON")).collect();
        match <[serde_json::Value; 1]>::try_from(documents) {
            Ok([value]) if value.is_array() => value,
            Ok(one) => serde_json::Value::from(one.to_vec()),
            Err(lines) => serde_json::Value::from(lines),
        }
    }
}

/// All files below a directory with their bytes, by relative path.
pub fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = all(directory).into_iter().filter(|path| path.is_file());
    let mut found: Vec<_> =
        files.map(|path| (path.strip_prefix(directory).unwrap().to_owned(), fs::read(&path).unwrap())).collect();
    found.sort();
    found
}
