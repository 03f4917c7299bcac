//! Nets that are backups: killed before each rename, of a file of the state, of the repository or of the live tree, the
//! directory is as it was or can be taken there.
#![allow(missing_docs)]

mod environment;

use std::fs;

use environment::btrfs::Shop;
use environment::killed::{self, Step};

fn shop() -> Shop {
    let shop = Shop::on(&["mkfs.ext4", "-q"]);
    fs::create_dir(shop.directory()).unwrap();
    for name in ["index", "a", "b", "c"] {
        shop.write(name, "one");
    }
    shop
}

fn state(shop: &Shop) -> Vec<String> {
    let names = ["index", "a", "b", "c", "new"].into_iter();
    names
        .map(|name| shop.read(name))
        .map(|text| if text.starts_with("No such") { "-".to_owned() } else { text })
        .collect()
}

/// Kills at each step of these kinds, and gives how often the rollback was finished, and how often taken back.
fn at_each(kinds: &[&'static str]) -> (u32, u32) {
    let old = ["one", "one", "one", "one", "-"].map(str::to_owned);
    let now = ["two", "two", "-", "one", "two"].map(str::to_owned);
    let shop = shop();
    let id = shop.snapshot();
    let mut command = shop.environment.command();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["rollback", &id, "--yes"]);
    let (mut finished, mut reverted) = (0, 0);
    let mut survives = |step| {
        ["index", "a", "new"].iter().for_each(|name| shop.write(name, "two"));
        fs::remove_file(shop.directory().join("b")).unwrap();
        if !killed::is_killed_at(&command, step, &shop.environment.path("strace")) {
            assert_eq!(state(&shop), old, "nobody was killed");
            return false;
        }
        shop.run(["snapshot", "expire"]).succeeds();
        let found = state(&shop);
        assert!(found == old || found == now, "after {step:?}: {found:?}");
        *if found == old { &mut finished } else { &mut reverted } += 1;
        let left: Vec<_> = fs::read_dir(shop.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with('.')), "after {step:?}: {left:?}");
        shop.run(["rollback", &id, "--yes"]).succeeds();
        assert_eq!(state(&shop), old, "after {step:?}");
        true
    };
    for kind in kinds {
        (1..).take_while(|number| survives(Step(kind, *number))).for_each(drop);
    }
    (finished, reverted)
}

#[test]
fn killed_before_whatever_it_writes_counts_a_rollback_is_taken_back() {
    let (finished, reverted) = at_each(&["rename", "renameat2"]);
    assert!(finished == 0 && reverted > 8, "{finished} finished, {reverted} taken back");
}

#[test]
fn killed_before_it_gives_up_what_it_needed_a_rollback_is_taken_back_or_finished() {
    let (finished, reverted) = at_each(&["unlink"]);
    assert!(finished > 0 && reverted > 0, "{finished} finished, {reverted} taken back");
}
