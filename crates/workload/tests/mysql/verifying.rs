//! The proof that what was kept is good.

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use workload::dump::{Dump, Format, Part};
use workload::error::Error;
use workload::quiesce::{self, How, Layout};
use workload::verify::{self, Copy, Kind, Questions, Verified};

use crate::dumping::{SHOP, dumped, part};
use crate::login;
use crate::server::{MariaDb, own};

/// The sum of all accounts is zero, and none is missing.
const BALANCED: &str = "select sum(balance) = 0 and count(*) = 1000, count(*) from account";

fn questions(work: &Path, query: &str) -> Questions {
    let query = Some(query.to_owned()).filter(|query| !query.is_empty());
    Questions { database: None, query, work: work.to_owned(), ..Questions::default() }
}

fn verified(directory: &Path, query: &str) -> Result<Verified, Error> {
    let work = tempfile::tempdir().unwrap();
    own(directory);
    let copy = Copy { kind: Kind::Mysql, directory, moved: &[], beside: &[] };
    verify::data_directory(&copy, &questions(work.path(), query))
}

/// A file system with snapshots of one moment: a btrfs in a file.
struct Volume {
    home: tempfile::TempDir,
}

impl Volume {
    fn new() -> Volume {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let volume = Volume { home };
        fs::File::create(volume.home.path().join("image")).unwrap().set_len(2 << 30).unwrap();
        fs::create_dir(volume.place("")).unwrap();
        volume.run("mkfs.btrfs -q image");
        volume.run("mount -o loop image volume");
        volume.run("btrfs -q subvolume create volume/data");
        volume
    }

    fn place(&self, name: &str) -> PathBuf {
        self.home.path().join("volume").join(name)
    }

    fn run(&self, words: &str) {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let output = command.args(words).current_dir(self.home.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.place("")).status();
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figure is a goal")]
fn snapshots_under_load_start_and_agree_and_writes_hardly_stand_still() {
    let volume = Volume::new();
    let server = MariaDb::start_in(Some(&volume.place("data")), &[]);
    server.bank();
    let load = server.load(4);
    let mut longest_ms = 0;
    for number in 0..8 {
        let held = quiesce::hold(&[("bank".to_owned(), login(&server, "bank"))], &|_| Layout::OneMoment);
        volume.run(&format!("btrfs -q subvolume snapshot volume/data volume/{number}"));
        let done = held.release();
        assert_eq!(done[0].how, How::BackupStage, "{done:?}");
        longest_ms = longest_ms.max(done[0].stood_still_ms);
    }
    let seen = load.longest_stand_still();
    println!("writes stood still for at most {longest_ms} ms, as seen by those who write {seen:?}");
    assert!(longest_ms <= 500, "{longest_ms} ms");
    for number in 0..8 {
        let verified = verified(&volume.place(&number.to_string()), BALANCED).unwrap();
        assert!(verified.warnings.is_empty(), "{verified:?}");
        assert_eq!(verified.databases, ["bank"]);
        assert_eq!(verified.answer.as_deref(), Some("1\t1000"));
    }
}

#[test]
fn a_damaged_table_and_a_query_that_says_no_are_found() {
    let mut server = MariaDb::start();
    server.bank();
    server.sql("insert into bank.note (text) values ('a'), ('b'); flush tables;");
    server.stop();
    let error = verified(&server.data(), "select count(*) from note where text = 'c'").unwrap_err().to_string();
    assert!(error.contains("the query") && error.contains("\"0\""), "{error}");
    let error = verified(&server.data(), "select nothing from note").unwrap_err().to_string();
    assert!(error.contains("ERROR 1054"), "{error}");
    let error = verified(&server.data(), "select 1 from note where false").unwrap_err().to_string();
    assert!(error.contains("no row"), "{error}");
    // A MyISAM table loses its rows.
    fs::File::options().write(true).open(server.data().join("bank/note.MYD")).unwrap().set_len(3).unwrap();
    let error = verified(&server.data(), "").unwrap_err().to_string();
    assert!(error.contains("bank.note"), "{error}");
    fs::remove_file(server.data().join("ibdata1")).unwrap();
    let error = verified(&server.data(), "").unwrap_err().to_string();
    assert!(error.contains("not the data directory"), "{error}");
    fs::write(server.data().join("ibdata1"), [0; 1 << 20]).unwrap();
    let error = verified(&server.data(), "").unwrap_err().to_string();
    assert!(error.contains("it ended with") && error.contains("InnoDB"), "{error}");
}

#[test]
fn a_link_out_of_the_copy_is_refused_and_a_copy_of_it_taken() {
    let mut server = MariaDb::start();
    server.sql("create database a; create table a.t (x int); insert into a.t values (5)");
    server.stop();
    let live = server.directory("live");
    fs::rename(server.data().join("a"), live.join("a")).unwrap();
    std::os::unix::fs::symlink(live.join("a"), server.data().join("a")).unwrap();
    let error = verified(&server.data(), "").unwrap_err().to_string();
    assert!(error.contains("open what is live"), "{error}");
    let copied = server.directory("copied");
    assert!(Command::new("cp").arg("-a").arg(live.join("a")).arg(&copied).status().unwrap().success());
    fs::remove_dir_all(&live).unwrap();
    let work = tempfile::tempdir().unwrap();
    let moved = [(live, copied)];
    let directory = server.data();
    let copy = Copy { kind: Kind::Mysql, directory: &directory, moved: &moved, beside: &[] };
    let verified = verify::data_directory(&copy, &questions(work.path(), "select x from t")).unwrap();
    assert_eq!(verified.answer.as_deref(), Some("5"));
}

#[test]
fn a_binary_log_and_pages_of_another_size_are_taken_as_they_are() {
    let mut server = MariaDb::start_in(None, &["--log-bin=bin", "--server-id=3", "--innodb-page-size=8k"]);
    server.bank();
    let load = server.load(2);
    server.stop();
    drop(load);
    let verified = verified(&server.data(), BALANCED).unwrap();
    assert_eq!(verified.answer.as_deref(), Some("1\t1000"));
}

#[test]
fn a_dump_is_loaded_into_an_empty_server() {
    let server = MariaDb::start();
    server.sql(SHOP);
    let globals = Part { file: "globals.sql".to_owned(), database: None, format: Format::MysqlSql };
    let parts = [globals, part("shop")];
    let texts: HashMap<String, String> =
        parts.iter().map(|part| (part.file.clone(), dumped(&login(&server, ""), part).unwrap())).collect();
    let load = |texts: &HashMap<String, String>, query: &str| {
        let work = tempfile::tempdir().unwrap();
        let mut open = |part: &Part| -> Result<Box<dyn Dump>, Error> {
            Ok(Box::new(Cursor::new(texts[&part.file].clone().into_bytes())))
        };
        verify::dump(&parts, &mut open, &questions(work.path(), query))
    };
    let verified = load(&texts, "select name from big").unwrap();
    assert_eq!(verified.databases, ["shop"]);
    assert!(verified.answer.unwrap().starts_with("J\u{fc}rgen"));
    assert_eq!(verified.warnings, [""; 0]);
    let mut cut = texts.clone();
    cut.get_mut("shop.sql").unwrap().truncate(3000);
    assert!(load(&cut, "").unwrap_err().to_string().contains("before its last line"));
}
