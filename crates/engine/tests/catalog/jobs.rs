use std::process::Command;

use engine::catalog::{Catalog, Event, Figures, Job, JobKind, Level, Outcome, Task};
use engine::process::Process;

use crate::support::{Place, at, job};

const SHOP: Task<'_> = Task { kind: Some(JobKind::Backup), project: Some("shop"), repository: Some("usb") };

#[test]
fn a_job_is_as_it_was_recorded_also_after_the_catalog_is_opened_again() {
    let place = Place::new();
    let figures = Figures { files: Some(18_204), added_bytes: Some(1 << 40), ..Figures::default() };
    let job = job(0).ended(at(60), Outcome::Incomplete).with_figures(figures).with_point("7f3a").with_error("EIO");
    place.open().record_job(&job).unwrap();
    assert_eq!(place.open().jobs(SHOP, 10).unwrap(), [job]);
}

#[test]
fn of_a_job_whose_beginning_was_not_recorded_everything_is_known_once_it_ended() {
    let catalog = Place::new();
    let catalog = catalog.open();
    let job = job(0).ended(at(60), Outcome::Succeeded);
    catalog.record_job(&job).unwrap();
    catalog.record_job(&job).unwrap();
    assert_eq!(catalog.jobs(Task::default(), 10).unwrap(), std::slice::from_ref(&job));
    assert_eq!(catalog.last_success(SHOP).unwrap(), Some(job));
}

#[test]
fn failures_count_since_the_last_success_and_what_somebody_stopped_does_not() {
    let place = Place::new();
    let catalog = place.open();
    let record = |secs: i64, outcome| catalog.record_job(&job(secs).ended(at(secs + 1), outcome)).unwrap();
    assert_eq!(catalog.failures_in_a_row(SHOP).unwrap(), 0);
    record(0, Outcome::Failed);
    record(10, Outcome::Succeeded);
    assert_eq!(catalog.failures_in_a_row(SHOP).unwrap(), 0);
    record(20, Outcome::Failed);
    record(30, Outcome::Cancelled);
    record(40, Outcome::Interrupted);
    assert_eq!(catalog.failures_in_a_row(SHOP).unwrap(), 2);
    let elsewhere = Task { repository: Some("offsite"), ..SHOP };
    assert_eq!(catalog.failures_in_a_row(elsewhere).unwrap(), 0);
    record(50, Outcome::Incomplete);
    assert_eq!(catalog.failures_in_a_row(SHOP).unwrap(), 0);
}

#[test]
fn a_job_whose_process_died_is_not_running_and_is_ended_once() {
    let place = Place::new();
    let catalog = place.open();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let ours = job(0);
    let theirs = Job { process: Process::of(child.id() as i32).unwrap(), ..job(1) };
    catalog.record_job(&ours).unwrap();
    catalog.record_job(&theirs).unwrap();
    assert_eq!(catalog.running_jobs().unwrap(), [ours.clone(), theirs.clone()]);
    assert_eq!(catalog.end_dead_jobs(at(5)).unwrap(), []);

    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(catalog.running_jobs().unwrap(), [ours]);
    let dead = catalog.end_dead_jobs(at(5)).unwrap();
    assert_eq!(dead, [theirs.ended(at(5), Outcome::Interrupted)]);
    assert_eq!(catalog.end_dead_jobs(at(6)).unwrap(), []);
    assert_eq!(catalog.failures_in_a_row(SHOP).unwrap(), 1);
}

#[test]
fn a_job_of_another_boot_is_dead_even_if_its_number_lives() {
    let place = Place::new();
    let catalog = place.open();
    let mut job = job(0);
    job.process.boot = "00000000-0000-0000-0000-000000000000".to_owned();
    catalog.record_job(&job).unwrap();
    assert_eq!(catalog.running_jobs().unwrap(), []);
    assert_eq!(catalog.end_dead_jobs(at(5)).unwrap().len(), 1);
}

#[test]
fn what_is_older_than_a_year_goes_but_the_last_success_of_each_task_stays() {
    const DAY: i64 = 24 * 3600;
    let place = Place::new();
    let catalog = place.open();
    let record = |days: i64, outcome| {
        catalog.record_job(&job(days * DAY).ended(at(days * DAY + 1), outcome)).unwrap();
    };
    record(0, Outcome::Succeeded);
    record(1, Outcome::Succeeded);
    record(2, Outcome::Failed);
    let started = |catalog: &Catalog| -> Vec<_> {
        catalog.jobs(Task::default(), 10).unwrap().iter().map(|job| job.started).collect()
    };
    // A clock that is wrong costs nothing.
    drop(Catalog::open(place.path(), at(9000 * DAY)).unwrap());
    assert_eq!(started(&catalog).len(), 3);
    record(450, Outcome::Failed);
    drop(Catalog::open(place.path(), at(451 * DAY)).unwrap());
    assert_eq!(started(&catalog), [at(450 * DAY), at(DAY)]);
}

#[test]
fn no_secret_gets_into_the_file() {
    let place = Place::new();
    let catalog = place.open();
    let address = "rest:https://me:hunter2@host/";
    catalog.record_job(&job(0).ended(at(1), Outcome::Failed).with_error(format!("cannot reach {address}"))).unwrap();
    let event =
        Event { at: at(0), level: Level::Error, project: None, repository: None, text: format!("{address} is gone") };
    catalog.record_event(&event).unwrap();
    assert_eq!(catalog.events(None, 10).unwrap()[0].text, "rest:https://me:***@host/ is gone");
    drop::<Catalog>(catalog);
    for name in place.names() {
        let bytes = std::fs::read(place.path().with_file_name(&name)).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"), "{name}");
    }
}
