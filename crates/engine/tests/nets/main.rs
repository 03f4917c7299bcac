//! The net of a file system without snapshots keeps the promises of every provider, on real file systems. Needs root.

#[path = "../../../snapshot/tests/conformance/storage.rs"]
mod storage;
#[path = "../../../snapshot/tests/conformance/suite.rs"]
mod suite;
#[path = "../../../snapshot/tests/conformance/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::net::{Nets, Place};
use jiff::tz::TimeZone;
use repository::holder::Holder;
use repository::tree::Timestamp;
use snapshot::provider::{Kind, Provider};
use storage::{Image, run};
use suite::{Fixture, conformance};

/// A directory on a file system of its own, with the state of Snapback inside of it, and a mount.
struct Site {
    _image: Image,
    directory: PathBuf,
    nets: Nets,
}

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "records of a test are of now")]
    let now = jiff::Timestamp::now();
    Timestamp::from_unix(now.as_second(), now.subsec_nanosecond().unsigned_abs(), 0)
}

impl Site {
    fn new(make: &[&str]) -> Site {
        let image = Image::new("400M", make);
        let mount = image.mount("main", "defaults");
        let directory = mount.join("shop");
        fs::create_dir_all(directory.join("mounted")).unwrap();
        run("mount", ["-t", "tmpfs", "none", directory.join("mounted").to_str().unwrap()]);
        fs::write(directory.join("mounted/stays"), "mounted").unwrap();
        let state = directory.join("state");
        fs::create_dir(&state).unwrap();
        fs::write(state.join("stays"), "state").unwrap();
        let holder = Holder {
            hostname: "test".to_owned(),
            username: "root".to_owned(),
            uid: 0,
            gid: 0,
            pid: std::process::id(),
            now,
        };
        let nets = Nets {
            place: Place::in_state(&state),
            state,
            holder,
            time_zone: TimeZone::UTC,
            is_cancelled: Arc::new(|| false),
        };
        Site { _image: image, directory, nets }
    }
}

impl Fixture for Site {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn open(&self) -> Box<dyn Provider> {
        let provider = self.nets.provider(&self.directory).unwrap();
        assert_eq!(provider.kind(), Kind::Backup);
        provider
    }

    fn open_other(&self) -> Option<Box<dyn Provider>> {
        let other = self.directory.with_file_name("other");
        fs::create_dir_all(&other).unwrap();
        Some(self.nets.provider(&other).unwrap())
    }

    fn apart(&self) -> Vec<PathBuf> {
        ["mounted", "state"].map(PathBuf::from).to_vec()
    }
}

#[test]
fn on_ext4_a_net_keeps_all_promises() {
    conformance(&Site::new(&["mkfs.ext4", "-q", "-F"]));
}

#[test]
fn on_xfs_without_reflink_a_net_keeps_all_promises() {
    conformance(&Site::new(&["mkfs.xfs", "-q", "-f", "-m", "reflink=0"]));
}
