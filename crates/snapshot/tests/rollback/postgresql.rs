//! Rolling back a directory in which a real PostgreSQL runs under load.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use snapshot::btrfs::{self, Place};
use snapshot::manage;
use snapshot::mounts::mounts;
use snapshot::provider::Provider;
use snapshot::rollback::run::run;
use snapshot::rollback::{Member, Request, gather, newest_safety};
use snapshot::runner::{Outcome, Runner, System};
use snapshot::state::State;

use crate::disk::{Disk, shell};
use crate::site::{NOW, asked};

/// A cluster whose data lie in a directory; plays systemd for its own unit. Stopped when this is dropped. It runs as
/// `nobody`, who is everywhere, because it refuses to run as root.
struct Cluster {
    programs: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
}

impl Cluster {
    fn start_new(data: PathBuf, sockets: PathBuf) -> Cluster {
        let versions =
            fs::read_dir("/usr/lib/postgresql").expect("Debian's package postgresql is needed for this test");
        let programs = versions.map(|version| version.unwrap().path().join("bin")).max().unwrap();
        let cluster = Cluster { programs, data, sockets };
        shell(Path::new("/"), &format!("chown nobody {:?} {:?}", cluster.data, cluster.sockets));
        let data = cluster.data.to_str().unwrap();
        cluster.must("initdb", &["--pgdata", data, "--auth", "trust", "--username", "postgres", "--no-sync"]);
        cluster.control("start");
        cluster
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("runuser");
        command.args(["-u", "nobody", "--"]).arg(self.programs.join(program)).args(arguments);
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    fn must(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program, arguments).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn control(&self, verb: &str) {
        let (data, log) = (self.data.to_str().unwrap(), self.sockets.join("log"));
        let options = format!("-c listen_addresses= -k {}", self.sockets.display());
        let mut arguments = vec!["--pgdata", data, "--wait", "--mode", "fast", "--log", log.to_str().unwrap()];
        if verb == "start" {
            arguments.retain(|argument| !["--mode", "fast"].contains(argument));
            arguments.extend(["--options", &options]);
        }
        arguments.push(verb);
        // The server would inherit a pipe, and keep it open.
        let status = self.command("pg_ctl", &arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "pg_ctl {verb}: {}", fs::read_to_string(log).unwrap_or_default());
    }

    fn ask(&self, query: &str) -> String {
        let sockets = self.sockets.to_str().unwrap();
        self.must(
            "psql",
            &["-h", sockets, "-U", "postgres", "-d", "postgres", "-qtAX", "-v", "ON_ERROR_STOP=1", "-c", query],
        )
        .trim()
        .to_owned()
    }

    fn rows(&self) -> u64 {
        self.ask("SELECT count(*) FROM rows").parse().unwrap()
    }

    fn wait_for_rows(&self, number: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.rows() < number {
            assert!(Instant::now() < deadline, "there are only {} rows", self.rows());
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data.to_str().unwrap();
        let mut stop = self.command("pg_ctl", &["--pgdata", data, "--mode", "immediate", "stop"]);
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl Runner for Cluster {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        if program != "systemctl" {
            return System.run(program, arguments);
        }
        let verb = arguments[0].to_str().unwrap();
        if verb == "start" {
            // That of the snapshot's moment. The server has been stopped, so it is stale; but where nobody reaps its
            // process, or its number was given to another one, it seems not to be.
            let _ = fs::remove_file(self.data.join("postmaster.pid"));
        }
        if verb != "show" {
            self.control(verb);
        }
        let stdout = b"LoadState=loaded\nActiveState=active\n".to_vec();
        Ok(Outcome { code: Some(0), stdout, stderr: Vec::new() })
    }
}

/// Clients that each insert one row a transaction, until this is dropped.
struct Load(Vec<Child>);

impl Load {
    fn start(cluster: &Cluster) -> Load {
        let psql = format!(
            "{} -h {} -U postgres -d postgres -qX",
            cluster.programs.join("psql").display(),
            cluster.sockets.display()
        );
        let script = format!("while echo 'INSERT INTO rows DEFAULT VALUES;'; do :; done | exec {psql}");
        let client = || {
            let mut command = Command::new("runuser");
            command.args(["-u", "nobody", "--", "bash", "-c", &script]).current_dir("/").stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        Load((0..2).map(|_| client()).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The server's end has ended them already; what is left is the shell around.
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn a_database_under_load_comes_back_with_the_rows_of_the_moment() {
    let disk = Disk::new("btrfs", &["-q"], 1500);
    let top = disk.path();
    fs::set_permissions(top.parent().unwrap(), fs::Permissions::from_mode(0o711)).unwrap();
    shell(&top, "btrfs -q subvolume create data; mkdir sockets");
    let data = top.join("data");
    let state = State::open(top.join("state")).unwrap();
    let Some(Place::Subvolume(provider)) = btrfs::open(&data, &mounts().unwrap()).unwrap() else { panic!() };
    let cluster = Cluster::start_new(data.clone(), top.join("sockets"));
    cluster.ask("CREATE TABLE rows (number bigserial PRIMARY KEY, made timestamptz DEFAULT clock_timestamp())");
    let load = Load::start(&cluster);
    cluster.wait_for_rows(300);

    let lock = state.lock(&mut || {}).unwrap();
    let before = cluster.rows();
    let to = manage::create(&lock, &provider as &dyn Provider, asked(), NOW).unwrap();
    let after = cluster.rows();
    cluster.wait_for_rows(after + 300);

    let request = || Request {
        stop: vec!["postgresql.service".into()],
        probe: ["bash", "-c", &format!("psql -h {} -U postgres -c 'SELECT 1'", cluster.sockets.display())]
            .map(str::to_owned)
            .into(),
        ..Request::default()
    };
    let plan = gather(&state, &[Member::new(&provider, &to)], &cluster, request()).unwrap();
    assert!(
        plan.parts[0].holders.iter().any(|holder| holder.command.contains("postgres")),
        "{:?}",
        plan.parts[0].holders
    );
    let at_least = cluster.rows();
    let outcome = run(&lock, &[&provider], &cluster, plan, NOW, &mut |_| {}).unwrap();
    assert_eq!(outcome.holders, []);
    drop(load);

    let rows = cluster.rows();
    assert!((before..=after).contains(&rows), "{rows} rows, and not between {before} and {after}");
    // The index has what the table has.
    assert_eq!(
        cluster.ask("SET enable_seqscan = off; SELECT count(number) FROM rows WHERE number > 0"),
        rows.to_string()
    );
    cluster.ask("INSERT INTO rows DEFAULT VALUES");

    let safety = newest_safety(&state, &data).unwrap();
    let plan = gather(&state, &[Member::new(&provider, &safety)], &cluster, request()).unwrap();
    run(&lock, &[&provider], &cluster, plan, NOW, &mut |_| {}).unwrap();
    assert!(cluster.rows() >= at_least, "the undo brings back what the rollback took");
}
