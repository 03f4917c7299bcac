//! `snapback serve` with the real binary on a real btrfs: what is due is done once, whatever happens to the daemon.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use environment::btrfs::Shop;
use environment::daemon::Daemon;
use environment::killed;
use rustix::process::Signal;
use serde_json::Value;

const PLAN: &str = r#"
[plan.often]
snapshot = { every = "1h", keep = "24h" }
backup = { every = "1h", to = ["usb"] }
"#;

/// A shop with a plan and a repository.
struct Served {
    shop: Shop,
}

impl Served {
    fn new() -> Served {
        let served = Served { shop: Shop::new() };
        served.shop.run(["repo", "init"]).succeeds();
        fs::write(served.path("password"), "correct horse\n").unwrap();
        served.configure(PLAN);
        served
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.shop.environment.path(name)
    }

    fn configure(&self, plan: &str) {
        let text = format!(
            "[repository.usb]\nurl = {:?}\npassword-file = {:?}\n{plan}\n[project.shop]\npaths = [{:?}]\nplans = [\"often\"]\n",
            self.path("repository"),
            self.path("password"),
            self.shop.directory(),
        );
        fs::write(self.path("snapback.toml"), text).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = self.shop.environment.command();
        // Hooks and programs of the system.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["serve", "--config"]).arg(self.path("snapback.toml"));
        command
    }

    fn once(&self) -> environment::Run {
        self.command().arg("--once").output().unwrap().into()
    }

    fn start(&self) -> Daemon {
        Daemon::start(self.command())
    }

    /// Lets an hour pass, as the ledger sees it: all is due again.
    fn let_an_hour_pass(&self) {
        let path = self.path("state").join("schedule.json");
        let mut ledger: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for entry in ledger["tasks"].as_object_mut().unwrap().values_mut() {
            if let Some(last) = entry.get_mut("last") {
                last["wall"] = "2026-01-01T00:00:00Z".into();
                last["boot"] = "".into();
            }
        }
        fs::write(path, ledger.to_string()).unwrap();
    }

    /// Those that the plan made.
    fn snapshots(&self) -> usize {
        // Not those that backups are read from, and compared with.
        self.shop.list().iter().filter(|snapshot| snapshot["purpose"] == "asked").count()
    }

    fn backups(&self) -> usize {
        self.shop.run(["list", "--json"]).succeeds().json().as_array().unwrap().len()
    }
}

#[test]
fn a_plan_makes_a_snapshot_and_a_backup_and_each_once() {
    let served = Served::new();
    let mut daemon = served.start();
    daemon.says("serving");
    daemon.says("shop: snapshot done");
    daemon.says("shop: backup to usb done");
    daemon.stop();
    assert!(daemon.said.iter().all(|line| !line.contains('\x1b')), "{:#?}", daemon.said);
    let made = (served.snapshots(), served.backups());
    assert_eq!(made.1, 1);
    let mut again = served.start();
    again.says("serving");
    again.stop();
    assert_eq!((served.snapshots(), served.backups()), made, "nothing was due: {:#?}", again.said);
}

#[test]
fn where_no_snapshots_can_be_had_it_says_so_and_backs_up_what_there_is() {
    let served = Served { shop: Shop::on(&["mkfs.ext4", "-q"]) };
    fs::create_dir(served.shop.directory()).unwrap();
    served.shop.write("index", "one");
    served.shop.run(["repo", "init"]).succeeds();
    fs::write(served.path("password"), "correct horse\n").unwrap();
    served.configure(PLAN);
    let once = served.once().succeeds();
    let told = format!("{}{}", once.stdout, once.stderr);
    assert!(told.contains("there are no snapshots of shop") && !told.contains("tried again"), "{told}");
    assert_eq!((served.snapshots(), served.backups()), (0, 1));
    let backups = served.shop.run(["list", "--json"]).succeeds().stdout;
    assert!(backups.contains("\"live\""), "{backups}");
}

#[test]
fn killed_again_and_again_it_does_each_task_once_an_hour() {
    let served = Served::new();
    let mut daemon = served.start();
    daemon.says("backup to usb done");
    daemon.stop();
    for hour in 1..=2 {
        let snapshots = served.snapshots();
        served.let_an_hour_pass();
        // Spread over what a run takes; the times of no two hours are the same.
        for part in 0..6 {
            let mut killed = served.start();
            std::thread::sleep(Duration::from_millis(part * 47 + hour * 13));
            killed.kill();
        }
        let mut daemon = served.start();
        daemon.says("serving");
        // What one did that was killed is not always told again.
        while is_due(&served) {
            daemon.says("shop: ");
        }
        daemon.stop();
        assert_eq!(served.backups() as u64, hour + 1, "{:#?}", daemon.said);
        assert_eq!(served.snapshots(), snapshots + 1, "{:#?}", daemon.said);
    }
    served.shop.run(["repo", "check", "--read-data"]).succeeds();
}

#[test]
fn killed_before_any_of_its_durable_steps_it_does_each_task_once() {
    let served = Served::new();
    served.once().succeeds();
    let steps = killed::each_step(|step| {
        served.let_an_hour_pass();
        let (snapshots, backups) = (served.snapshots(), served.backups());
        let mut command = served.command();
        command.arg("--once");
        let is_killed = killed::is_killed_at(&command, step, &served.path("strace"));
        let next = served.once().succeeds();
        let made = (served.snapshots() - snapshots, served.backups() - backups);
        assert_eq!(made, (1, 1), "after {step:?}: {next:?}");
        is_killed
    });
    assert!(steps > 5, "only {steps} steps");
}

/// Whether the ledger has something that should have been done and is not.
fn is_due(served: &Served) -> bool {
    let ledger: Value = serde_json::from_slice(&fs::read(served.path("state").join("schedule.json")).unwrap()).unwrap();
    let tasks = ledger["tasks"].as_object().unwrap().iter();
    let mut of_shop = tasks.filter(|(name, _)| name.contains("shop"));
    of_shop.any(|(_, entry)| entry["last"]["wall"] == "2026-01-01T00:00:00Z")
}

#[test]
fn two_daemons_are_one_too_many() {
    let served = Served::new();
    let mut first = served.start();
    first.says("serving");
    let mut second = served.start();
    assert_eq!(second.ends(), 1);
    let said = second.said.join("\n");
    assert!(said.contains(&format!("process {} ", first.pid())), "{said}");
    assert!(said.contains("try:"), "{said}");
    first.says("backup to usb done");
    first.stop();
    assert_eq!(served.backups(), 1);
}

#[test]
fn once_does_what_is_due_and_ends() {
    let served = Served::new();
    let first = served.once().succeeds();
    assert!(first.stderr.contains("backup to usb done"), "{first:?}");
    let second = served.once().succeeds();
    assert!(!second.stderr.contains("backup"), "{second:?}");
    assert_eq!(served.backups(), 1);
    fs::write(served.path("password"), "wrong\n").unwrap();
    served.let_an_hour_pass();
    for _ in 0..2 {
        served.once().fails(1, ["backup to usb failed", "password"]);
    }
}

#[test]
fn a_new_configuration_is_read_on_sighup_and_a_broken_one_changes_nothing() {
    let served = Served::new();
    let mut daemon = served.start();
    daemon.says("backup to usb done");
    served.configure("[plan.often]\nsnapshot = { evry = \"1h\" }");
    daemon.signal(Signal::HUP);
    let line = daemon.says("the one before stays in force");
    assert!(line.contains("evry") && line.contains("snapback.toml"), "{line}");
    served.configure("[plan.often]\nsnapshot = { every = \"1h\", keep = \"24h\" }");
    daemon.signal(Signal::HUP);
    daemon.says("the configuration was read again; 2 tasks");
    daemon.stop();
}

#[test]
fn a_daemon_that_is_asked_to_end_ends_what_runs_and_leaves_no_lock() {
    let served = Served::new();
    let many = served.shop.directory().join("many");
    fs::create_dir(&many).unwrap();
    for number in 0..2000 {
        fs::write(many.join(number.to_string()), number.to_string().repeat(50)).unwrap();
    }
    let mut daemon = served.start();
    daemon.says("backup to usb begins");
    daemon.stop();
    assert!(served.shop.environment.stored("locks").is_empty());
    let mut next = served.start();
    // It was done right before the end, or is done now.
    next.says("serving");
    if served.backups() == 0 {
        next.says("backup to usb done");
    }
    next.stop();
    assert_eq!(served.backups(), 1, "{:#?}", next.said);
}

#[test]
fn a_backup_by_hand_and_the_daemon_wait_for_each_other() {
    let served = Served::new();
    let mut daemon = served.start();
    let by_hand = |_| {
        let mut command = served.shop.environment.command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["backup", "shop", "--config"]).arg(served.path("snapback.toml"));
        environment::Run::from(command.output().unwrap())
    };
    let runs: Vec<environment::Run> = (0..5).map(by_hand).collect();
    let made = runs.iter().filter(|run| run.code == 0).count();
    assert!(runs.iter().all(|run| run.code == 0 || run.stderr.contains("under way")), "{runs:?}");
    daemon.says("shop: backup to usb");
    daemon.stop();
    assert!((made..=made + 1).contains(&served.backups()), "{made} by hand: {:#?}", daemon.said);
    served.shop.run(["repo", "check"]).succeeds();
}

#[test]
fn a_manager_of_services_hears_that_it_is_up_alive_and_ending() {
    let served = Served::new();
    let socket = UnixDatagram::bind(served.path("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = served.command();
    command.env("NOTIFY_SOCKET", served.path("notify")).env("WATCHDOG_USEC", "300000");
    let mut daemon = Daemon::start(command);
    let hears = |text: &str| {
        let mut bytes = [0; 4096];
        loop {
            let length = socket.recv(&mut bytes).unwrap_or_else(|error| panic!("no {text}: {error}"));
            let said = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if said.contains(text) {
                return said;
            }
        }
    };
    hears("READY=1");
    hears("STATUS=running: shop: ");
    hears("STATUS=next: ");
    for _ in 0..3 {
        hears("WATCHDOG=1");
    }
    daemon.signal(Signal::HUP);
    hears("RELOADING=1\nMONOTONIC_USEC=");
    hears("READY=1");
    daemon.signal(Signal::TERM);
    hears("STOPPING=1");
    assert_eq!(daemon.ends(), 0);
}

#[test]
fn a_guard_that_lost_its_watchdog_gets_another_one() {
    let served = Served::new();
    let mut command = served.shop.environment.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["guard", &served.shop.name(), "--confirm", "2s", "--", "sh", "-c", "echo two > index; sleep 60"]);
    command.current_dir(served.shop.directory());
    let mut guard = command.spawn().unwrap();
    let status = || served.shop.run(["guard", "--status", "--json"]).succeeds().json();
    let watchdog = loop {
        if let Some(pid) = status()[0]["watchdog"]["pid"].as_i64() {
            break pid;
        }
    };
    while served.shop.read("index") != "two\n" {
        std::thread::sleep(Duration::from_millis(10));
    }
    for pid in [i64::from(guard.id()), watchdog] {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
    guard.wait().unwrap();
    let mut daemon = served.start();
    daemon.says("has lost its watchdog");
    daemon.stop();
    // The daemon is gone, the watchdog is not.
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while served.shop.read("index") != "one" {
        assert!(std::time::Instant::now() < until, "it never goes back: {}", status());
        std::thread::sleep(Duration::from_millis(50));
    }
}
