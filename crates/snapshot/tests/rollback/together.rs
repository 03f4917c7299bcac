//! Several directories on several file systems, rolled back as one: after kill -9 at every moment, and the recovery
//! killed at its own, all of them are in the old state or all in the new one.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment when to die")]

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use snapshot::btrfs::{self, Place};
use snapshot::manage;
use snapshot::mounts::mounts;
use snapshot::provider::{Handle, Provider};
use snapshot::record::{Purpose, Record};
use snapshot::rollback::run::{Outcome, run};
use snapshot::rollback::{Member, Request, gather};
use snapshot::state::{Lock, State};

use crate::disk::{Disk, shell};
use crate::kill::{Clock, DIES_AT, ROLE, ROOT, deadly_clock, dies, quick, recover_all, with_units_and_probe};
use crate::plain::Plain;
use crate::site::{Commands, NOW, asked, fill, look};

/// Makes what lies below a root, and gives the provider of the directory in it.
type Make = fn(root: &Path, clock: Option<Clock>) -> Box<dyn Provider>;

fn plain(root: &Path, keeps_old_tree: bool, clock: Option<Clock>) -> Box<dyn Provider> {
    let (directory, store) = (root.join("live"), root.join("store"));
    fs::create_dir_all(&directory).unwrap();
    fs::create_dir_all(&store).unwrap();
    Box::new(Plain { directory, store, keeps_old_tree, clock })
}

fn keeping(root: &Path, clock: Option<Clock>) -> Box<dyn Provider> {
    plain(root, true, clock)
}

fn copying(root: &Path, clock: Option<Clock>) -> Box<dyn Provider> {
    plain(root, false, clock)
}

fn subvolume(root: &Path, _: Option<Clock>) -> Box<dyn Provider> {
    let live = root.join("live");
    if !live.exists() {
        fs::create_dir_all(root).unwrap();
        shell(root, "btrfs -q subvolume create live");
    }
    match btrfs::open(&live, &mounts().unwrap()).unwrap() {
        Some(Place::Subvolume(provider)) => Box::new(provider),
        other => panic!("{other:?}"),
    }
}

/// Directories on two file systems, which go back together. The same roots again give the same pair.
struct Pair {
    roots: [PathBuf; 2],
    make: [Make; 2],
}

impl Pair {
    fn providers(&self, clock: Option<&Clock>) -> [Box<dyn Provider>; 2] {
        [0, 1].map(|number| self.make[number](&self.roots[number], clock.cloned()))
    }

    fn state(&self) -> State {
        State::open(self.roots[0].join("state")).unwrap()
    }

    fn fill(&self, is_new: bool) -> Vec<Vec<String>> {
        self.providers(None).iter().for_each(|provider| fill(provider.directory(), is_new));
        self.look()
    }

    fn look(&self) -> Vec<Vec<String>> {
        self.providers(None).iter().map(|provider| look(provider.directory())).collect()
    }

    fn snapshots(&self) -> Vec<Record> {
        let providers = self.providers(None);
        let providers = [&*providers[0], &*providers[1]];
        manage::create_together(&self.lock(), &providers, "shop", &asked(), NOW, None).unwrap()
    }

    fn lock(&self) -> Lock {
        self.state().lock(&mut || {}).unwrap()
    }

    /// Of whichever directory it is, as a recovery looks for it.
    fn open(&self, directory: &Path, clock: Option<&Clock>) -> Box<dyn Provider> {
        let found = self.providers(clock).into_iter().find(|provider| provider.directory() == directory);
        found.unwrap_or_else(|| panic!("{} is none of them", directory.display()))
    }

    fn roll_back(
        &self,
        to: &[Record],
        commands: &Commands,
        request: Request,
        clock: Option<&Clock>,
    ) -> Result<Outcome, snapshot::error::Error> {
        let (lock, providers) = (self.lock(), self.providers(clock));
        let members = [Member::new(&*providers[0], &to[0]), Member::new(&*providers[1], &to[1])];
        let plan = gather(lock.state(), &members, commands, request).unwrap();
        let mut observe = |_: &str| clock.iter().for_each(|clock| clock());
        run(&lock, &[&*providers[0], &*providers[1]], commands, plan, NOW, &mut observe)
    }
}

/// What the child does; does not return if it is to die.
fn be_the_child(make: [Make; 2], fails: bool) -> bool {
    let (Some(roots), Ok(role), Ok(at)) = (env::var_os(ROOT), env::var(ROLE), env::var(DIES_AT)) else { return false };
    let roots: Vec<PathBuf> = env::split_paths(&roots).collect();
    let pair = Pair { roots: roots.try_into().unwrap(), make };
    let clock = deadly_clock(at.parse().unwrap());
    if role == "rollback" {
        let commands = Commands { failing: fails.then_some("true "), ..Commands::default() };
        let to: Vec<Record> =
            pair.providers(None).iter().map(|of| pair.state().find("latest", Some(of.directory())).unwrap()).collect();
        let outcome = pair.roll_back(&to, &commands, with_units_and_probe(), Some(&clock));
        assert_eq!(outcome.is_err(), fails, "{outcome:?}");
    } else {
        let open = |directory: &Path, _: &Handle| Ok(pair.open(directory, Some(&clock)));
        recover_all(&pair.lock(), &open, &mut |_| clock());
    }
    true
}

/// Kills a rollback at each moment. Every so many of them, `recoveries`, the recovery is killed at each of its moments,
/// too; never if that is 0.
fn survives(test: &str, places: [&Path; 2], make: [Make; 2], fails: bool, recoveries: usize) {
    let (mut old_states, mut new_states, mut number) = (0, 0, 0);
    for at in 0.. {
        let mut is_over = false;
        for recovery_at in 0.. {
            let case = format!("killed at moment {at}, recovery at moment {recovery_at}");
            let pair = Pair { roots: places.map(|place| place.join(number.to_string())), make };
            number += 1;
            let new = pair.fill(true);
            let targets = pair.snapshots();
            let old = pair.fill(false);
            let roots = env::join_paths(&pair.roots).unwrap();
            let roots = Path::new::<OsStr>(&roots);
            let died = dies(test, "rollback", roots, at);
            let died_again = recoveries > 0 && at % recoveries == 0 && dies(test, "recovery", roots, recovery_at);

            let open = |directory: &Path, _: &Handle| Ok(pair.open(directory, None));
            recover_all(&pair.lock(), &open, &mut |_| {});
            assert_eq!(recover_all(&pair.lock(), &open, &mut |_| {}), 0, "all is done ({case})");
            let (now, records) = (pair.look(), pair.state().records().unwrap());
            let mut lies_there = pair.providers(None).iter().map(|of| of.list().unwrap().len()).collect::<Vec<_>>();
            if now == old {
                old_states += 1;
                assert_eq!((records.len(), &lies_there[..]), (2, &[1, 1][..]), "nothing is left over ({case})");
            } else {
                new_states += 1;
                assert_eq!(now, new, "both are in the new state ({case})");
                lies_there.dedup();
                assert_eq!((records.len(), &lies_there[..]), (4, &[2][..]), "{case}");
                let kept = |record: &&Record| matches!(record.purpose, Purpose::Safety { .. });
                let safeties: Vec<Record> = records.iter().filter(kept).cloned().collect();
                assert!(safeties[0].group.is_some() && safeties[0].group == safeties[1].group, "{safeties:?}");
                let both = [0, 1].map(|of| {
                    let is_of = |record: &&Record| record.directory.starts_with(&pair.roots[of]);
                    safeties.iter().find(is_of).unwrap().clone()
                });
                pair.roll_back(&both, &Commands::default(), Request::default(), None).unwrap();
                assert_eq!(pair.look(), old, "it can be undone ({case})");
            }
            // All goes on as ever.
            pair.snapshots();
            let held = targets.iter().zip(pair.providers(None));
            held.for_each(|(target, of)| assert!(manage::delete(&pair.lock(), &*of, target.id).is_ok()));
            is_over |= !died;
            if !died_again {
                break;
            }
        }
        if is_over {
            break;
        }
    }
    let is_as_expected = if fails { new_states == 0 } else { new_states >= 2 };
    assert!(old_states >= 10 && is_as_expected, "killed in {old_states} old and {new_states} new states");
}

#[test]
fn killed_at_any_moment_two_subvolumes_on_two_file_systems_are_both_old_or_both_new() {
    let make: [Make; 2] = [subvolume, subvolume];
    if be_the_child(make, false) {
        return;
    }
    let disks = [Disk::btrfs(), Disk::btrfs()];
    let places = [disks[0].path(), disks[1].path()];
    let test = "together::killed_at_any_moment_two_subvolumes_on_two_file_systems_are_both_old_or_both_new";
    survives(test, [&places[0], &places[1]], make, false, 6);
}

#[test]
fn killed_at_any_moment_two_mechanisms_are_both_old_or_both_new() {
    let make: [Make; 2] = [keeping, copying];
    if be_the_child(make, false) {
        return;
    }
    let roots = [quick(), quick()];
    let test = "together::killed_at_any_moment_two_mechanisms_are_both_old_or_both_new";
    survives(test, [roots[0].path(), roots[1].path()], make, false, 5);
}

#[test]
fn killed_at_any_moment_of_taking_back_both_are_old() {
    let make: [Make; 2] = [copying, subvolume];
    if be_the_child(make, true) {
        return;
    }
    let (root, disk) = (quick(), Disk::btrfs());
    let test = "together::killed_at_any_moment_of_taking_back_both_are_old";
    survives(test, [root.path(), &disk.path()], make, true, 0);
}

#[test]
fn what_fails_in_the_second_takes_back_the_first() {
    let roots = [quick(), quick()];
    let pair = Pair { roots: [0, 1].map(|of| roots[of].path().to_owned()), make: [keeping, keeping] };
    pair.fill(true);
    let to = pair.snapshots();
    let old = pair.fill(false);
    // Of the second one the snapshot is lost once the first is under way.
    let (first, second) = (pair.roots[0].join("store/staging"), path_of(&to[1].handle));
    let clock: Clock = Arc::new(move || {
        if first.exists() && second.exists() {
            fs::remove_dir_all(&second).unwrap();
        }
    });
    let error = pair.roll_back(&to, &Commands::default(), Request::default(), Some(&clock)).unwrap_err();
    assert!(matches!(error, snapshot::error::Error::Reverted { .. }), "{error:?}");
    assert_eq!(pair.look(), old);
    assert_eq!(pair.state().records().unwrap().len(), 2, "only the snapshots that were asked for");
}

fn path_of(handle: &Option<Handle>) -> PathBuf {
    match handle {
        Some(Handle::Reflink { path }) => path.clone(),
        other => panic!("{other:?}"),
    }
}
