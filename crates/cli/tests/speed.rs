//! How long a snapshot and a rollback take, beside btrfs's own command; in a program of its own, beside which no other
//! test runs.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use environment::btrfs::{Shop, run};

/// In 80 directories. A million is measured by hand: it takes a minute to make them.
const FILES: usize = 80_000;
const ROUNDS: usize = 9;

/// One at a time.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn took(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// The longest time that a write and a read of a file took while `work` was done.
fn longest_wait(shop: &Shop, work: impl FnOnce()) -> Duration {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_done.load(Ordering::Relaxed) {
                longest = longest.max(took(|| {
                    shop.write("busy", "work");
                    assert_eq!(shop.read("busy"), "work");
                }));
            }
            longest
        });
        work();
        is_done.store(true, Ordering::Relaxed);
        worker.join().unwrap()
    })
}

#[test]
fn a_snapshot_takes_at_most_three_times_what_btrfs_takes_and_a_rollback_a_second() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shop = Shop::new();
    for directory in 0..80 {
        let directory = shop.directory().join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..FILES / 80 {
            fs::File::create(directory.join(format!("f{file}"))).unwrap();
        }
    }
    fs::File::create(shop.directory().join("sparse")).unwrap().set_len(50 << 30).unwrap();
    run("sync", ["--file-system", &shop.name()]);

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let mut command = shop.environment.command();
        command.args(["snapshot", "create", &shop.name()]);
        ours.push(took(|| assert!(command.output().unwrap().status.success())));
        let other = format!("{}-{round}", shop.name());
        let mut command = Command::new("btrfs");
        command.args(["subvolume", "snapshot", "-r", &shop.name(), &other]);
        theirs.push(took(|| assert!(command.output().unwrap().status.success())));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    assert!(ours <= theirs * 3, "{ours:?}, btrfs {theirs:?}");
    assert!(ours <= Duration::from_millis(100), "{ours:?}");

    let id = shop.snapshot();
    let wait = longest_wait(&shop, || {
        shop.snapshot();
    });
    assert!(wait < Duration::from_millis(500), "nobody could write or read for {wait:?}");
    for _ in 0..3 {
        shop.write("index", "two");
        let rollback = took(|| {
            shop.run(["rollback", &id, "--yes"]).succeeds();
        });
        assert_eq!(shop.read("index"), "one");
        assert!(rollback <= Duration::from_secs(1), "{rollback:?}");
    }
}

#[test]
fn clones_of_files_are_made_ten_thousand_a_second() {
    const FILES: usize = 20_000;
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shop = Shop::on(&["mkfs.xfs", "-q"]);
    for directory in 0..20 {
        let directory = shop.directory().join(format!("d{directory}"));
        fs::create_dir_all(&directory).unwrap();
        for file in 0..FILES / 20 {
            fs::write(directory.join(format!("f{file}")), [7; 3000]).unwrap();
        }
    }
    run("sync", ["--file-system", &shop.name()]);
    let clone = took(|| {
        shop.snapshot();
    });
    assert!(clone <= Duration::from_secs(FILES as u64 / 10_000), "{clone:?}");
}

#[test]
fn a_backup_of_ten_changes_among_eighty_thousand_files_takes_at_most_a_second() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let shop = Shop::new();
    for directory in 0..80 {
        let directory = shop.directory().join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..FILES / 80 {
            fs::write(directory.join(format!("f{file}")), format!("{} {file}", directory.display())).unwrap();
        }
    }
    let [config, password] = ["snapback.toml", "password"].map(|name| shop.environment.path(name));
    fs::write(&password, "correct horse").unwrap();
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let repository = shop.environment.path("repository");
    let text = format!(
        "[repository.usb]\nurl = {repository:?}\npassword-file = {password:?}\n\n[project.shop]\npaths = [{:?}]\n",
        shop.name()
    );
    fs::write(&config, text).unwrap();
    shop.environment.run(["repo", "init"]).succeeds();
    let back_up = || {
        let run = shop.run(["--config", config.to_str().unwrap(), "backup", "shop", "--to", "usb", "--json"]);
        run.succeeds().json().as_array().and_then(|lines| lines.last().cloned()).unwrap()
    };
    back_up();
    let mut quickest = Duration::MAX;
    for round in 0..3 {
        for directory in 0..10 {
            shop.write(&format!("d{directory}/f{directory}"), &format!("changed {round}"));
        }
        let start = Instant::now();
        let made = back_up();
        quickest = quickest.min(start.elapsed());
        assert_eq!(made["full_walk"], serde_json::Value::Null, "{made}");
        assert_eq!(
            (&made["files_changed"], &made["total_files_processed"]),
            (&10.into(), &(FILES + 1).into()),
            "{made}"
        );
    }
    assert!(quickest <= Duration::from_secs(1), "{quickest:?}");
}
