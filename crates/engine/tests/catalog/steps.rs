//! `kill -9` before each of the system calls with which a catalog is moved aside, made and written to.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment what to do")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use engine::catalog::{Catalog, Task};

use crate::support::{Place, at, fill, job, use_all};

const CATALOG: &str = "SNAPBACK_TEST_CATALOG";
const TEST: &str = "steps::whenever_it_is_killed_the_catalog_can_be_used_and_nothing_that_was_there_is_lost";
/// All that change files.
const CALLS: [&str; 6] = ["rename", "unlink", "pwrite64", "ftruncate", "fdatasync", "openat"];
/// The test's own program opens some files before it comes to the catalog.
const MOST: u32 = 400;

/// Opens the catalog and writes to it in a child that is killed right before its n-th such call. Whether it was.
fn is_killed(path: &Path, call: &str, number: u32) -> bool {
    let log = path.with_file_name("strace");
    let mut strace = Command::new("strace");
    strace.args(["--follow-forks", "-o"]).arg(&log).arg("-e").arg(format!("trace={call}"));
    strace.arg("-e").arg(format!("inject={call}:signal=KILL:when={number}"));
    strace.arg(env::current_exe().unwrap()).args(["--exact", TEST, "--test-threads=1"]).env(CATALOG, path);
    strace.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("strace is needed for this test");
    let said = fs::read_to_string(&log).unwrap();
    fs::remove_file(log).unwrap();
    said.contains("killed by SIGKILL")
}

fn kill_at_each_step(prepare: impl Fn(&Path), check: impl Fn(&Place, &Catalog)) -> u32 {
    let mut kills = 0;
    for call in CALLS {
        // Those of the dynamic linker and of the test's own program are passed over quickly.
        let (first, step) = if call == "openat" { (8, 3) } else { (1, 1) };
        for number in (first..MOST).step_by(step) {
            let place = Place::new();
            prepare(&place.path());
            if !is_killed(&place.path(), call, number) {
                break;
            }
            kills += 1;
            let catalog = place.open();
            check(&place, &catalog);
            use_all(&catalog);
        }
    }
    kills
}

#[test]
fn whenever_it_is_killed_the_catalog_can_be_used_and_nothing_that_was_there_is_lost() {
    if let Some(path) = env::var_os(CATALOG) {
        let catalog = Catalog::open(path, at(0)).unwrap();
        catalog.record_job(&job(7)).unwrap();
        return;
    }
    let garbage = [0x55; 9999];
    let of_a_damaged_one = |place: &Place, catalog: &Catalog| {
        let aside = place.damaged();
        assert!(aside.len() <= 1, "{aside:?}");
        for name in aside {
            assert_eq!(fs::read(place.path().with_file_name(name)).unwrap(), garbage);
        }
        assert!(catalog.jobs(Task::default(), 10).unwrap().len() <= 1);
    };
    let kills = kill_at_each_step(|path| fs::write(path, garbage).unwrap(), of_a_damaged_one);
    assert!(kills > 20, "{kills}");

    let whole = Place::new();
    fill(&whole.open());
    let jobs = whole.open().jobs(Task::default(), 1000).unwrap();
    crate::support::settle(&whole.path());
    let of_a_good_one = |place: &Place, catalog: &Catalog| {
        assert_eq!(place.damaged(), <[String; 0]>::default());
        let now = catalog.jobs(Task::default(), 1000).unwrap();
        assert!(jobs.iter().all(|job| now.contains(job)) && now.len() <= jobs.len() + 1);
    };
    let copy = |path: &Path| {
        fs::copy(whole.path(), path).unwrap();
    };
    let kills = kill_at_each_step(copy, of_a_good_one);
    assert!(kills > 5, "{kills}");
}
