//! Making snapshots possible where there are none: a volume in a file on ext4, a subvolume in place on btrfs.
#![allow(missing_docs)]

mod environment;

use std::fs;
use std::path::PathBuf;

use environment::btrfs::{Shop, run};
use environment::killed::{each_step, is_killed_at};
use environment::{Environment, Run, contents};
use rustix::mount::{UnmountFlags, unmount};

/// A directory on a real ext4, and the binary.
struct Plain {
    environment: Environment,
    mount: PathBuf,
    device: String,
}

impl Plain {
    fn new() -> Plain {
        let environment = Environment::empty();
        let image = environment.path("image");
        fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
        let device = run("losetup", ["--find", "--show", image.to_str().unwrap()]).trim().to_owned();
        fs::create_dir(environment.path("mount")).unwrap();
        let mount = environment.path("mount").canonicalize().unwrap();
        let plain = Plain { environment, mount, device };
        run("mkfs.ext4", ["-q", &plain.device]);
        run("mount", [&plain.device, plain.mount.to_str().unwrap()]);
        fs::create_dir_all(plain.mount.join("shop/pages")).unwrap();
        fs::write(plain.mount.join("shop/index"), "one").unwrap();
        fs::write(plain.mount.join("shop/pages/a"), "a").unwrap();
        plain
    }

    /// Volumes are made by programs of the system.
    fn run<const N: usize>(&self, arguments: [&str; N]) -> Run {
        let mut command = self.environment.command();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(arguments).output().unwrap().into()
    }

    fn directory(&self) -> PathBuf {
        self.mount.join("shop")
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        for point in [self.directory(), self.mount.clone()] {
            let _ = unmount(&point, UnmountFlags::DETACH);
        }
        let _ = std::process::Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

#[test]
fn a_directory_on_ext4_is_moved_onto_a_volume_and_back() {
    let plain = Plain::new();
    let directory = plain.directory();
    let name = directory.to_str().unwrap();
    let before = contents(&directory);
    // Until then there is a backup in the place of a snapshot.
    let is_backup = || {
        let run = plain.run(["snapshot", "create", name, "--json"]).succeeds();
        let record = run.json()[0].clone();
        plain.run(["snapshot", "delete", record["id"].as_str().unwrap()]).succeeds();
        run.stderr.contains("`snapback adopt") && record["kind"] == "backup"
    };
    assert!(is_backup());
    plain.run(["adopt", name]).fails(2, ["how large", "try: --size"]);
    let plan = plain.run(["adopt", name, "--size", "300MB", "--dry-run"]).succeeds();
    assert!(plan.stderr.contains("onto a btrfs volume of 300 MB"), "{plan:?}");
    let plan = plain.run(["adopt", name, "--size", "300MB", "--dry-run", "--json"]).succeeds().json();
    assert!(plan[0]["dry_run"] == true && plan[0]["steps"].as_array().unwrap().len() > 3, "{plan}");
    plain.run(["adopt", name, "--size", "300MB"]).fails(2, ["no terminal", "--yes"]);
    assert!(is_backup());

    plain.run(["adopt", name, "--size", "300MB", "--yes"]).succeeds();
    assert_eq!(contents(&directory), before);
    let id = plain.run(["snapshot", "create", name]).succeeds().stdout.trim().to_owned();
    fs::write(directory.join("index"), "two").unwrap();
    plain.run(["rollback", &id, "--yes"]).succeeds();
    assert_eq!(contents(&directory), before);

    plain.run(["adopt", name, "--grow", "350MB"]).succeeds();
    plain.run(["adopt", "--keep-up"]).succeeds();
    plain.run(["adopt", name, "--undo", "--yes"]).fails(1, ["also holds", "try: delete its snapshots"]);
    for snapshot in plain.run(["snapshot", "list", "--json"]).succeeds().json().as_array().unwrap() {
        plain.run(["snapshot", "delete", snapshot["id"].as_str().unwrap()]).succeeds();
    }
    plain.run(["adopt", name, "--undo", "--yes"]).succeeds();
    assert_eq!(contents(&directory), before);
    assert!(is_backup());
}

#[test]
fn a_directory_on_btrfs_becomes_a_subvolume_in_place() {
    let shop = Shop::new();
    fs::create_dir_all(shop.directory().join("pages/sub")).unwrap();
    shop.write("pages/sub/a", "a");
    let pages = shop.directory().join("pages");
    let (name, before) = (pages.to_str().unwrap(), contents(&pages));
    shop.run(["snapshot", "create", name]).fails(1, ["is not a subvolume", "try: `snapback adopt"]);
    let mut holder = std::process::Command::new("sleep").arg("60").current_dir(&pages).spawn().unwrap();
    let refused = shop.run(["adopt", name, "--yes"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    refused.fails(1, ["is in use by", "sleep 60", "try: end it"]);
    shop.run(["adopt", name, "--yes"]).succeeds();
    assert_eq!(contents(&pages), before);
    shop.run(["snapshot", "create", name]).succeeds();
    assert_eq!(fs::read_dir(shop.directory()).unwrap().count(), 2, "the old directory is gone");
    shop.run(["adopt", name, "--yes"]).fails(1, ["subvolume"]);
}

#[test]
fn killed_at_any_step_a_directory_is_as_before_or_a_subvolume() {
    let steps = each_step(|step| {
        let shop = Shop::new();
        let pages = shop.directory().join("pages");
        fs::create_dir(&pages).unwrap();
        shop.write("pages/a", "a");
        let (name, before) = (pages.to_str().unwrap(), contents(&pages));
        let mut adopt = shop.environment.command();
        adopt.args(["adopt", name, "--yes"]);
        if !is_killed_at(&adopt, step, &shop.environment.path("strace")) {
            return false;
        }
        // Whatever changes something next puts it in order first.
        shop.run(["snapshot", "expire"]).succeeds();
        assert_eq!(contents(&pages), before, "after {step:?}");
        assert_eq!(fs::read_dir(shop.directory()).unwrap().count(), 2, "after {step:?} something is left");
        let is_subvolume = shop.run(["snapshot", "create", name]).code == 0;
        if !is_subvolume {
            shop.run(["adopt", name, "--yes"]).succeeds();
        }
        true
    });
    assert!(steps >= 3, "only {steps} steps");
}

#[test]
fn of_a_project_each_directory_that_cannot_have_snapshots_is_adopted() {
    let shop = Shop::new();
    let [files, data] = ["files", "data"].map(|name| shop.directory().with_file_name(name));
    for directory in [&files, &data] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("index"), "one").unwrap();
    }
    let config = shop.environment.path("snapback.toml");
    fs::write(&config, format!("[project.site]\npaths = [{:?}, {files:?}, {data:?}]\n", shop.name())).unwrap();
    let run = |arguments: &[&str]| -> Run {
        let mut command = shop.environment.command();
        command.env("SNAPBACK_CONFIG", &config).args(arguments).output().unwrap().into()
    };
    let told = run(&["adopt", "site", "--yes"]).succeeds();
    assert!(told.stderr.contains(&format!("{} can have snapshots already", shop.name())), "{told:?}");
    let made = run(&["snapshot", "create", "site", "--json"]).succeeds().json();
    assert_eq!(made.as_array().unwrap().len(), 3, "{made}");
    // The hook has the directories behind the name.
    let hook = shop.environment.path("hook");
    let install = ["hook", "install", "apt", "--directory", "site", "--file", hook.to_str().unwrap()];
    run(&install).succeeds();
    let text = fs::read_to_string(hook).unwrap();
    for directory in [&shop.directory(), &files, &data] {
        assert!(text.contains(directory.to_str().unwrap()), "{text}");
    }
}
