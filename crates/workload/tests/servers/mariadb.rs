//! A real MariaDB of a test's own: in a temporary directory, as the user `mysql`, with a socket there and no network. It is
//! killed when this is dropped, and by the kernel if the test's thread dies without.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct MariaDb {
    home: tempfile::TempDir,
    data: PathBuf,
    options: Vec<String>,
    server: Option<Child>,
}

#[allow(dead_code, reason = "each test that includes this uses a part of it")]
impl MariaDb {
    /// A server as mariadb-install-db makes it: root needs no password.
    pub(crate) fn start() -> MariaDb {
        MariaDb::start_in(None, &[])
    }

    /// A server with these options, its data in the directory `place` instead of beside its socket.
    pub(crate) fn start_in(place: Option<&Path>, options: &[&str]) -> MariaDb {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = place.map_or(home.path().join("data"), Path::to_owned);
        fs::create_dir_all(&data).unwrap();
        own(home.path());
        own(&data);
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = MariaDb { home, data, options, server: None };
        let mut install = server.as_mysql("mariadb-install-db");
        // Its temporary tables are named by its number alone.
        install.env("TMPDIR", server.home.path());
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.args(&server.options);
        let output = install.arg(format!("--datadir={}", server.data.display())).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        server.run();
        server
    }

    /// Starts it again after [`MariaDb::stop`].
    pub(crate) fn run(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let mut command = self.as_mysql("mariadbd");
        command.args(["--no-defaults", "--skip-networking", "--innodb-buffer-pool-size=32M"]);
        command.env("TMPDIR", self.home.path());
        command.arg(format!("--datadir={}", self.data.display())).arg(format!("--socket={}", self.socket().display()));
        command.args(&self.options).stdout(log.try_clone().unwrap()).stderr(log);
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
                Ok(())
            });
        }
        self.server = Some(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.client().args(["-e", "select 1"]).output().unwrap().status.success() {
            assert!(Instant::now() < deadline, "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it as a power cut would.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
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

    /// A directory beside it that belongs to its user.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.home.path().join(name);
        fs::create_dir(&directory).unwrap();
        own(&directory);
        directory
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("s.sock")
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// The address of one of its databases, or with "" of the server, as root.
    pub(crate) fn url(&self, database: &str) -> String {
        self.url_of("root", database)
    }

    /// The same as another account.
    pub(crate) fn url_of(&self, account: &str, database: &str) -> String {
        format!("mysql://{account}@/{database}?socket={}", self.socket().display())
    }

    /// A client of root's, which waits for arguments or statements.
    pub(crate) fn client(&self) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=root", "--default-character-set=utf8mb4", "-N", "-B"]);
        command.arg(format!("--socket={}", self.socket().display())).stdin(Stdio::null());
        command
    }

    /// What statements give, or the error.
    pub(crate) fn try_sql(&self, statements: &str) -> Result<String, String> {
        let mut command = self.client();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Whoever was refused does not read.
        let _ = child.stdin.take().unwrap().write_all(statements.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// What statements give. They may have `DELIMITER` lines.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Makes a database `bank` whose transfers keep the sum of all accounts at zero, and a log in MyISAM.
    pub(crate) fn bank(&self) {
        self.sql(
            "create database bank; use bank; \
             create table account (id int primary key, balance bigint not null) engine = innodb; \
             insert into account select seq, 0 from seq_1_to_1000; \
             create table transfer (id bigint primary key auto_increment, n int, at datetime(6)) engine = innodb; \
             create table note (id bigint primary key auto_increment, text varchar(80)) engine = myisam;",
        );
    }

    /// Lets clients write into the bank until the load is dropped.
    pub(crate) fn load(&self, clients: u32) -> Load {
        let ended = Arc::new(AtomicBool::new(false));
        let writers = (0..clients).map(|number| {
            let mut command = self.client();
            let mut child = command
                .args(["--unbuffered", "--skip-reconnect", "bank"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
                let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
                let mut times = Vec::new();
                while !ended.load(Ordering::Relaxed) {
                    let n = times.len() as u32 * 7 + number * 131;
                    // In order, so that no two wait for each other.
                    let (a, b) = (n % 1000 + 1, n / 3 % 1000 + 1);
                    let (from, to) = (a.min(b), a.max(b));
                    let transfer = format!(
                        "begin; update account set balance = balance - 5 where id = {from}; \
                         update account set balance = balance + 5 where id = {to}; \
                         insert into transfer (n, at) values ({n}, now(6)); commit; \
                         insert into note (text) values ('transfer {n}'); select 1;\n"
                    );
                    if input.write_all(transfer.as_bytes()).is_err() || lines.next().is_none_or(|line| line.is_err()) {
                        break;
                    }
                    times.push(Instant::now());
                }
                drop(input);
                let _ = child.wait();
                times
            })
        });
        let load = Load { writers: writers.collect(), ended };
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.sql("select count(*) > 50 from bank.transfer") != "1" {
            assert!(Instant::now() < deadline, "no load");
        }
        load
    }

    fn as_mysql(&self, program: &str) -> Command {
        // As the user of its files. No other program changes the user: the kernel would forget whom it ends with us.
        let data = fs::metadata(&self.data).unwrap();
        let mut command = Command::new(program);
        command.uid(data.uid()).gid(data.gid());
        command.current_dir("/").stdin(Stdio::null()).env("LC_ALL", "C");
        command
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Gives a file to the servers' user.
pub(crate) fn own(path: &Path) {
    let status = Command::new("chown").args(["-R", "mysql:mysql"]).arg(path).status().unwrap();
    assert!(status.success(), "chown {path:?}");
}

/// Clients that write until this is dropped.
pub(crate) struct Load {
    writers: Vec<JoinHandle<Vec<Instant>>>,
    ended: Arc<AtomicBool>,
}

#[allow(dead_code, reason = "each test that includes this uses a part of it")]
impl Load {
    /// Ends it, and says for how long at most no transfer of any client ended.
    pub(crate) fn longest_stand_still(mut self) -> Duration {
        self.ended.store(true, Ordering::Relaxed);
        let mut times: Vec<Instant> = self.writers.drain(..).flat_map(|writer| writer.join().unwrap()).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().expect("nothing was written")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}
