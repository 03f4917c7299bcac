//! Several processes at once, and processes that are killed.

#![expect(clippy::disallowed_methods, reason = "the child is told by its environment what to do")]

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use engine::catalog::{Catalog, Outcome, Task};

use crate::support::{Place, at, job};

const CATALOG: &str = "SNAPBACK_TEST_CATALOG";
const COUNT: &str = "SNAPBACK_TEST_COUNT";

/// Runs a test of this file as a child that writes so many jobs, and says the id of each once it is recorded.
fn writer(test: &str, path: &Path, count: u32) -> Child {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).env(CATALOG, path).env(COUNT, count.to_string());
    child.stdout(Stdio::piped()).spawn().unwrap()
}

/// What the child does; `false` in the parent.
fn be_the_child() -> bool {
    let (Some(path), Ok(count)) = (env::var_os(CATALOG), env::var(COUNT)) else { return false };
    let catalog = Catalog::open(path, at(0)).unwrap();
    for number in 0..count.parse().unwrap() {
        let running = job(number);
        catalog.record_job(&running).unwrap();
        let id = running.id;
        catalog.record_job(&running.ended(at(number + 1), Outcome::Succeeded)).unwrap();
        // In one write, so that a kill leaves no half of it.
        std::io::stdout().write_all(format!("\nrecorded {id}\n").as_bytes()).unwrap();
    }
    true
}

/// The ids that a child said.
fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.filter_map(|line| Some(line.ok()?.strip_prefix("recorded ")?.to_owned()))
}

#[track_caller]
fn assert_all_recorded(catalog: &Catalog, ids: &[String]) {
    let jobs = catalog.jobs(Task::default(), u32::MAX).unwrap();
    for id in ids {
        let of_id = jobs.iter().filter(|job| job.id.to_string() == *id);
        assert_eq!(of_id.filter(|job| job.end.is_some()).count(), 1, "{id}");
    }
}

fn is_sound(path: &Path) -> bool {
    let connection = rusqlite::Connection::open(path).unwrap();
    let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    found == "ok"
}

#[test]
fn processes_that_begin_at_once_make_one_catalog_and_lose_nothing() {
    if be_the_child() {
        return;
    }
    let place = Place::new();
    let test = "processes::processes_that_begin_at_once_make_one_catalog_and_lose_nothing";
    let mut children: Vec<Child> = (0..6).map(|_| writer(test, &place.path(), 40)).collect();
    let ids: Vec<String> = children.iter_mut().flat_map(said).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(ids.len(), 240);
    let catalog = place.open();
    assert_all_recorded(&catalog, &ids);
    assert_eq!(catalog.running_jobs().unwrap(), []);
    assert_eq!(place.damaged(), <[String; 0]>::default());
}

#[test]
fn of_processes_that_are_killed_all_stays_that_they_said_was_recorded() {
    if be_the_child() {
        return;
    }
    let place = Place::new();
    let test = "processes::of_processes_that_are_killed_all_stays_that_they_said_was_recorded";
    let mut ids = Vec::new();
    for round in 0..12 {
        let mut children = [writer(test, &place.path(), 100_000), writer(test, &place.path(), 100_000)];
        for child in &mut children {
            // Killed somewhere in its next one; each round at another place.
            let mut lines = said(child);
            ids.extend(lines.by_ref().take(1 + round * 3));
            child.kill().unwrap();
            ids.extend(lines);
            child.wait().unwrap();
        }
    }
    let catalog = place.open();
    assert_all_recorded(&catalog, &ids);
    assert_eq!(catalog.running_jobs().unwrap(), []);
    let dead = catalog.end_dead_jobs(at(9)).unwrap();
    assert!(dead.len() <= 24, "at most one of each process: {}", dead.len());
    assert!(is_sound(&place.path()));
    assert_eq!(place.damaged(), <[String; 0]>::default());
}

#[test]
fn processes_that_meet_a_damaged_catalog_move_it_aside_once() {
    if be_the_child() {
        return;
    }
    let place = Place::new();
    fs::write(place.path(), [0x55; 9999]).unwrap();
    let test = "processes::processes_that_meet_a_damaged_catalog_move_it_aside_once";
    let mut children: Vec<Child> = (0..6).map(|_| writer(test, &place.path(), 10)).collect();
    let ids: Vec<String> = children.iter_mut().flat_map(said).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(place.damaged().len(), 1);
    assert_eq!(ids.len(), 60);
    assert_all_recorded(&place.open(), &ids);
}

#[test]
fn a_catalog_that_is_deleted_while_processes_write_is_made_again_and_stays_sound() {
    if be_the_child() {
        return;
    }
    let place = Place::new();
    let test = "processes::a_catalog_that_is_deleted_while_processes_write_is_made_again_and_stays_sound";
    let mut children: Vec<Child> = (0..4).map(|_| writer(test, &place.path(), 60)).collect();
    let mut lines = said(&mut children[0]);
    for _ in 0..5 {
        lines.by_ref().take(5).for_each(drop);
        let _ = fs::remove_file(place.path());
    }
    lines.for_each(drop);
    for child in &mut children[1..] {
        said(child).for_each(drop);
    }
    for child in &mut children {
        assert!(child.wait().unwrap().success(), "nobody fails");
    }
    assert!(is_sound(&place.path()));
    // Who still has a deleted file open may leave its log beside the new one: then that is moved aside, and mended so.
}
