//! A real btrfs in an image file, released when dropped, also when a test fails.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{UnmountFlags, unmount};

use super::{Environment, Run};

/// A btrfs on a loop device, with a subvolume that is to be protected, and the binary with a state directory of its own
/// beside it.
pub struct Shop {
    pub environment: Environment,
    device: PathBuf,
    mount: PathBuf,
}

impl Shop {
    /// With `index`, which holds `one`.
    pub fn new() -> Shop {
        let shop = Shop::on(&["mkfs.btrfs", "--quiet"]);
        run("btrfs", [OsStr::new("subvolume"), "create".as_ref(), shop.directory().as_ref()]);
        shop.write("index", "one");
        shop
    }

    /// On a file system that is made so, and without the directory.
    pub fn on(make: &[&str]) -> Shop {
        let environment = Environment::empty();
        let image = environment.path("image");
        fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let device = run("losetup", [OsStr::new("--find"), "--show".as_ref(), image.as_ref()]);
        let mount = environment.path("mount");
        fs::create_dir(&mount).unwrap();
        let mount = mount.canonicalize().unwrap();
        let shop = Shop { environment, device: PathBuf::from(device.trim()), mount };
        run(make[0], make[1..].iter().map(OsStr::new).chain([shop.device.as_ref()]));
        run("mount", [shop.device.as_os_str(), shop.mount.as_ref()]);
        shop
    }

    /// The subvolume.
    pub fn directory(&self) -> PathBuf {
        self.mount.join("shop")
    }

    /// As an argument.
    pub fn name(&self) -> String {
        self.directory().to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.directory().join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).unwrap_or_else(|error| error.to_string())
    }

    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Run {
        self.environment.run(arguments)
    }

    /// Takes a snapshot, and gives its id.
    pub fn snapshot(&self) -> String {
        let run = self.run(["snapshot", "create", &self.name(), "--json"]).succeeds();
        run.json()[0]["id"].as_str().unwrap().to_owned()
    }

    /// What `snapshot list` has.
    pub fn list(&self) -> Vec<serde_json::Value> {
        self.run(["snapshot", "list", "--json"]).succeeds().json().as_array().unwrap().clone()
    }

    /// Changes a document of the state directory.
    pub fn edit(&self, kind: &str, id: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let path = self.environment.path("state").join(kind).join(format!("{id}.json"));
        let mut document = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut document);
        fs::write(&path, document.to_string()).unwrap();
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = unmount(&self.mount, UnmountFlags::DETACH);
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Runs a program of the system that must be there and succeed; its output.
pub fn run<S: AsRef<OsStr>>(program: impl AsRef<Path>, arguments: impl IntoIterator<Item = S>) -> String {
    let program = program.as_ref();
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{} is needed for this test: {error}", program.display()));
    assert!(output.status.success(), "{}: {}", program.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
