//! A throw-away server: without network, its socket in a directory of its own, ended whatever happens.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::client::{Client, NO_DEFAULTS};
use crate::address::{Address, Login, Server};
use crate::error::Error;
use crate::tool::{Program, Tools, User, is_root, started};
use crate::verify::questions::Questions;

const SERVER: Program = Program { names: &["mariadbd", "mysqld"], package: "mariadb-server-core" };
const INSTALL: Program = Program { names: &["mariadb-install-db", "mysql_install_db"], package: "mariadb-server-core" };

/// The server's account, if this process can become it.
const ACCOUNT: &str = "mysql";

/// How long a server may take to start if nothing is said.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long it may take to go.
const FAREWELL: Duration = Duration::from_secs(20);

/// The longest path of a socket, in bytes (unix(7)).
const SOCKET_BYTES: usize = 107;

/// What a server is started with.
pub(super) struct Setup {
    program: PathBuf,
    user: User,
    data: PathBuf,
    arguments: Vec<String>,
}

impl Setup {
    /// On files that are there. Nobody's password is asked for: only who may enter its directory reaches it.
    pub(super) fn of_copy(
        directory: &Path,
        moved: &[(PathBuf, PathBuf)],
        questions: &Questions,
    ) -> Result<Setup, Error> {
        let mut arguments = vec!["--skip-grant-tables".to_owned()];
        let copies = || std::iter::once(directory).chain(moved.iter().map(|(_, copy)| copy.as_path()));
        let places = [
            ("ibdata1", "--innodb-data-home-dir"),
            ("ib_logfile0", "--innodb-log-group-home-dir"),
            ("#innodb_redo", "--innodb-log-group-home-dir"),
            ("undo001", "--innodb-undo-directory"),
            ("aria_log_control", "--aria-log-dir-path"),
        ];
        for (file, option) in places {
            if let Some(place) = copies().find(|place| place.join(file).exists()).filter(|place| *place != directory) {
                arguments.push(format!("{option}={}", place.display()));
            }
        }
        let Some(system) = copies().map(|place| place.join("ibdata1")).find(|path| path.exists()) else {
            return Err(Error::Refused(format!("{} is not the data directory of a server", directory.display())));
        };
        if let Some(bytes) = page_bytes(&system)? {
            arguments.push(format!("--innodb-page-size={bytes}"));
        }
        // Transactions between binary log and tables are decided by the log.
        match copies().find_map(binary_log) {
            Some(log) => arguments.extend([format!("--log-bin={log}"), "--server-id=1".to_owned()]),
            None => arguments.push("--skip-log-bin".to_owned()),
        }
        let program = questions.tools.find(SERVER)?;
        Ok(Setup { program, user: User::owner(directory)?, data: directory.to_owned(), arguments })
    }

    /// On new, empty files.
    pub(super) fn empty(questions: &Questions) -> Result<Setup, Error> {
        let program = questions.tools.find(SERVER)?;
        let account = if is_root() { User::named(ACCOUNT) } else { None };
        let user = match account {
            Some(user) => user,
            None => User::owner(&questions.work)?,
        };
        let data = questions.work.join("data");
        owned(&questions.work, &user)?;
        make(&data, &user)?;
        let is_mariadb = questions.tools.version(&program)?.contains("MariaDB");
        let mut command = if is_mariadb {
            let mut command = questions.tools.command(&questions.tools.find(INSTALL)?);
            command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
            command
        } else {
            let mut command = questions.tools.command(&program);
            command.args(["--no-defaults", "--initialize-insecure"]);
            command
        };
        // Servers that are made at once would share names of temporary tables.
        command.env("TMPDIR", &questions.work);
        command.arg(format!("--datadir={}", data.display())).stdin(Stdio::null());
        user.run(&mut command);
        let output = command.output().map_err(|source| started(Path::new(command.get_program()), source))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(failed("the making of an empty server", crate::tool::said(&String::from_utf8_lossy(&said))));
        }
        Ok(Setup { program, user, data, arguments: vec!["--skip-log-bin".to_owned()] })
    }

    /// Starts it, and waits until it takes queries.
    pub(super) fn start(self, questions: &Questions) -> Result<(Running, Duration), Error> {
        let began = Instant::now();
        let Setup { program, user, data, arguments } = self;
        owned(&questions.work, &user)?;
        let temporary = questions.work.join("tmp");
        make(&temporary, &user)?;
        let socket = questions.work.join("s.sock");
        if socket.as_os_str().len() > SOCKET_BYTES {
            return Err(Error::Refused(format!("{} is too long a path for a socket", socket.display())));
        }
        let log = questions.work.join("server.log");
        let place = |option: &str, path: &Path| format!("--{option}={}", path.display());
        let mut command = questions.tools.command(&program);
        command.args(["--no-defaults", "--skip-networking", "--skip-slave-start", "--event-scheduler=OFF"]);
        command.args(["--innodb-buffer-pool-load-at-startup=OFF", "--innodb-buffer-pool-dump-at-shutdown=OFF"]);
        command.args([
            place("datadir", &data),
            place("socket", &socket),
            place("pid-file", &questions.work.join("server.pid")),
            place("log-error", &log),
            place("tmpdir", &temporary),
            place("secure-file-priv", &temporary),
        ]);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if user.uid == 0 {
            command.arg("--user=root");
        }
        user.run(&mut command);
        end_with_us(&mut command);
        let child = command.spawn().map_err(|source| started(&program, source))?;
        let mut running = Running { child, socket, log, tools: questions.tools.clone() };
        let patience = if questions.patience.is_zero() { PATIENCE } else { questions.patience };
        running.wait_until_up(began + patience)?;
        Ok((running, began.elapsed()))
    }
}

/// If this process is killed, the kernel kills the server: its files are a copy, so it need not end well.
fn end_with_us(command: &mut Command) {
    // SAFETY: one system call between fork and exec; nothing is allocated. It comes after the change of the user, which
    // would undo it (prctl(2)).
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

/// A server that runs. Dropped, it is killed.
pub(super) struct Running {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
    tools: Tools,
}

impl Running {
    pub(super) fn login(&self) -> Login {
        let parameters = [(NO_DEFAULTS, String::new()), ("socket", self.socket.display().to_string())];
        let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let server = Server { user: Some("root".to_owned()), parameters, ..Server::default() };
        Login { address: Address::Mysql(server), password_file: None, tools: self.tools.clone() }
    }

    fn wait_until_up(&mut self, until: Instant) -> Result<(), Error> {
        let login = self.login();
        let server = login.address.server().cloned().unwrap_or_default();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(failed("the start of a server", format!("it ended with {status}: {}", self.last_words())));
            }
            match self.socket.exists().then(|| Client::open_database(&login, &server, None)) {
                Some(Ok(_)) => return Ok(()),
                Some(Err(error)) if !matches!(error, Error::Unreachable { .. }) => return Err(error),
                _ if Instant::now() > until => {
                    let reason = format!("it does not take queries: {}", self.last_words());
                    return Err(failed("the start of a server", reason));
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// An error with what the server wrote last, if it died of what it was asked.
    pub(super) fn explained(&self, error: Error) -> Error {
        match error {
            Error::Unreachable { reason, .. } => {
                failed("the check", format!("the server ended: {reason}; its log: {}", self.last_words()))
            }
            other => other,
        }
    }

    /// Errors of the log, or its last lines.
    fn last_words(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            let length = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(length.saturating_sub(16 << 10)))?;
            file.read_to_end(&mut text)
        });
        if read.is_err() {
            return "it wrote no log".to_owned();
        }
        let text = String::from_utf8_lossy(&text);
        let errors: Vec<&str> = text.lines().filter(|line| line.contains("[ERROR]")).collect();
        let lines: Vec<&str> = if errors.is_empty() { text.lines().rev().take(3).collect() } else { errors };
        lines[..lines.len().min(5)].join("; ")
    }

    /// Ends it, and waits until it has gone.
    pub(super) fn stop(mut self) -> Result<(), Error> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let told = pid.map(|pid| kill_process(pid, Signal::TERM));
        if !matches!(told, Some(Ok(()))) {
            return Ok(());
        }
        let until = Instant::now() + FAREWELL;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                let reason = || format!("it ended with {status}: {}", self.last_words());
                return if status.success() { Ok(()) } else { Err(failed("the stop of the server", reason())) };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The page size that a system tablespace was made with, if it is not the usual one: `FSP_SPACE_FLAGS` on its first page
/// (MariaDB's fsp0types.h; MySQL's are the same here).
fn page_bytes(system: &Path) -> Result<Option<u32>, Error> {
    let mut head = [0; 58];
    let read = File::open(system).and_then(|mut file| file.read_exact(&mut head));
    read.map_err(|source| Error::Io { action: "read", path: system.to_owned(), source })?;
    let flags = u32::from_be_bytes([head[54], head[55], head[56], head[57]]);
    let full_crc32 = flags & 0x10 != 0;
    let shift = if full_crc32 { flags & 0xf } else { flags >> 6 & 0xf };
    Ok(matches!(shift, 3..=7).then(|| 512 << shift).filter(|bytes| *bytes != 16384))
}

/// The base name of the binary log in a directory, by its index.
fn binary_log(directory: &Path) -> Option<String> {
    let listed = fs::read_dir(directory).ok()?;
    for path in listed.flatten().map(|entry| entry.path()) {
        let is_index = path.extension().is_some_and(|extension| extension == "index");
        let (true, Ok(text)) = (is_index, fs::read_to_string(&path)) else { continue };
        let Some(first) = text.lines().next().and_then(|line| Path::new(line).file_stem()) else { continue };
        // Relay logs have an index, too.
        let own = path.file_stem() == Some(first) && !first.to_string_lossy().contains("relay");
        // An index with absolute paths names the live ones.
        if own && text.lines().all(|line| line.starts_with("./") || !line.contains('/')) {
            return Some(directory.join(first).display().to_string());
        }
    }
    None
}

fn make(directory: &Path, user: &User) -> Result<(), Error> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::Io { action: "create", path: directory.to_owned(), source: error })
        }
        _ => owned(directory, user),
    }
}

/// Others have no business in it.
fn owned(directory: &Path, user: &User) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |source| Error::Io { action: "hand over", path: directory.to_owned(), source };
    if is_root() {
        std::os::unix::fs::chown(directory, Some(user.uid), Some(user.gid)).map_err(failed)?;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)
}

fn failed(what: &str, reason: String) -> Error {
    Error::Failed { address: "a throw-away server".to_owned(), what: what.to_owned(), reason }
}
