//! Dumps of a real PostgreSQL in the backups of a project.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use backup::restore::{self, Overwrite};
use engine::catalog::{JobKind, Outcome, Task};
use engine::config::Database;
use engine::job::{Backups, Made, Walk};
use engine::manifest::Manifest;
use workload::address::{Address, Login};

use crate::postgres::Postgres;
use crate::site::Site;

fn made(backups: &Backups, number: usize) -> &Made {
    backups.into[number].backup.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

fn add(site: &mut Site, name: &str, url: &str) {
    let login = Login::new(Address::parse(url).unwrap());
    let database = Database { name: name.to_owned(), login, dump: true, all: false, query: None, quiesce: false };
    site.project().databases.insert(name.to_owned(), database);
}

fn manifest(site: &Site, repository: &str, made: &Made) -> Manifest {
    let repository = site.open(repository);
    let index = repository.load_index().unwrap();
    Manifest::load(&repository, &index, made.record.tree).unwrap().unwrap()
}

struct Strict;

impl backup::progress::Progress for Strict {
    fn error(&self, path: &Path, error: &dyn std::fmt::Display) {
        panic!("{}: {error}", path.display());
    }
}

/// All of a backup, in a directory.
fn bring_back(site: &Site, repository: &str, made: &Made) -> PathBuf {
    let target = site.path(&format!("target-{repository}-{}", made.id));
    let repository = site.open(repository);
    let index = repository.load_index().unwrap();
    let options = restore::Options {
        path: None,
        include: None,
        exclude: None,
        delete: Vec::new(),
        overwrite: Overwrite::Always,
        dry_run: false,
        verify: false,
        progress: &Strict,
    };
    restore::restore(&repository, &index, made.record.tree, &target, &options).unwrap();
    target
}

/// Programs of a test's own in the place of some of PostgreSQL's.
fn with_programs(site: &mut Site, name: &str, programs: &[(&str, &str)]) {
    let directory = site.path(name);
    fs::create_dir(&directory).unwrap();
    let real = fs::read_dir("/usr/lib/postgresql").unwrap().map(|version| version.unwrap().path().join("bin")).max();
    let real = real.unwrap();
    let hand_on = ["psql", "pg_dumpall"].map(|name| (name, format!("exec {}/{name} \"$@\"", real.display())));
    let programs = programs.iter().map(|(name, text)| (*name, (*text).to_owned()));
    for (name, text) in hand_on.into_iter().chain(programs) {
        let path = directory.join(name);
        fs::write(
            &path,
            format!("#!/bin/sh\n[ \"$1\" = --version ] && exec {}/{name} --version\n{text}\n", real.display()),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // The server's user must come to them.
    fs::set_permissions(directory.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    let database = site.project().databases.get_mut("orders").unwrap();
    database.login.tools.directories = vec![directory];
}

#[test]
fn dumps_lie_beside_the_files_and_the_manifest_says_what_they_are() {
    let server = Postgres::start();
    server.sql("postgres", "create database orders");
    server.sql("orders", "create table orders as select * from generate_series(1, 1000) as number");
    let mut site = Site::new();
    site.add_repository("usb");
    add(&mut site, "orders", &server.url("orders"));
    for run in 0..2 {
        let backups = site.back_up().unwrap();
        assert_eq!(backups.outcome(), Outcome::Succeeded, "{}", site.told.all());
        for (number, repository) in ["offsite", "usb"].into_iter().enumerate() {
            let made = made(&backups, number);
            assert_eq!(made.walk == Walk::Changed, run > 0, "dumps do not make a run look at all files");
            assert_eq!(made.record.tags, ["project=shop"]);
            let manifest = manifest(&site, repository, made);
            assert_eq!((&*manifest.project, &*manifest.host), ("shop", "test"));
            let [database] = &manifest.databases[..] else { panic!("{manifest:?}") };
            assert_eq!(database.error, None);
            assert!(database.server.as_ref().unwrap().starts_with("PostgreSQL "), "{database:?}");
            assert!(database.tool.as_ref().unwrap().starts_with("pg_dump "), "{database:?}");
            let target = bring_back(&site, repository, made);
            for part in &database.parts {
                let file = target.join(".snapback/databases/orders").join(&part.part.file);
                assert_eq!(Some(fs::metadata(&file).unwrap().len()), part.bytes);
            }
            let dump = target.join(".snapback/databases/orders/orders.pgdump");
            let listed = Command::new("pg_restore").arg("--list").arg(dump).output().unwrap();
            let listed = String::from_utf8(listed.stdout).unwrap();
            assert!(listed.contains("TABLE DATA public orders"), "{listed}");
            assert!(target.join(site.shop().strip_prefix("/").unwrap()).join("db/table").exists());
        }
    }
}

#[test]
fn a_server_that_is_down_leaves_the_files_and_an_incomplete_backup_that_is_told() {
    let mut site = Site::new();
    let nowhere = format!("postgres:///orders?host={}", site.path("nowhere").display());
    add(&mut site, "orders", &nowhere);
    let backups = site.back_up().unwrap();
    assert_eq!(backups.outcome(), Outcome::Incomplete);
    let first = made(&backups, 0);
    assert_eq!(first.record.tags, ["project=shop", "incomplete"]);
    assert_eq!((first.errors, first.missing.len(), first.summary.total_files_processed), (0, 1, 3));
    assert!(site.told.all().contains("/.snapback/databases/orders: no dump of orders: "), "{}", site.told.all());
    let said = &manifest(&site, "offsite", first).databases[0];
    assert!(said.error.as_ref().unwrap().contains("cannot be reached") && said.parts.is_empty(), "{said:?}");
    let catalog = site.recorder.catalog().unwrap();
    let jobs = catalog.jobs(Task { kind: Some(JobKind::Backup), ..Task::default() }, 1).unwrap();
    let end = jobs[0].end.as_ref().unwrap();
    assert_eq!(end.outcome, Outcome::Incomplete);
    assert!(end.error.as_ref().unwrap().starts_with("no dump of orders: "), "{end:?}");
    // The files were all there, and what the next one looks at is what changed.
    site.write("index", "two");
    let backups = site.back_up().unwrap();
    let next = made(&backups, 0);
    // The file, and the manifest.
    assert_eq!((&next.walk, next.record.tags.len(), next.summary.files_changed), (&Walk::Changed, 2, 2));
    site.project().databases.clear();
    let backups = site.back_up().unwrap();
    let next = made(&backups, 0);
    assert_eq!((backups.outcome(), next.record.tags.len()), (Outcome::Succeeded, 1));
    assert!(!bring_back(&site, "offsite", next).join(".snapback").exists());
}

#[test]
fn a_dump_that_breaks_in_the_middle_is_left_out() {
    let server = Postgres::start();
    let mut site = Site::new();
    add(&mut site, "orders", &server.url("postgres"));
    let breaks = "head -c 3000000 /dev/urandom; echo 'server closed the connection unexpectedly' >&2; exit 1";
    with_programs(&mut site, "programs", &[("pg_dump", breaks)]);
    let backups = site.back_up().unwrap();
    let made = made(&backups, 0);
    assert_eq!(backups.outcome(), Outcome::Incomplete);
    assert_eq!(made.record.tags, ["project=shop", "incomplete"]);
    let [missing] = &made.missing[..] else { panic!("{:?}", made.missing) };
    assert_eq!(missing.file.as_deref(), Some("postgres.pgdump"));
    assert!(missing.reason.contains("server closed the connection"), "{missing}");
    let parts = &manifest(&site, "offsite", made).databases[0].parts;
    let broken: Vec<bool> = parts.iter().map(|part| part.error.is_some()).collect();
    assert_eq!(broken, [false, true], "{parts:?}");
    let databases = bring_back(&site, "offsite", made).join(".snapback/databases/orders");
    assert_eq!(fs::read_dir(databases).unwrap().count(), 1);
}

#[test]
fn whoever_cancels_waits_for_no_dump_and_none_goes_on() {
    let server = Postgres::start();
    let mut site = Site::new();
    add(&mut site, "orders", &server.url("postgres"));
    let told = site.path("pid");
    fs::write(&told, "").unwrap();
    fs::set_permissions(&told, fs::Permissions::from_mode(0o666)).unwrap();
    let stands_still = format!("echo -n PGDMP; echo $$ > {}; exec sleep 600", told.display());
    with_programs(&mut site, "programs", &[("pg_dump", &stands_still)]);
    let pid = || fs::read_to_string(&told).unwrap().trim().parse::<u32>().ok();
    let backups = std::thread::scope(|scope| {
        scope.spawn(|| {
            while pid().is_none() {
                std::thread::yield_now();
            }
            site.is_cancelled.store(true, Ordering::Relaxed);
        });
        site.back_up().unwrap()
    });
    assert_eq!(backups.outcome(), Outcome::Cancelled);
    let process = PathBuf::from(format!("/proc/{}", pid().unwrap()));
    assert!(!process.exists(), "the dump tool is ended, and waited for");
}
