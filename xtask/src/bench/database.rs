//! `cargo xtask bench --database`: the backup of a project with a PostgreSQL database against what pg_dump alone does,
//! into a file and into nothing, in turn; then once more after a hundredth of the rows has changed.
//!
//! The server is one of its own, in the benchmark's directory, as the user `postgres`, without network.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::measure::{Cost, measure, sync};
use crate::shell;

/// Of pgbench: 70 is 1.1 GB on the disk, and 0.7 GB as a dump.
const SCALE: u64 = 70;
/// Rows of pgbench_accounts for each unit of scale.
const ROWS: u64 = 100_000;

/// Measures, prints a table, and gives an error where a goal is missed.
pub(super) fn run(directory: &Path, rounds: usize, divisor: usize) -> Result<()> {
    let program = shell::target_dir()?.join("release/snapback");
    let scale = (SCALE / divisor as u64).max(1);
    let directory = directory.join("database");
    let server = Server::start(&directory)?;
    server.must("createdb", &["bench"])?;
    server.must("pgbench", &["-i", "-q", "-s", &scale.to_string(), "bench"])?;
    let site = Site { directory: &directory, program: &program };
    site.prepare(&server)?;

    let (mut file, mut nothing, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let mut bytes = 0;
    for _ in 0..rounds {
        site.begin()?;
        let dump = directory.join("dump");
        file.push(server.dump(&dump)?);
        bytes = fs::metadata(&dump)?.len();
        fs::remove_file(&dump)?;
        nothing.push(server.dump(Path::new("/dev/null"))?);
        ours.push(site.back_up()?);
    }
    let first = site.repository_bytes()?;
    let from = scale * ROWS / 2;
    let changed = format!(
        "update pgbench_accounts set abalance = abalance + 1 where aid >= {from} and aid < {}",
        from + scale * ROWS / 100
    );
    server.must("psql", &["-q", "-c", &changed, "bench"])?;
    sync();
    let again = site.back_up()?;
    let added = site.repository_bytes()? - first;
    drop(server);

    let peak = ours.iter().chain([&again]).map(|cost| cost.peak_bytes).max().unwrap_or_default();
    let [file, nothing, ours] = [file, nothing, ours].map(median);
    println!("| a dump of {} MB | seconds | MB/s |\n|---|---|---|", bytes / 1_000_000);
    for (name, time) in [
        ("pg_dump into a file", file),
        ("pg_dump into nothing", nothing),
        ("backup", ours),
        ("backup again", again.wall),
    ] {
        println!("| {name} | {:.2} | {:.0} |", time.as_secs_f64(), bytes as f64 / 1e6 / time.as_secs_f64());
    }
    let speed = file.as_secs_f64() / ours.as_secs_f64();
    let growth = added as f64 / first as f64;
    println!("\nspeed against a file {:.0} % (goal 80), memory {} MB (goal 200), ", speed * 100.0, peak / 1_000_000);
    println!("repository {:.1} MB, and {:.1} % more after 1 % changed (goal 5)", first as f64 / 1e6, growth * 100.0);
    // A small one is all beginning and end.
    if divisor == 1 && (speed < 0.8 || peak > 200_000_000 || growth > 0.05) {
        bail!("a goal is missed");
    }
    Ok(())
}

fn median(mut costs: Vec<Cost>) -> Duration {
    costs.sort_by_key(|cost| cost.wall);
    costs[costs.len() / 2].wall
}

/// A project of a few files and the database.
struct Site<'a> {
    directory: &'a Path,
    program: &'a Path,
}

impl Site<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn prepare(&self, server: &Server) -> Result<()> {
        fs::create_dir_all(self.path("site"))?;
        fs::write(self.path("site/index"), "hello")?;
        fs::write(self.path("password"), "secret\n")?;
        let text = format!(
            "[repository.disk]\nurl = {:?}\npassword-file = {:?}\n\
             [project.shop]\npaths = [{:?}]\n[project.shop.database.bench]\nurl = \"postgres:///bench?host={}\"\n",
            self.path("repository"),
            self.path("password"),
            self.path("site"),
            server.sockets.display()
        );
        Ok(fs::write(self.path("snapback.toml"), text)?)
    }

    /// An empty repository.
    fn begin(&self) -> Result<()> {
        for name in ["repository", "state"] {
            if self.path(name).exists() {
                fs::remove_dir_all(self.path(name))?;
            }
        }
        let mut command = Command::new(self.program);
        command.arg("-r").arg(self.path("repository")).arg("--password-file").arg(self.path("password"));
        shell::run(command.args(["repo", "init", "-q"]))
    }

    fn back_up(&self) -> Result<Cost> {
        sync();
        let mut command = Command::new(self.program);
        command.arg("--config").arg(self.path("snapback.toml")).arg("--state-dir").arg(self.path("state"));
        measure(command.args(["backup", "shop", "--to", "disk", "-q"]))
    }

    fn repository_bytes(&self) -> Result<u64> {
        fn below(directory: &Path) -> Result<u64> {
            let mut bytes = 0;
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                bytes += if metadata.is_dir() { below(&entry.path())? } else { metadata.len() };
            }
            Ok(bytes)
        }
        below(&self.path("repository"))
    }
}

/// A server of its own, ended when this is dropped.
struct Server {
    programs: PathBuf,
    sockets: PathBuf,
    process: Child,
}

impl Server {
    fn start(directory: &Path) -> Result<Server> {
        let versions = fs::read_dir("/usr/lib/postgresql").context("Debian's package postgresql is needed")?;
        let programs = versions.filter_map(Result::ok).map(|version| version.path().join("bin")).max();
        let programs = programs.context("Debian's package postgresql is needed")?;
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
        let (data, sockets) = (directory.join("data"), directory.join("sockets"));
        for path in [&data, &sockets] {
            fs::create_dir_all(path)?;
            shell::run(Command::new("chown").arg("postgres:").arg(path))?;
        }
        let mut initdb = as_postgres(&programs.join("initdb"));
        shell::output(initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "peer", "-N"]))?;
        let lines = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nshared_buffers = 512MB\nmax_wal_size = 4GB\n",
            sockets.display()
        );
        let path = data.join("postgresql.conf");
        fs::write(&path, fs::read_to_string(&path)? + &lines)?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = as_postgres(&programs.join("postgres"));
        command.arg("-D").arg(&data).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: prctl is one system call, and the only thing done between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGQUIT);
                Ok(())
            });
        }
        let server = Server { process: command.spawn().context("starting PostgreSQL")?, programs, sockets };
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.must("pg_isready", &["-q"]).is_err() {
            if Instant::now() > deadline {
                bail!("PostgreSQL does not start; see {}", directory.join("log").display());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(server)
    }

    fn must(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = as_postgres(&self.programs.join(program));
        shell::output(command.arg("-h").arg(&self.sockets).args(arguments)).map(drop)
    }

    /// pg_dump alone, as the backup calls it.
    fn dump(&self, to: &Path) -> Result<Cost> {
        sync();
        let mut command = as_postgres(&self.programs.join("pg_dump"));
        command.arg("-h").arg(&self.sockets).args(["-Fc", "-Z0", "bench"]).stdout(fs::File::create(to)?);
        measure(&mut command)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SAFETY: kill takes two numbers; the process is our child, and not waited for yet.
        unsafe { libc::kill(self.process.id().cast_signed(), libc::SIGQUIT) };
        let _ = self.process.wait();
    }
}

fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command.current_dir("/").env("LC_ALL", "C");
    command
}
