//! Who holds a tree on a real btrfs, before and after it was switched.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use snapshot::btrfs::{self, Place};
use snapshot::holders::{self, By, Tree};
use snapshot::manage;
use snapshot::mounts::mounts;
use snapshot::provider::Provider;
use snapshot::reflink::provider::Reflink;
use snapshot::rollback::run::run;
use snapshot::rollback::{Member, Request, gather};
use snapshot::state::State;

use crate::disk::{Disk, run as run_command, shell};
use crate::site::{Commands, NOW, asked};

/// A process that is ended when this is dropped.
struct Process(Child);

impl Process {
    /// Of a shell's script, which becomes the process by `exec` and says "ready" before.
    fn start(directory: &Path, script: &str) -> Process {
        let mut command = Command::new("bash");
        command.args(["-euc", script]).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Process(child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn provider(directory: &Path) -> Box<dyn Provider> {
    match btrfs::open(directory, &mounts().unwrap()).unwrap() {
        Some(Place::Subvolume(provider)) => Box::new(provider),
        other => panic!("{other:?}"),
    }
}

/// How each process holds the tree; waits for those that have just begun.
fn found(tree: &Tree, place: Option<&Path>, processes: &[&Process]) -> BTreeMap<u32, Vec<By>> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let holders = holders::of(tree, place).unwrap();
        let kinds = |holds: Vec<holders::Hold>| holds.into_iter().map(|hold| hold.by).collect();
        let found: BTreeMap<u32, Vec<By>> =
            holders.into_iter().map(|holder| (holder.pid, kinds(holder.holds))).collect();
        let is_complete = processes.iter().all(|process| found.contains_key(&process.0.id()));
        if is_complete || Instant::now() > deadline {
            return found;
        }
    }
}

#[test]
fn who_holds_the_old_tree_of_a_whole_file_system_is_found_after_a_switch() {
    let (disk, state) = (Disk::xfs(), tempfile::tempdir().unwrap());
    shell(&disk.path(), "echo text > file; mkdir other");
    let state = State::open(state.path()).unwrap();
    let lock = state.lock(&mut || {}).unwrap();
    let provider = Reflink::open(&disk.path()).unwrap();
    let to = manage::create(&lock, &provider, asked(), NOW).unwrap();
    let reads = Process::start(&disk.path(), "exec 5< file; cd /; echo ready; exec sleep 60");
    let plan = gather(&state, &[Member::new(&provider, &to)], &Commands::default(), Request::default()).unwrap();
    let outcome = run(&lock, &[&provider], &Commands::default(), plan, NOW, &mut |_| {}).unwrap();
    let pids: Vec<_> = outcome.holders.iter().map(|holder| holder.pid).collect();
    assert_eq!(pids, [reads.0.id()]);
}

#[test]
fn a_loop_device_upon_a_file_in_the_tree_is_found() {
    let disk = Disk::btrfs();
    let top = disk.path();
    shell(&top, "btrfs -q subvolume create live; btrfs -q subvolume create other; mkdir plain");
    let files = ["live/image", "plain/image"];
    let loops = files.map(|file| Loop::upon(&top.join(file)));
    let held = |name: &str| {
        let holders = holders::of(&Tree::of(&top.join(name)).unwrap(), Some(&top)).unwrap();
        let held = holders.into_iter().map(|holder| (holder.command, holder.holds[0].by, holder.holds[0].path.clone()));
        held.collect::<Vec<_>>()
    };
    let expected = |number: usize| {
        let device = loops[number].0.rsplit('/').next().unwrap();
        [(format!("[{device}]"), By::LoopDevice, top.join(files[number]))]
    };
    assert_eq!(held("live"), expected(0));
    assert_eq!(held("plain"), expected(1));
    assert_eq!(held("other"), []);
}

/// A loop device, released when this is dropped.
struct Loop(String);

impl Loop {
    fn upon(file: &Path) -> Loop {
        fs::File::create(file).unwrap().set_len(1 << 20).unwrap();
        Loop(run_command(Command::new("losetup").args(["--find", "--show"]).arg(file)).trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn every_way_to_hold_the_old_tree_is_found_after_a_switch() {
    let disk = Disk::btrfs();
    let top = disk.path();
    shell(&top, "btrfs -q subvolume create live; echo text > live/file; cp /bin/sleep live/program; mkdir live/below");
    let live = top.join("live");
    let state = State::open(top.join("state")).unwrap();
    let lock = state.lock(&mut || {}).unwrap();
    let provider = provider(&live);
    let to = manage::create(&lock, &*provider, asked(), NOW).unwrap();

    let outside = Path::new("/");
    let path = |name: &str| live.join(name).display().to_string();
    let cwd = Process::start(&live.join("below"), "echo ready; exec sleep 60");
    let reads = Process::start(outside, &format!("exec 5< '{}'; echo ready; exec sleep 60", path("file")));
    let runs = Process::start(outside, &format!("echo ready; exec '{}' 60", path("program")));
    let bound = top.join("bound");
    fs::create_dir(&bound).unwrap();
    let script = format!("mount --bind '{}' '{}'; echo ready; exec sleep 60", live.display(), bound.display());
    let mounts = format!("exec unshare --mount --propagation private bash -euc \"{script}\"");
    let mounts = Process::start(outside, &mounts);
    let idle = Process::start(outside, "echo ready; exec sleep 60");

    let processes = [&cwd, &reads, &runs, &mounts];
    let expected = |found: &BTreeMap<u32, Vec<By>>| {
        let by = |process: &Process| found.get(&process.0.id()).cloned().unwrap_or_default();
        assert_eq!(by(&cwd), [By::WorkingDirectory]);
        assert_eq!(by(&reads), [By::Descriptor(5)]);
        assert_eq!(by(&runs), [By::Program, By::Mapping]);
        assert_eq!(by(&mounts), [By::Mount]);
        assert_eq!(by(&idle), []);
    };
    let tree = Tree::of(&live).unwrap();
    assert!(matches!(tree, Tree::Device(..)));
    expected(&found(&tree, Some(&live), &processes));

    let commands = Commands::default();
    let plan = gather(&state, &[Member::new(&*provider, &to)], &commands, Request::default()).unwrap();
    let outcome = run(&lock, &[&*provider], &commands, plan, NOW, &mut |_| {}).unwrap();
    let after =
        outcome.holders.into_iter().map(|holder| (holder.pid, holder.holds.into_iter().map(|hold| hold.by).collect()));
    expected(&after.collect());
    // The new tree is another one, and nobody's yet.
    assert_eq!(holders::of(&Tree::of(&live).unwrap(), Some(&live)).unwrap(), []);
}
