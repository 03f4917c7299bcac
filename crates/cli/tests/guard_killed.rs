//! Guards whose processes are killed at each of their durable steps, which are renames of files in the state directory
//! and of subvolumes: whatever happened, the state of before can be had, and nothing stands in the way of the next one.
#![allow(missing_docs)]

mod environment;

use std::time::{Duration, Instant};

use environment::btrfs::Shop;
use environment::killed::{self, Step};

const BREAKS: &str = "echo broken > $SHOP/index; false";

/// Runs a guard, and kills each of its processes right before its step of this number. Whether any was.
fn is_killed_at(shop: &Shop, step: Step, options: &[&str]) -> bool {
    let mut command = shop.environment.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("SHOP", shop.directory());
    command.args(["guard", &shop.name(), "--yes"]).args(options).args(["--", "sh", "-c", BREAKS]);
    killed::is_killed_at(&command, step, &shop.environment.path("strace"))
}

/// Nobody is left who would do something: strace waits for all but those that it lost.
fn settle(shop: &Shop) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        shop.run(["guard", "--resume"]).succeeds();
        let guards = shop.run(["guard", "--status", "--json"]).succeeds().json();
        if guards.as_array().unwrap().iter().all(|guard| guard["phase"]["is"] == "ended") {
            return;
        }
        assert!(Instant::now() < until, "it never ends: {guards}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills at each step there is, and gives how many there are.
fn at_each_step(options: &[&str], check: impl Fn(&Shop, Step)) -> u32 {
    killed::each_step(|step| {
        let shop = Shop::new();
        if !is_killed_at(&shop, step, options) {
            assert_eq!(shop.read("index"), "one", "nobody was killed");
            return false;
        }
        settle(&shop);
        check(&shop, step);
        let list = shop.list();
        let goes = |snapshot: &serde_json::Value| snapshot["held"] == false && snapshot["expires"].is_string();
        assert!(list.iter().all(goes), "after {step:?} a snapshot stays for ever: {list:?}");
        let next = shop.run(["guard", &shop.name(), "--", "true"]);
        assert_eq!(next.code, 0, "after {step:?} the next guard is refused: {next:?}");
        true
    })
}

#[test]
fn killed_at_any_step_a_guard_leaves_the_way_back() {
    let steps = at_each_step(&[], |shop, step| {
        if shop.read("index") != "one" {
            let list = shop.list();
            let guard = list.iter().find(|snapshot| snapshot["purpose"] == "guard");
            let id = guard.unwrap_or_else(|| panic!("after {step:?} the snapshot is lost: {list:?}"))["id"].clone();
            shop.run(["rollback", id.as_str().unwrap(), "--yes"]).succeeds();
        }
        assert_eq!(shop.read("index"), "one", "after {step:?}");
    });
    assert!(steps > 8, "only {steps} steps");
}

#[test]
fn killed_at_any_step_a_guard_with_a_deadline_goes_back_by_itself() {
    let steps = at_each_step(&["--confirm", "1s"], |shop, step| {
        assert_eq!(shop.read("index"), "one", "after {step:?}");
    });
    assert!(steps > 8, "only {steps} steps");
}
