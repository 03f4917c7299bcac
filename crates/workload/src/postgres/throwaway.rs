//! A server that lives for a proof: with a configuration of its own, a socket in its own directory, and no network.
//!
//! The invariant: it does nothing that reaches outside. It archives no log, replicates from nobody and to nobody, loads no
//! library that runs jobs, and opens what its data directory names only after [`confine`] has looked at every link. It is
//! ended when this is dropped, and by the kernel when this process is killed.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::dump::version_of;
use crate::address::{Address, Login, Server};
use crate::error::Error;
use crate::tool::{Program, Tools, User, quit_with_us, said, started};
use crate::verify::questions::{Copy, Questions};

const POSTGRES: Program = Program { names: &["postgres"], package: "postgresql" };

/// The superuser that initdb makes, unless told otherwise: the account's own name, on Debian this.
pub(super) const SUPERUSER: &str = "postgres";

/// What is enough for a start after recovery of a busy server.
const PATIENCE: Duration = Duration::from_secs(600);

/// So long a server may take to end, before it is killed.
const FAREWELL: Duration = Duration::from_secs(10);

/// A running server.
pub(super) struct Throwaway {
    child: Child,
    pub(super) login: Login,
    pub(super) started_in: Duration,
}

/// An installed server's programs.
pub(super) struct Programs {
    pub(super) postgres: PathBuf,
}

impl Programs {
    /// Those of a version, or the newest.
    pub(super) fn find(tools: &Tools, major: Option<u32>) -> Result<Programs, Error> {
        let own = |path: &PathBuf| tools.version(path).ok().and_then(|said| version_of(&said).map(|(_, own)| own));
        let all = tools.all(POSTGRES).into_iter();
        let found = all.map(|path| (own(&path), path)).find(|(own, _)| major.is_none() || *own == major);
        found.map(|(_, postgres)| Programs { postgres }).ok_or_else(|| Error::Tool {
            program: major.map_or("PostgreSQL".to_owned(), |major| format!("PostgreSQL {major}")),
            reason: "is not installed".to_owned(),
            package: major.map_or(POSTGRES.package.to_owned(), |major| format!("postgresql-{major}")),
        })
    }

    /// Another program of the same version.
    pub(super) fn sibling(&self, name: &str) -> PathBuf {
        self.postgres.with_file_name(name)
    }
}

impl Throwaway {
    /// Starts a server as the owner of a data directory, and waits until it takes queries.
    pub(super) fn start(
        programs: &Programs,
        data: &Path,
        account: &User,
        questions: &Questions,
    ) -> Result<Throwaway, Error> {
        let work = &questions.work;
        let sockets = make(work, "sockets", account)?;
        let configuration = configuration(programs, data, &sockets, questions)?;
        for (name, text) in [("postgresql.conf", configuration.as_str()), ("pg_hba.conf", HBA), ("pg_ident.conf", "")] {
            let path = work.join(name);
            write(&path, text)?;
            give(&path, account)?;
        }
        let log = fs::File::create(work.join("log")).map_err(|error| failed_to("create", &work.join("log"), error))?;
        let errors = log.try_clone().map_err(|error| failed_to("create", &work.join("log"), error))?;
        let mut command = questions.tools.command(&programs.postgres);
        command.arg("-D").arg(data).arg("-c").arg(format!("config_file={}", work.join("postgresql.conf").display()));
        account.run(&mut command);
        quit_with_us(&mut command);
        let began = Instant::now();
        let child = command.stdout(log).stderr(errors).spawn().map_err(|source| started(&programs.postgres, source))?;
        let server = Server { host: Some(sockets.display().to_string()), ..Server::default() };
        let tools = Tools { account: Some(account.clone()), ..questions.tools.clone() };
        let login = Login { tools, ..Login::new(Address::Postgres(server)) };
        let mut throwaway = Throwaway { child, login, started_in: Duration::ZERO };
        let patience = if questions.patience.is_zero() { PATIENCE } else { questions.patience };
        throwaway.wait(&account.name, began + patience, &work.join("log"))?;
        throwaway.started_in = began.elapsed();
        Ok(throwaway)
    }

    /// Waits until it takes queries of one of the names that its superuser may have.
    fn wait(&mut self, own: &str, until: Instant, log: &Path) -> Result<(), Error> {
        let mut names = [own, SUPERUSER].into_iter().cycle();
        loop {
            let Address::Postgres(server) = &mut self.login.address else { return Ok(()) };
            server.user = names.next().map(str::to_owned);
            let server = server.clone();
            let error = match Client::open_server(&self.login, &server) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended || Instant::now() > until || matches!(error, Error::Tool { .. }) {
                let why = if ended { last_words(log) } else { format!("{error}; {}", last_words(log)) };
                return Err(self.failed("the start of a server on the copy", why));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The server's address, with the user that was let in.
    pub(super) fn server(&self) -> Server {
        self.login.address.server().cloned().unwrap_or_default()
    }

    pub(super) fn failed(&self, what: &str, reason: String) -> Error {
        Error::Failed { address: "the throw-away server".to_owned(), what: what.to_owned(), reason }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // Fast: sessions are ended. Immediate: its processes end by themselves, which a kill would leave behind.
        for signal in [Signal::INT, Signal::QUIT] {
            let _ = kill_process(pid, signal);
            let until = Instant::now() + FAREWELL;
            while Instant::now() < until {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever can enter the socket's directory: its owner and root.
const HBA: &str = "local all all trust\n";

/// A configuration that needs nothing of the old one, which on Debian lies in /etc, and may name directories, libraries and
/// commands of production. What recovery must have room for is in the control file.
fn configuration(programs: &Programs, data: &Path, sockets: &Path, questions: &Questions) -> Result<String, Error> {
    let program = programs.sibling("pg_controldata");
    let mut command = questions.tools.command(&program);
    let output = command.arg(data).output().map_err(|source| started(&program, source))?;
    let control = String::from_utf8_lossy(&output.stdout).into_owned();
    let quoted = |path: &Path| path.display().to_string().replace('\'', "''");
    let mut lines = vec![
        "listen_addresses = ''".to_owned(),
        format!("unix_socket_directories = '{}'", quoted(sockets)),
        "unix_socket_permissions = 0700".to_owned(),
        format!("data_directory = '{}'", quoted(data)),
        format!("hba_file = '{}'", quoted(&questions.work.join("pg_hba.conf"))),
        format!("ident_file = '{}'", quoted(&questions.work.join("pg_ident.conf"))),
        "archive_mode = off".to_owned(),
        "autovacuum = off".to_owned(),
        "max_logical_replication_workers = 0".to_owned(),
        "restart_after_crash = off".to_owned(),
        "shared_buffers = 64MB".to_owned(),
        "lc_messages = 'C'".to_owned(),
        // It will never be started again.
        "fsync = off".to_owned(),
        "full_page_writes = off".to_owned(),
    ];
    for (said, name) in [
        ("wal_level setting:", "wal_level"),
        ("max_connections setting:", "max_connections"),
        ("max_worker_processes setting:", "max_worker_processes"),
        ("max_wal_senders setting:", "max_wal_senders"),
        ("max_prepared_xacts setting:", "max_prepared_transactions"),
        ("max_locks_per_xact setting:", "max_locks_per_transaction"),
    ] {
        let value = control.lines().find_map(|line| line.strip_prefix(said));
        // Without a sender, the log need not be good for replication; but with one it must.
        lines.extend(value.map(|value| format!("{name} = {}", value.trim())));
    }
    Ok(lines.join("\n") + "\n")
}

/// Makes a copy safe to be started on.
pub(super) fn confine(copy: &Copy<'_>) -> Result<(), Error> {
    let data = copy.directory;
    if let Some(process) = runs_on(data) {
        return Err(Error::Refused(format!("a server runs on {data:?}: process {process}")));
    }
    for below in ["", "base", "pg_tblspc", "pg_wal"] {
        turn_links(&data.join(below), copy)?;
    }
    // Whose process number may be taken, even by production; and what would make it follow, or recover from, another.
    let stale = ["postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal", "recovery.conf"];
    for name in stale {
        remove(&data.join(name))?;
    }
    // It is read whatever else the configuration is.
    write(&data.join("postgresql.auto.conf"), "")?;
    let account = User::owner(data)?;
    for beside in copy.beside {
        // The links that a tablespace_map describes are there, and were turned; it would turn them back.
        if beside.file == "backup_label" {
            let path = data.join("backup_label");
            write(&path, &beside.content)?;
            give(&path, &account)?;
        }
    }
    if copy.beside.is_empty() {
        // A copy taken while somebody else made an online backup: the server must not think it is theirs.
        remove(&data.join("tablespace_map"))?;
    }
    fs::set_permissions(data, fs::Permissions::from_mode(0o700)).map_err(|error| failed_to("change", data, error))
}

/// The process of a server that runs on a directory: it has it as its own.
fn runs_on(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let process: u32 = text.lines().next()?.trim().parse().ok()?;
    let theirs = fs::metadata(format!("/proc/{process}/cwd")).ok()?;
    let ours = fs::metadata(data).ok()?;
    use std::os::unix::fs::MetadataExt;
    ((theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino())).then_some(process)
}

/// Links that lead out of the copy are turned to where their targets were copied to.
fn turn_links(directory: &Path, copy: &Copy<'_>) -> Result<(), Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed_to("read", directory, error)),
    };
    for entry in entries {
        let path = entry.map_err(|error| failed_to("read", directory, error))?.path();
        let Ok(target) = fs::read_link(&path) else { continue };
        let configuration = path.extension().is_some_and(|extension| extension == "conf");
        if configuration || inside(&path, copy) {
            continue;
        }
        let moved = copy.moved.iter().find_map(|(live, moved)| Some(moved.join(target.strip_prefix(live).ok()?)));
        let Some(moved) = moved else {
            return Err(Error::Refused(format!("{path:?} leads to {target:?}, which is not in the copy")));
        };
        // Joined with nothing, a path gets a slash at its end.
        let moved: PathBuf = moved.components().collect();
        remove(&path)?;
        symlink(&moved, &path).map_err(|error| failed_to("create", &path, error))?;
    }
    Ok(())
}

/// Whether a link leads into the copy, or to one of the copies beside it.
fn inside(link: &Path, copy: &Copy<'_>) -> bool {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let Some(target) = real(link) else { return false };
    let copies = copy.moved.iter().map(|(_, moved)| moved.as_path()).chain([copy.directory]);
    copies.filter_map(real).any(|copy| target.starts_with(copy))
}

/// Makes a directory for an account alone.
pub(super) fn make(work: &Path, name: &str, account: &User) -> Result<PathBuf, Error> {
    let path = work.join(name);
    fs::create_dir(&path).map_err(|error| failed_to("create", &path, error))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(|error| failed_to("change", &path, error))?;
    give(&path, account)?;
    Ok(path)
}

fn give(path: &Path, account: &User) -> Result<(), Error> {
    chown(path, Some(account.uid), Some(account.gid)).map_err(|error| failed_to("change the owner of", path, error))
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    // Never through a link.
    if path.is_symlink() {
        remove(path)?;
    }
    fs::write(path, text).map_err(|error| failed_to("write", path, error))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed_to("remove", path, error)),
        _ => Ok(()),
    }
}

pub(super) fn failed_to(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { action, path: path.to_owned(), source }
}

/// What the server complained of in the end.
fn last_words(log: &Path) -> String {
    let mut text = String::new();
    let read = fs::File::open(log).and_then(|file| file.take(1 << 20).read_to_string(&mut text));
    let words: Vec<&str> = text
        .lines()
        .filter(|line| ["FATAL", "PANIC", "ERROR", "HINT", "DETAIL"].iter().any(|of| line.contains(of)))
        .collect();
    let last = words.len().saturating_sub(5);
    match read {
        Ok(_) if words.is_empty() => said(&text[text.floor_char_boundary(text.len().saturating_sub(500))..]),
        Ok(_) => said(&words[last..].join("\n")),
        Err(error) => error.to_string(),
    }
}

/// Runs initdb: an empty cluster.
pub(super) fn initialize(programs: &Programs, data: &Path, account: &User, tools: &Tools) -> Result<(), Error> {
    let program = programs.sibling("initdb");
    let mut command = tools.command(&program);
    command.arg("-D").arg(data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]);
    account.run(&mut command);
    let output = command.stdin(Stdio::null()).output().map_err(|source| started(&program, source))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = said(&String::from_utf8_lossy(&output.stderr));
    Err(Error::Failed { address: "the throw-away server".to_owned(), what: "initdb".to_owned(), reason })
}
