//! A real PostgreSQL of a test's own: in a temporary directory, as the user `postgres`, with a socket there and no network.
//! It is stopped when this is dropped, and by the kernel if the test's thread dies without.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct Postgres {
    home: tempfile::TempDir,
    data: PathBuf,
    port: u16,
    server: Option<Child>,
}

#[allow(dead_code, reason = "each test that includes this uses a part of it")]
impl Postgres {
    /// A server as initdb makes it.
    pub(crate) fn start() -> Postgres {
        Postgres::start_in(None, &[], "")
    }

    /// A server of these initdb options and lines of configuration, its data in the directory `place` instead of beside its socket.
    pub(crate) fn start_in(place: Option<&Path>, initdb: &[&str], configuration: &str) -> Postgres {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = place.map_or(home.path().join("data"), Path::to_owned);
        let mut server = Postgres { home, data, port: 5432, server: None };
        for directory in [server.sockets(), server.data()] {
            fs::create_dir_all(&directory).unwrap();
            own(&directory);
        }
        let data = server.data();
        server
            .must("initdb", &[&["-D", data.to_str().unwrap(), "-U", "postgres", "-A", "peer", "-N"], initdb].concat());
        let lines = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nshared_buffers = 64MB\n{configuration}\n",
            server.sockets().display()
        );
        let path = data.join("postgresql.conf");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &lines).unwrap();
        server.run();
        server
    }

    /// Lets it listen at 127.0.0.1, too, at the port that comes back, to whoever fits this line of pg_hba.conf.
    pub(crate) fn listen(&mut self, rule: &str) -> u16 {
        self.stop();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        self.port = free.local_addr().unwrap().port();
        drop(free);
        let prepend = |file: &str, text: String| {
            let path = self.data().join(file);
            fs::write(&path, text + &fs::read_to_string(&path).unwrap()).unwrap();
        };
        prepend("pg_hba.conf", format!("{rule}\n"));
        let path = self.data().join("postgresql.conf");
        let lines = format!("listen_addresses = '127.0.0.1'\nport = {}\n", self.port);
        fs::write(&path, fs::read_to_string(&path).unwrap() + &lines).unwrap();
        self.run();
        self.port
    }

    /// Starts it again after [`Postgres::stop`].
    pub(crate) fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let mut command = self.command("postgres", &["-D", self.data().to_str().unwrap()]);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        die_with_us(&mut command, rustix::process::Signal::QUIT);
        self.server = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.command("pg_isready", &["-q", "-h", self.sockets().to_str().unwrap()]).status().unwrap().success() {
            assert!(Instant::now() < deadline, "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as a power cut would.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = rustix::process::Pid::from_child(&server);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let _ = server.wait();
        }
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone()
    }

    /// Where its socket is.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.home.path().join("sockets")
    }

    /// A directory beside it that belongs to its user.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.home.path().join(name);
        fs::create_dir(&directory).unwrap();
        own(&directory);
        directory
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// The address of one of its databases, or with "" of the server.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://:{}/{database}?host={}", self.port, self.sockets().display())
    }

    /// What statements give, as the superuser.
    pub(crate) fn sql(&self, database: &str, statements: &str) -> String {
        let sockets = self.sockets();
        let connection = ["-h", sockets.to_str().unwrap(), "-d", database];
        let options = ["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements];
        self.must("psql", &[&connection[..], &options[..]].concat()).trim_end().to_owned()
    }

    /// Makes a database with pgbench's tables; 100,000 accounts, some 15 MB, for each unit of scale.
    pub(crate) fn pgbench_tables(&self, database: &str, scale: u32) {
        self.sql("postgres", &format!("create database {database}"));
        let sockets = self.sockets();
        let scale = scale.to_string();
        self.must("pgbench", &["-h", sockets.to_str().unwrap(), "-i", "-q", "-s", &scale, database]);
    }

    /// Lets clients of pgbench write until the load is dropped.
    pub(crate) fn load(&self, database: &str, clients: u32) -> Load {
        let sockets = self.sockets();
        let log = self.home.path().join("transactions");
        let (clients, prefix) = (clients.to_string(), log.to_str().unwrap());
        let load = ["-h", sockets.to_str().unwrap(), "-c", &clients, "-n", "-T", "3600", "-l", "--log-prefix", prefix];
        let log = fs::File::create(self.home.path().join("pgbench.log")).unwrap();
        let mut command = self.command("pgbench", &[&load[..], &[database]].concat());
        command.current_dir(self.home.path()).stdout(Stdio::null()).stderr(log);
        own(self.home.path());
        let child = command.spawn().unwrap();
        let log = self.home.path().join(format!("transactions.{}", child.id()));
        let load = Load { child: Some(child), log };
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.sql(database, "select count(*) > 100 from pgbench_history") != "t" {
            assert!(Instant::now() < deadline, "no load");
        }
        load
    }

    /// Clients that come, ask, and go, until this is dropped.
    pub(crate) fn visitors(&self, database: &str) -> Visitors {
        let psql = format!("psql -h {} -d {database} -qAtX -c 'select 1'", self.sockets().display());
        let mut command = Command::new("sh");
        self.as_owner(&mut command);
        die_with_us(&mut command, rustix::process::Signal::KILL);
        command.arg("-c").arg(format!("while :; do PGPORT={} {psql}; done", self.port)).current_dir("/");
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Visitors(command.spawn().unwrap())
    }

    /// A program of its version, as its user.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let versions =
            fs::read_dir("/usr/lib/postgresql").expect("Debian's package postgresql is needed for this test");
        let programs = versions.map(|version| version.unwrap().path().join("bin")).max().unwrap();
        let mut command = Command::new(programs.join(program));
        self.as_owner(&mut command);
        command.args(arguments);
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C").env("PGPORT", self.port.to_string());
        command
    }

    /// As the user of its files. No other program changes the user: the kernel would forget then whom it ends with us.
    fn as_owner(&self, command: &mut Command) {
        let data = fs::metadata(&self.data).unwrap();
        command.uid(data.uid()).gid(data.gid());
    }

    fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives a file to the servers' user.
pub(crate) fn own(path: &Path) {
    let status = Command::new("chown").args(["-R", "postgres:postgres"]).arg(path).status().unwrap();
    assert!(status.success(), "chown {path:?}");
}

/// Lets the kernel end it when the thread that starts it ends without.
fn die_with_us(command: &mut Command, signal: rustix::process::Signal) {
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(move || Ok(rustix::process::set_parent_process_death_signal(Some(signal))?));
    }
}

/// Clients that come again and again until this is dropped.
pub(crate) struct Visitors(Child);

impl Drop for Visitors {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Clients that write until this is dropped.
pub(crate) struct Load {
    child: Option<Child>,
    log: PathBuf,
}

#[allow(dead_code, reason = "each test that includes this uses a part of it")]
impl Load {
    /// Ends it, and says for how long at most no transaction ended.
    pub(crate) fn longest_stand_still(mut self) -> Duration {
        self.end();
        // Of each transaction: client, number, time in us, script, and when it ended: seconds and microseconds.
        let text = fs::read_to_string(&self.log).unwrap();
        let ended = |line: &str| {
            let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            (fields.len() >= 6).then(|| fields[4] * 1_000_000 + fields[5])
        };
        let mut times: Vec<u64> = text.lines().filter_map(ended).collect();
        times.sort_unstable();
        let longest = times.windows(2).map(|pair| pair[1] - pair[0]).max();
        Duration::from_micros(longest.expect("no transaction was logged"))
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT);
            let _ = child.wait();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}
