use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use engine::catalog::{Error, Recorder, Task};

use crate::support::{at, fill, job, use_all};

/// A small file system, released also when the test fails.
struct Small {
    directory: tempfile::TempDir,
    _image: Option<tempfile::NamedTempFile>,
}

impl Small {
    /// A tmpfs.
    fn mount(kib: u32) -> Small {
        let small = Small { directory: tempfile::tempdir().unwrap(), _image: None };
        small.run("mount", &["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]);
        small
    }

    /// An ext4 whose blocks are smaller than a page of memory.
    fn ext4(kib: u64) -> Small {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(kib << 10).unwrap();
        let file = image.path().to_str().unwrap().to_owned();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-b", "1024", "-m", "0", &file]).status().unwrap();
        assert!(made.success(), "mkfs.ext4 is needed for this test");
        let small = Small { directory: tempfile::tempdir().unwrap(), _image: Some(image) };
        small.run("mount", &["-o", "loop", &file]);
        small
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let status = Command::new(program).args(arguments).arg(self.path()).status().unwrap();
        assert!(status.success(), "this test needs root");
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Fills it to the last byte.
    fn fill_up(&self) {
        let ballast = self.path().join("ballast");
        fs::write(&ballast, []).unwrap();
        let file = fs::OpenOptions::new().append(true).open(&ballast).unwrap();
        while std::io::Write::write(&mut &file, &[1; 4096]).is_ok_and(|written| written > 0) {}
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_lost_but_what_cannot_be_recorded_and_that_is_said_once() {
    let small = Small::mount(4096);
    let path = small.path().join("catalog.sqlite");
    let said = Mutex::new(Vec::new());
    let recorder = Recorder::open(&path, at(0), |text| said.lock().unwrap().push(text.to_owned()));
    let catalog = recorder.catalog().unwrap();
    fill(catalog);
    small.fill_up();

    let before = catalog.jobs(Task::default(), 10_000).unwrap();
    // What room the file and its log have left is used first.
    let refused = (0..20_000).find_map(|number| catalog.record_job(&job(number)).err()).unwrap();
    assert!(matches!(refused, Error::Full { .. }), "{refused}");
    assert_eq!(recorder.note(|catalog| catalog.record_job(&job(0))), None);
    assert_eq!(recorder.note(|catalog| catalog.record_job(&job(0))), None);
    assert_eq!(said.lock().unwrap().len(), 1, "{said:?}");
    assert!(said.lock().unwrap()[0].contains("the disk is full"));
    assert!(catalog.jobs(Task::default(), 100_000).unwrap().len() >= before.len(), "reading works");

    small.make_room();
    use_all(catalog);
    assert_eq!(catalog.take_moved(), []);
}

#[test]
fn a_full_disk_of_small_blocks_kills_nobody() {
    let small = Small::ext4(4096);
    let path = small.path().join("catalog.sqlite");
    fill(Recorder::open(&path, at(0), |text| panic!("{text}")).catalog().unwrap());
    small.fill_up();
    let said = Mutex::new(Vec::new());
    let recorder = Recorder::open(&path, at(0), |text| said.lock().unwrap().push(text.to_owned()));
    // Whatever room the file itself has left is used first.
    for number in 0..2000 {
        recorder.note(|catalog| catalog.record_job(&job(number)));
    }
    assert!(said.lock().unwrap().concat().contains("the disk is full"), "{said:?}");
    drop(recorder);

    small.make_room();
    use_all(Recorder::open(&path, at(0), |text| panic!("{text}")).catalog().unwrap());
}

#[test]
fn where_there_is_no_room_for_a_catalog_at_all_that_is_said() {
    let small = Small::mount(512);
    small.fill_up();
    let said = Mutex::new(Vec::new());
    let recorder = Recorder::open(&small.path().join("catalog.sqlite"), at(0), |text| {
        said.lock().unwrap().push(text.to_owned());
    });
    assert_eq!(recorder.note(|catalog| catalog.record_job(&job(0))), None);
    assert_eq!(said.lock().unwrap().len(), 1, "{said:?}");
    drop(recorder);

    small.make_room();
    let recorder = Recorder::open(&small.path().join("catalog.sqlite"), at(0), |text| panic!("{text}"));
    // The room is little, and enough for this.
    assert_eq!(recorder.note(|catalog| catalog.events(None, 1)), Some(Vec::new()));
}
