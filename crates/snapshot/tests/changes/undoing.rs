//! Bringing back files and directories: exactly what was asked for, or nothing.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment when to die")]

use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use snapshot::btrfs::{self, Place};
use snapshot::changes::between;
use snapshot::error::Error;
use snapshot::id::Id;
use snapshot::mounts::mounts;
use snapshot::provider::Provider as _;
use snapshot::reflink::clone::{self, Content, Options};
use snapshot::state::State;
use snapshot::undo::{Request, Totals, bring_back, recover};

use crate::disk::{Disk, assert_same, describe, fill, is_shared, shell};

/// A live tree, a snapshot of it, and the state directory beside them.
struct Site {
    live: PathBuf,
    snapshot: PathBuf,
    state: State,
}

impl Site {
    fn at(root: &Path) -> Site {
        let state = State::open(root.join("state")).unwrap();
        Site { live: root.join("live"), snapshot: root.join("snapshot"), state }
    }

    /// With everything in it that a tree can hold.
    fn full(root: &Path) -> Site {
        let site = Site::at(root);
        fs::create_dir(&site.live).unwrap();
        fill(&site.live);
        site.clone_live();
        site
    }

    fn clone_live(&self) {
        fs::create_dir(&self.snapshot).unwrap();
        let options = Options { content: Content::ShareOrCopy, ..Options::default() };
        clone::tree(&self.live, &self.snapshot, &options).unwrap();
    }

    fn bring_back(&self, paths: &[&str], removes_added: bool) -> Result<Totals, Error> {
        self.bring_back_observed(paths, removes_added, &mut |_| {})
    }

    fn bring_back_observed(
        &self,
        paths: &[&str],
        removes_added: bool,
        observe: &mut dyn FnMut(&str),
    ) -> Result<Totals, Error> {
        let request = Request { paths: paths.iter().map(PathBuf::from).collect(), removes_added };
        let lock = self.state.lock(&mut || {}).unwrap();
        bring_back(&lock, &self.live, Id::random(), &self.snapshot, &request, observe)
    }
}

/// Changes a tree in every way; all of it, but for the root.
const HAVOC: &str = r#"
    echo other >> deep/er/one; rm deep/link; echo apart > deep/link
    rm -r 'with space'; mkdir -p added/dir; echo x > added/dir/x; echo y > sticky/y
    rm fifo; mkdir -p fifo/full; echo z > fifo/full/z
    rm -r empty; echo 'now a file' > empty
    chmod 600 .hidden; setfattr -x user.comment large; setfattr -n user.new -v 1 large; setfacl -b large
    chown 9:9 suid; chmod 777 deep; touch deep/er; rm null; mknod null c 1 5; rm socket
    printf x | dd of=sparse bs=1 seek=30000000 conv=notrunc status=none
    ln nothing added/nothing; rm deep/dangling; ln -s /etc deep/dangling
"#;

#[test]
fn the_whole_tree_comes_back_exactly_on_each_file_system() {
    for disk in [Disk::xfs(), Disk::btrfs(), Disk::ext4()] {
        let site = Site::full(&disk.path());
        let then = describe(&site.live);
        shell(&site.live, HAVOC);
        shell(&site.live, "rmdir --ignore-fail-on-non-empty sticky; chown 1:1 .; chmod 700 .; setfattr -x user.root .");
        site.bring_back(&[""], true).unwrap();
        assert_same(&describe(&site.live), &then);
        let totals = site.bring_back(&[""], true).unwrap();
        assert_eq!((totals.brought_back, totals.attributes, totals.directories, totals.removed), (0, 0, 0, 0));
        assert_same(&describe(&site.live), &then);
    }
}

#[test]
fn a_snapshot_of_a_real_btrfs_tells_what_changed_and_brings_all_of_it_back() {
    let disk = Disk::btrfs();
    shell(
        &disk.path(),
        "btrfs -q subvolume create live; btrfs -q subvolume create live/nested; echo x > live/nested/x",
    );
    let site = Site::at(&disk.path());
    fill(&site.live);
    let Some(Place::Subvolume(provider)) = btrfs::open(&site.live, &mounts().unwrap()).unwrap() else { panic!() };
    let handle = provider.create(Id::random()).unwrap();
    let then = describe(&site.live);
    shell(&site.live, HAVOC);
    let view = provider.view(&handle).unwrap();
    let limited = provider.changed_paths(&handle, None).unwrap();
    let (all, told) = (between(view.path(), &site.live, None), between(view.path(), &site.live, limited.as_deref()));
    let (all, told) = (all.unwrap().list, told.unwrap().list);
    assert!(limited.is_some() && all.len() > 10);
    assert_eq!(told, all);
    let site = Site { snapshot: view.path().to_owned(), ..site };
    site.bring_back(&[""], true).unwrap();
    assert_same(&describe(&site.live), &then);
    assert!(is_shared(site.live.join("large")));
}

#[test]
fn what_was_not_asked_for_stays() {
    let disk = Disk::xfs();
    let site = Site::full(&disk.path());
    shell(&site.live, HAVOC);
    let mut expected = describe(&site.live);
    let times = |path: &Path| fs::metadata(path).map(|stat| (stat.mtime(), stat.mtime_nsec())).unwrap();
    let root_times = times(&site.live);
    let totals = site.bring_back(&["deep/er/one", "deep/dangling"], false).unwrap();
    assert_eq!(totals, Totals { brought_back: 2, ..Totals::default() });
    let now = describe(&site.live);
    let then = describe(&site.snapshot);
    assert_eq!(now[Path::new("deep/dangling")], then[Path::new("deep/dangling")]);
    assert_eq!(fs::read_to_string(site.live.join("deep/er/one")).unwrap(), "one\n");
    for path in ["deep/er/one", "deep/dangling", "deep", "deep/er"] {
        // The directories' times tell that something was moved into them.
        expected.insert(PathBuf::from(path), now[Path::new(path)].clone());
    }
    assert_same(&now, &expected);
    assert_eq!(times(&site.live), root_times);
}

#[test]
fn a_directory_is_merged_and_what_was_added_goes_only_if_asked() {
    let disk = Disk::xfs();
    let site = Site::full(&disk.path());
    shell(&site.live, "echo y > deep/er/added; rm -r deep/er/still; echo other > large");
    site.bring_back(&["./deep/er"], false).unwrap();
    assert!(site.live.join("deep/er/added").exists() && site.live.join("deep/er/still/file").exists());
    let totals = site.bring_back(&["deep/er", "deep/er/one"], true).unwrap();
    assert_eq!(totals.removed, 1);
    let (now, then) = (describe(&site.live.join("deep/er")), describe(&site.snapshot.join("deep/er")));
    // Its other names lie elsewhere, but are the same file still.
    assert_eq!(now.keys().collect::<Vec<_>>(), then.keys().collect::<Vec<_>>());
    let number = |path: &str| fs::metadata(site.live.join(path)).unwrap().ino();
    assert_eq!(number("deep/er/one"), number("deep/link"));
    assert_eq!(fs::read_to_string(site.live.join("large")).unwrap(), "other\n");
}

#[test]
fn a_file_whose_directory_was_deleted_comes_back_with_its_directory_alone() {
    let disk = Disk::xfs();
    let site = Site::full(&disk.path());
    shell(&site.live, "rm -r deep");
    site.bring_back(&["deep/er/still/file"], false).unwrap();
    let (now, then) = (describe(&site.live), describe(&site.snapshot));
    for path in ["deep", "deep/er", "deep/er/still", "deep/er/still/file"] {
        assert_eq!(now[Path::new(path)], then[Path::new(path)]);
    }
    assert!(!site.live.join("deep/er/one").exists());
    assert!(is_shared(site.live.join("large")));
}

#[test]
fn paths_that_lead_elsewhere_are_refused() {
    let disk = Disk::ext4();
    let site = Site::full(&disk.path());
    shell(&disk.path(), "mkdir outside; echo mine > outside/one; rm -r live/deep/er; ln -s ../../outside live/deep/er");
    let mut before = describe(&disk.path());
    for path in ["../outside/one", "deep/../../outside", "/etc/passwd", "deep/er/one", "not/there", "sticky/none"] {
        let refused = site.bring_back(&["large", path], true);
        assert!(matches!(refused, Err(Error::Refused { .. })), "{path}: {refused:?}");
    }
    let mut after = describe(&disk.path());
    // Journals came and went.
    for tree in [&mut after, &mut before] {
        tree.retain(|path, _| !path.starts_with("state"));
    }
    assert_same(&after, &before);
    // What is asked for is the link itself, which becomes the directory again.
    site.bring_back(&["deep/er"], false).unwrap();
    assert_eq!(fs::read_to_string(disk.path().join("outside/one")).unwrap(), "mine\n");
    assert_eq!(fs::read_to_string(site.live.join("deep/er/one")).unwrap(), "one\n");
}

#[test]
fn mounts_below_stay_and_keep_what_is_above_from_being_removed() {
    let disk = Disk::ext4();
    let site = Site::full(&disk.path());
    shell(&site.live, "mkdir -p sticky/m added/m; mount -t tmpfs none sticky/m; echo x > sticky/m/x");
    shell(&site.live, "mount -t tmpfs none added/m; echo x > added/m/x; echo changed > nothing");
    let refused = site.bring_back(&[""], true).unwrap_err();
    assert!(refused.to_string().contains("added/m is another file system"), "{refused}");
    assert_eq!(fs::read_to_string(site.live.join("nothing")).unwrap(), "changed\n");
    site.bring_back(&["sticky/"], false).unwrap();
    site.bring_back(&[""], false).unwrap();
    assert_eq!(fs::read_to_string(site.live.join("nothing")).unwrap(), "");
    assert_eq!(fs::read_to_string(site.live.join("sticky/m/x")).unwrap(), "x\n");
    assert!(matches!(site.bring_back(&["sticky/m"], true), Err(Error::Refused { .. })));
}

#[test]
fn a_store_of_snapshots_inside_is_no_part_of_the_tree() {
    let disk = Disk::xfs();
    let site = Site::full(&disk.path());
    shell(&site.live, "mkdir -p .snapback/id/tree sticky/.snapback; echo x > .snapback/id/tree/x");
    assert_eq!(between(&site.snapshot, &site.live, None).unwrap().list, []);
    site.bring_back(&[""], true).unwrap();
    assert!(site.live.join(".snapback/id/tree/x").exists() && site.live.join("sticky/.snapback").exists());
}

#[test]
fn a_full_disk_leaves_all_as_it_was() {
    let disk = Disk::new("ext4", &["-q", "-F"], 48);
    let site = Site::at(&disk.path());
    fs::create_dir(&site.live).unwrap();
    shell(&site.live, "head -c 9M /dev/urandom > a; head -c 9M /dev/urandom > b; mkdir d; echo x > d/x");
    site.clone_live();
    shell(
        &site.live,
        "echo changed > a; echo changed > b; rm -r d; cat /dev/zero > ../filler || true; truncate -s -12M ../filler",
    );
    let before = describe(&site.live);
    let error = site.bring_back(&[""], true).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert_same(&describe(&site.live), &before);
}

const ROOT: &str = "SNAPBACK_TEST_ROOT";
const DIES_AT: &str = "SNAPBACK_TEST_DIES_AT";

#[test]
fn a_kill_at_any_moment_leaves_whole_files_and_doing_it_again_finishes() {
    if let (Some(root), Ok(at)) = (env::var_os(ROOT), env::var(DIES_AT)) {
        let (mut acts, at) = (0, at.parse::<usize>().unwrap());
        let mut observe = |_: &str| {
            if acts == at {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            }
            acts += 1;
        };
        Site::at(Path::new(&root)).bring_back_observed(&[""], true, &mut observe).unwrap();
        return;
    }
    let disk = Disk::xfs();
    let contents = |root: &Path, file: &str| fs::read_to_string(root.join("live").join(file)).ok();
    for at in 0.. {
        let root = disk.path().join(at.to_string());
        fs::create_dir(&root).unwrap();
        let site = Site::at(&root);
        fs::create_dir(&site.live).unwrap();
        shell(&site.live, "mkdir d; echo old > d/a; echo old > b; ln b d/b; echo same > same");
        site.clone_live();
        shell(&site.live, "echo new > d/a; rm b; mkdir b; echo new > b/new; rm d/b; echo new > added");
        let mut child = Command::new(env::current_exe().unwrap());
        let test = "undoing::a_kill_at_any_moment_leaves_whole_files_and_doing_it_again_finishes";
        child.args(["--exact", test]).env(ROOT, &root).env(DIES_AT, at.to_string()).stdout(Stdio::null());
        let status = child.status().unwrap();
        assert!(status.success() || status.signal() == Some(9), "the child ended with {status}");

        for file in ["d/a", "same"] {
            let text = contents(&root, file).unwrap();
            assert!(["new\n", "old\n", "same\n"].contains(&text.as_str()), "{file}: {text} (killed before act {at})");
        }
        let lock = site.state.lock(&mut || {}).unwrap();
        recover(&lock).unwrap();
        drop(lock);
        let left: Vec<_> = fs::read_dir(&site.live).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().starts_with(".snapback")), "{left:?}");
        site.bring_back(&[""], true).unwrap();
        assert_same(&describe(&site.live), &describe(&site.snapshot));
        if status.success() {
            assert!(at >= 10, "there are more acts than {at}");
            break;
        }
    }
}
