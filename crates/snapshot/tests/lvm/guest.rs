//! The tests. They run one after the other in one guest, on the same volume group.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::lvm::LvmThin;
use snapshot::mounts;
use snapshot::provider::{Handle, Provider, Step};
use snapshot::runner::{Outcome, Runner, System};

use crate::host::report;

type Test = (&'static str, fn());

pub(crate) const TESTS: [Test; 6] = [
    ("only a mounted thin volume is taken", only_a_mounted_thin_volume_is_taken),
    ("ext4: created, looked at, counted, deleted", || created_looked_at_and_deleted(&Shop::new("ext4"))),
    ("ext4: switched and switched back", || switched_and_switched_back(&Shop::new("ext4"))),
    ("refused while in use", refused_while_in_use),
    ("killed before any change, reverted or finished", killed_before_any_change),
    ("a pool that is full", a_full_pool_is_refused),
];

const GROUP: &str = "vg-test";

/// Set by the guest for a process that is to kill itself: where its steps are.
const VICTIM: &str = "SNAPBACK_TEST_VICTIM";

/// Where the steps are, if this process is to kill itself.
#[expect(clippy::disallowed_methods, reason = "such a process is told by its environment")]
pub(crate) fn orders() -> Option<OsString> {
    std::env::var_os(VICTIM)
}

pub(crate) fn run_all() {
    sh("pvcreate --quiet /dev/ubda && vgcreate --quiet vg-test /dev/ubda");
    sh("lvcreate --quiet --size 600M --thinpool pool vg-test");
    for (name, test) in TESTS {
        let started = Instant::now();
        test();
        report(&format!("ok {name} ({} ms)", started.elapsed().as_millis()));
    }
    report(&format!("{} done", TESTS.len()));
}

#[track_caller]
fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn open(directory: &Path) -> LvmThin {
    open_or_not(directory).expect("a thin volume")
}

fn open_or_not(directory: &Path) -> Option<LvmThin> {
    LvmThin::open(directory, &mounts::mounts().unwrap(), Arc::new(System)).unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A volume with a file system, mounted; removed at the end with all its snapshots.
struct Shop {
    kind: &'static str,
    directory: PathBuf,
}

impl Shop {
    fn new(kind: &'static str) -> Shop {
        // A hyphen is what the device mapper's names must escape.
        sh("lvcreate --quiet --virtualsize 320M --thinpool vg-test/pool --name the-shop --addtag important");
        sh(&format!("mkfs.{kind} -q /dev/vg-test/the-shop && mkdir -p '/mnt/the shop'"));
        sh(&format!("mount -t {kind} -o noatime /dev/vg-test/the-shop '/mnt/the shop'"));
        Shop { kind, directory: PathBuf::from("/mnt/the shop") }
    }

    fn price(&self, price: &str) {
        fs::write(self.directory.join("price"), price).unwrap();
    }

    fn live(&self) -> String {
        read(self.directory.join("price"))
    }

    fn price_in(&self, handle: &Handle) -> String {
        read(open(&self.directory).view(handle).unwrap().path().join("price"))
    }

    fn mount_options(&self) -> (String, String) {
        let mounts = mounts::mounts().unwrap();
        let mut here = mounts.iter().filter(|mount| mount.point == self.directory);
        let mount = here.next().expect("mounted");
        assert!(here.next().is_none(), "mounted twice");
        (mount.options.clone(), mount.super_options.clone())
    }

    /// Names of all volumes but the pool, and whether they are active.
    fn volumes(&self) -> Vec<String> {
        let all = sh("lvs --noheadings --options lv_name,lv_active vg-test");
        let all = all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        all.filter(|line| line != "pool active").collect()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            sh("umount '/mnt/the shop'; lvremove --quiet --yes --select 'lv_name!=pool' vg-test");
        }
    }
}

fn handle_of(provider: &LvmThin, id: Id) -> Handle {
    provider.list().unwrap().into_iter().find(|(other, _)| *other == id).expect("listed").1
}

fn only_a_mounted_thin_volume_is_taken() {
    sh("lvcreate --quiet --size 16M --name thick vg-test && mkfs.ext4 -q /dev/vg-test/thick && mkdir /mnt/thick");
    sh("mount /dev/vg-test/thick /mnt/thick");
    assert!(open_or_not(Path::new("/mnt/thick")).is_none());
    assert!(open_or_not(Path::new("/mnt")).is_none());
    sh("umount /mnt/thick && lvremove --quiet --yes vg-test/thick");
    let shop = Shop::new("ext4");
    fs::create_dir(shop.directory.join("below")).unwrap();
    assert!(open_or_not(&shop.directory.join("below")).is_none());
    assert!(open_or_not(&shop.directory).is_some());
}

fn created_looked_at_and_deleted(shop: &Shop) {
    let provider = open(&shop.directory);
    // Not synced: the snapshot holds it all the same.
    shop.price("10");
    let id = Id::random();
    let started = Instant::now();
    let handle = provider.create(id).unwrap();
    report(&format!("   {} created in {} ms", shop.kind, started.elapsed().as_millis()));
    assert_eq!(provider.list().unwrap(), [(id, handle.clone())]);
    assert_eq!(shop.volumes(), [format!("snapback-{id}"), "the-shop active".to_owned()]);
    shop.price("20");
    fs::write(shop.directory.join("noise"), vec![7; 8 << 20]).unwrap();

    let view = provider.view(&handle).unwrap();
    assert_eq!(read(view.path().join("price")), "10");
    assert!(fs::write(view.path().join("price"), "30").is_err(), "a view is read-only");
    let refused = provider.delete(&handle).unwrap_err();
    assert!(refused.to_string().contains("is mounted on"), "{refused}");
    let second = provider.view(&handle).unwrap();
    drop(view);
    assert_eq!(read(second.path().join("price")), "10");
    drop(second);
    assert_eq!(shop.volumes(), [format!("snapback-{id}"), "the-shop active".to_owned()]);

    let space = provider.space(&handle).unwrap();
    let (grown, reclaimable) = (space.grown.unwrap(), space.reclaimable.unwrap());
    // The file system writes on its own, too, after it was made.
    assert!((8 << 20..64 << 20).contains(&grown), "{grown}");
    assert!((1..grown).contains(&reclaimable), "{reclaimable}");

    // The live volume is not deleted, whatever a handle says, nor is one that took a snapshot's name.
    let uuid = sh("lvs --noheadings --options lv_uuid vg-test/the-shop").trim().to_owned();
    let live = Handle::LvmThin { group: GROUP.to_owned(), volume: "the-shop".to_owned(), uuid };
    assert!(matches!(provider.delete(&live), Err(Error::Refused { .. })));
    let other = Handle::LvmThin { group: GROUP.to_owned(), volume: format!("snapback-{id}"), uuid: "other".to_owned() };
    assert!(matches!(provider.delete(&other), Err(Error::Refused { .. })));
    provider.delete(&handle).unwrap();
    provider.delete(&handle).unwrap();
    assert_eq!(shop.volumes(), ["the-shop active"]);
}

/// Gives the tree that was left.
fn switched(shop: &Shop) -> Handle {
    let provider = open(&shop.directory);
    let before = shop.mount_options();
    shop.price("wanted");
    let wanted = provider.create(Id::random()).unwrap();
    shop.price("newer");
    let newer = provider.create(Id::random()).unwrap();
    shop.price("live");
    let uuid_of_file_system = sh("blkid -o value -s UUID /dev/vg-test/the-shop");
    let old = Id::random();
    let steps = provider.plan_switch(&wanted, old).unwrap();
    provider.perform(&steps[0]).unwrap();
    let started = Instant::now();
    steps[1..].iter().for_each(|step| provider.perform(step).unwrap());
    report(&format!("   {} was away for {} ms", shop.kind, started.elapsed().as_millis()));
    assert_eq!((shop.live().as_str(), shop.mount_options()), ("wanted", before));
    // What fstab says is still true: one file system of the UUID, under the same path.
    assert_eq!(sh("blkid -o value -s UUID /dev/vg-test/the-shop"), uuid_of_file_system);
    assert_eq!(shop.volumes().iter().filter(|line| line.ends_with(" active")).count(), 1);
    assert!(sh("lvs --noheadings --options lv_tags vg-test/the-shop").contains("important"));
    let left = handle_of(&provider, old);
    for (handle, price) in [(&newer, "newer"), (&left, "live")] {
        assert_eq!(shop.price_in(handle), price);
    }
    left
}

fn switched_and_switched_back(shop: &Shop) {
    let left = switched(shop);
    let provider = open(&shop.directory);
    shop.price("written since");
    let old = Id::random();
    for step in provider.plan_switch(&left, old).unwrap() {
        provider.perform(&step).unwrap();
    }
    assert_eq!(shop.live(), "live");
    assert_eq!(shop.price_in(&handle_of(&provider, old)), "written since");
    // The wanted, the newer, and the trees that the two switches left.
    assert_eq!(provider.list().unwrap().len(), 4);
}

fn refused_while_in_use() {
    let shop = Shop::new("ext4");
    let provider = open(&shop.directory);
    shop.price("live");
    let wanted = provider.create(Id::random()).unwrap();
    let (before, volumes) = (shop.mount_options(), shop.volumes());
    let steps = provider.plan_switch(&wanted, Id::random()).unwrap();
    let fails = || {
        let failed = steps.iter().find_map(|step| provider.perform(step).err()).expect("refused");
        assert!(matches!(&failed, Error::Refused { hint: Some(_), .. }), "{failed:?}");
        steps.iter().rev().for_each(|step| provider.revert(step).unwrap());
        assert_eq!((shop.live().as_str(), shop.mount_options()), ("live", before.clone()));
    };
    let user = File::open(shop.directory.join("price")).unwrap();
    fails();
    drop(user);
    // Mounted in another mount namespace only: unmounted here, and yet in use.
    let mut elsewhere = Command::new("unshare").args(["--mount", "sleep", "60"]).spawn().unwrap();
    while fs::read(format!("/proc/{}/cmdline", elsewhere.id())).is_ok_and(|line| !line.starts_with(b"sleep")) {
        std::thread::yield_now();
    }
    fails();
    assert_eq!(shop.volumes(), volumes);
    elsewhere.kill().unwrap();
    elsewhere.wait().unwrap();
}

/// Kills its own process before it changes anything for the n-th time.
struct Suicidal(AtomicUsize);

impl Runner for Suicidal {
    fn run(&self, program: &str, arguments: &[OsString]) -> io::Result<Outcome> {
        if program != "lvs" && self.0.fetch_sub(1, Ordering::SeqCst) == 0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        System.run(program, arguments)
    }
}

/// Directory, steps, and how many changes it may make.
type Orders = (PathBuf, Vec<Step>, usize);

pub(crate) fn be_killed(orders: &OsStr) {
    let (directory, steps, changes): Orders = serde_json::from_slice(&fs::read(orders).unwrap()).unwrap();
    let runner = Arc::new(Suicidal(AtomicUsize::new(changes)));
    let provider = LvmThin::open(&directory, &mounts::mounts().unwrap(), runner).unwrap().expect("mounted");
    steps.iter().for_each(|step| provider.perform(step).unwrap());
}

fn is_killed(shop: &Shop, steps: &[Step], changes: usize) -> bool {
    let orders: Orders = (shop.directory.clone(), steps.to_vec(), changes);
    let file = Path::new("/run/orders");
    fs::write(file, serde_json::to_vec(&orders).unwrap()).unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "thin_volumes_in_a_guest"]).env(VICTIM, file);
    let output = victim.output().unwrap();
    let is_killed = output.status.signal() == Some(9);
    assert!(is_killed || output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    is_killed
}

fn killed_before_any_change() {
    let shop = Shop::new("ext4");
    let before = shop.mount_options();
    shop.price("wanted");
    let wanted = open(&shop.directory).create(Id::random()).unwrap();
    let mut left = 0;
    let rounds = (1..=8).map(|changes| (changes, false)).chain([3, 5, 8].map(|changes| (changes, true)));
    for (changes, finish) in rounds {
        let (old, price) = (Id::random(), format!("live {changes}"));
        shop.price(&price);
        let steps = open(&shop.directory).plan_switch(&wanted, old).unwrap();
        let died = is_killed(&shop, &steps, changes);
        let provider = LvmThin::reopen(&shop.directory, &wanted, Arc::new(System)).unwrap().expect("known by its tags");
        let ended =
            |step: &Step, ended: Result<(), Error>| ended.unwrap_or_else(|error| panic!("{}: {error}", step.name));
        if finish {
            steps.iter().for_each(|step| ended(step, provider.perform(step)));
            left += 1;
        } else {
            steps.iter().rev().for_each(|step| ended(step, provider.revert(step)));
        }
        assert_eq!(shop.live(), if finish { "wanted" } else { &price }, "after {changes} changes");
        assert_eq!(shop.mount_options(), before);
        // Nothing is left but what is to be.
        let volumes = shop.volumes();
        assert_eq!(volumes.len(), 2 + left, "after {changes} changes: {volumes:?}");
        assert_eq!(volumes.contains(&format!("snapback-{old}")), finish, "after {changes} changes: {volumes:?}");
        assert_eq!(died, changes < 8, "a switch makes eight changes");
        if finish && !died {
            assert_eq!(shop.price_in(&handle_of(&provider, old)), price);
        }
    }
}

fn a_full_pool_is_refused() {
    sh("lvcreate --quiet --size 32M --thinpool tight vg-test");
    sh("lvcreate --quiet --virtualsize 64M --thinpool vg-test/tight --name crowded");
    sh("mkfs.ext4 -q -m 0 /dev/vg-test/crowded && mkdir /mnt/crowded && mount /dev/vg-test/crowded /mnt/crowded");
    let directory = Path::new("/mnt/crowded");
    let provider = open(directory);
    fs::write(directory.join("price"), "10").unwrap();
    let handle = provider.create(Id::random()).unwrap();
    let percent = || sh("lvs --noheadings --options data_percent vg-test/tight").trim().parse::<f64>().unwrap();
    let mut ballast = File::create(directory.join("ballast")).unwrap();
    io::Write::write_all(&mut ballast, &vec![7; 20 << 20]).unwrap();
    while percent() < 95.0 {
        io::Write::write_all(&mut ballast, &vec![7; 1 << 20]).unwrap();
        ballast.sync_all().unwrap();
    }
    let before = sh("lvs --noheadings --options lv_name,lv_tags,lv_uuid vg-test");
    let refused = provider.create(Id::random()).unwrap_err();
    assert!(refused.to_string().contains("the data of the thin pool vg-test/tight"), "{refused}");
    assert!(refused.hint().is_some_and(|hint| hint.contains("lvextend")), "{refused:?}");
    assert!(provider.plan_switch(&handle, Id::random()).is_err());
    assert_eq!(sh("lvs --noheadings --options lv_name,lv_tags,lv_uuid vg-test"), before);
    assert_eq!(read(directory.join("price")), "10");
    provider.delete(&handle).unwrap();
}
