//! A world with clocks that are set, power cuts and deaths, in which a year takes a second.

use std::collections::BTreeMap;

use jiff::civil::time;
use jiff::{ToSpan as _, Zoned};
use policy::schedule::{TimeOfDay, TimesOfDay};
use proptest::prelude::*;

use super::*;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// A run that succeeded: when it began, by the wall clock then, and in truth, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Run {
    wall: Timestamp,
    truth: i64,
}

struct World {
    /// In truth, in milliseconds since the Epoch.
    truth: i64,
    /// What the wall clock shows more than that.
    wrong: i64,
    boots: u32,
    booted: i64,
    plan: Vec<Planned>,
    zone: TimeZone,
    /// What is on the disk.
    ledger: Ledger,
    daemon: Option<Scheduler>,
    /// What runs: since when, by both clocks, and until when.
    under_way: Vec<(Task, Run, i64)>,
    made: BTreeMap<Task, Vec<Run>>,
    /// Runs end so until then.
    fails_until: i64,
    takes: i64,
}

impl World {
    fn new(start: &str, plan: Vec<Planned>) -> World {
        let start: Zoned = start.parse().unwrap();
        let truth = start.timestamp().as_millisecond();
        let mut world = World {
            truth,
            wrong: 0,
            boots: 0,
            booted: truth,
            plan,
            zone: start.time_zone().clone(),
            ledger: Ledger::default(),
            daemon: None,
            under_way: Vec::new(),
            made: BTreeMap::new(),
            fails_until: truth,
            takes: 10 * MINUTE,
        };
        world.start_daemon();
        world
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millisecond(self.truth + self.wrong).unwrap()
    }

    fn now(&self) -> Moment {
        let since_boot_ms = u64::try_from(self.truth - self.booted).unwrap();
        Moment { wall: self.wall(), boot: self.boots.to_string(), since_boot_ms }
    }

    fn start_daemon(&mut self) {
        let mut daemon = Scheduler::new(self.ledger.clone(), self.now(), Patience::Long);
        daemon.plan(self.plan.clone(), self.zone.clone(), &self.now());
        self.ledger = daemon.ledger().clone();
        self.daemon = Some(daemon);
    }

    /// `kill -9`. Of what was under way nothing is left, or all but the note that it is done.
    fn kill(&mut self, results_are_there: bool) {
        self.daemon = None;
        for (task, run, _) in std::mem::take(&mut self.under_way) {
            if results_are_there {
                self.made.entry(task).or_default().push(run);
            }
        }
    }

    fn power_cut(&mut self, off: i64) {
        self.kill(false);
        self.truth += off;
        self.boots += 1;
        self.booted = self.truth;
    }

    /// Lets time pass.
    fn pass(&mut self, time: i64) {
        let end = self.truth + time;
        while self.truth < end {
            let now = self.now();
            let Some(daemon) = &mut self.daemon else {
                self.truth = end;
                return;
            };
            for Start { task, step } in daemon.start(&now) {
                // On the disk before anything is done.
                self.ledger = daemon.ledger().clone();
                let newest = self.made.get(&task).and_then(|runs| runs.last()).map(|run| run.wall);
                let at_once = match step {
                    Step::Look => Some(Outcome::Looked(newest)),
                    Step::GoOn(begun) => newest.filter(|made| *made >= begun).map(Outcome::Found),
                    Step::Run => None,
                };
                if let Some(outcome) = at_once {
                    daemon.end(&task, &outcome, &now);
                    self.ledger = daemon.ledger().clone();
                } else {
                    self.under_way.push((task, Run { wall: now.wall, truth: self.truth }, self.truth + self.takes));
                }
            }
            let idle = i64::try_from(daemon.idle(&now).as_millis()).unwrap_or(i64::MAX).max(1);
            let next_end = self.under_way.iter().map(|(_, _, end)| *end).min().unwrap_or(i64::MAX);
            self.truth = end.min(next_end).min(self.truth.saturating_add(idle));
            self.end_what_has_ended();
        }
    }

    fn end_what_has_ended(&mut self) {
        let now = self.now();
        let (ended, rest) = std::mem::take(&mut self.under_way).into_iter().partition(|(_, _, end)| *end <= self.truth);
        self.under_way = rest;
        let ended: Vec<(Task, Run, i64)> = ended;
        for (task, run, _) in ended {
            let daemon = self.daemon.as_mut().unwrap();
            if self.truth < self.fails_until {
                daemon.end(&task, &Outcome::Failed("no route to host".into()), &now);
            } else {
                self.made.entry(task.clone()).or_default().push(run);
                daemon.end(&task, &Outcome::Done, &now);
            }
            self.ledger = daemon.ledger().clone();
        }
    }

    fn runs(&self, task: &Task) -> &[Run] {
        self.made.get(task).map_or(&[], |runs| runs)
    }

    /// Between any two occurrences that the wall clock passed, one after the other, there is one run and no second.
    fn has_one_run_an_occurrence(&self, from: Timestamp) -> Result<(), String> {
        for planned in &self.plan {
            let mut occurrence = planned.schedule.next(from, &self.zone, &planned.seed).unwrap();
            // The last one may still be running, or wait for its turn.
            let until = self.wall() - SignedDuration::from_hours(2);
            while occurrence < until {
                let next = planned.schedule.next(occurrence, &self.zone, &planned.seed).unwrap();
                let runs = self.runs(&planned.task);
                let met: Vec<_> = runs.iter().filter(|run| run.wall >= occurrence && run.wall < next).collect();
                if met.len() != 1 {
                    return Err(format!("{} of {occurrence} ran {} times: {met:?}", planned.task, met.len()));
                }
                occurrence = next;
            }
        }
        Ok(())
    }
}

fn backup(project: &str, repository: &str) -> Task {
    Task::Backup { project: project.into(), plan: "nightly".into(), repository: repository.into() }
}

fn snapshot() -> Task {
    Task::Snapshot { project: "shop".into(), plan: "nightly".into() }
}

fn nightly(task: Task) -> Planned {
    let times = vec![TimeOfDay { days: Vec::new(), time: time(2, 30, 0, 0) }];
    let spread = SignedDuration::from_mins(30);
    Planned { task, schedule: Schedule::At(TimesOfDay { times, spread }), seed: "web1/shop".into() }
}

fn every(hours: i64, task: Task) -> Planned {
    Planned { task, schedule: Schedule::Every(SignedDuration::from_hours(hours)), seed: String::new() }
}

fn everything() -> Vec<Planned> {
    let check = Task::Check { repository: "usb".into(), plan: "nightly".into() };
    vec![
        nightly(backup("shop", "usb")),
        nightly(backup("shop", "offsite")),
        nightly(backup("blog", "usb")),
        every(4, snapshot()),
        every(7 * 24, check),
    ]
}

fn only_nightly() -> Vec<Planned> {
    everything().into_iter().take(3).collect()
}

#[test]
fn in_a_year_everything_runs_as_often_as_it_should_in_any_zone() {
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"] {
        let mut world = World::new(&format!("2026-01-01T00:00:00[{zone}]"), everything());
        let start = world.wall();
        let end = start.to_zoned(world.zone.clone()).checked_add(1.year()).unwrap().timestamp();
        world.pass(end.as_millisecond() - start.as_millisecond());
        for repository in ["usb", "offsite"] {
            let runs = world.runs(&backup("shop", repository));
            assert_eq!(runs.len(), 365, "{zone}");
            let late = |run: &Run| run.wall.to_zoned(world.zone.clone()).time();
            // Half an hour of spread, and another backup or two and a snapshot before it, during which the clocks may
            // go back or forward.
            let night = time(2, 0, 0, 0)..time(4, 30, 0, 0);
            assert_eq!(runs.iter().map(late).find(|at| !night.contains(at)), None, "{zone}");
        }
        // Somewhat fewer than 6 a day: one waits for a backup of the same project now and then.
        let snapshots = world.runs(&snapshot());
        assert!((2150..=2191).contains(&snapshots.len()), "{zone}: {}", snapshots.len());
        for pair in snapshots.windows(2) {
            assert!((4 * HOUR..=4 * HOUR + 30 * MINUTE).contains(&(pair[1].truth - pair[0].truth)), "{zone}: {pair:?}");
        }
    }
}

#[test]
fn of_a_project_and_of_a_repository_one_task_runs_at_a_time() {
    let mut world = World::new("2026-01-01T00:00:00[UTC]", everything());
    world.takes = 3 * HOUR;
    for _ in 0..10 * 24 {
        world.pass(HOUR);
        let running: Vec<&Task> = world.under_way.iter().map(|(task, ..)| task).collect();
        for (number, one) in running.iter().enumerate() {
            for two in &running[number + 1..] {
                assert!(!excludes(one, two), "{one} and {two} run at once");
            }
        }
    }
}

#[test]
fn what_was_missed_while_off_runs_once_soon_after_the_start() {
    let mut world = World::new("2026-01-01T12:00:00[UTC]", only_nightly());
    world.takes = MINUTE;
    world.pass(2 * DAY);
    world.power_cut(9 * DAY);
    let (before, start) = (world.runs(&backup("shop", "usb")).len(), world.wall());
    world.start_daemon();
    world.pass(2 * HOUR);
    let runs = world.runs(&backup("shop", "usb"));
    assert_eq!(runs.len(), before + 1);
    assert!(runs[before].wall.duration_since(start) < SignedDuration::from_mins(20), "{runs:?}");
}

#[test]
fn a_repository_that_is_gone_for_a_day_gets_its_backup_within_an_hour_of_its_return() {
    let mut world = World::new("2026-01-01T00:00:00[UTC]", only_nightly());
    world.fails_until = world.truth + DAY;
    world.pass(DAY);
    let now = world.now();
    let standings = world.daemon.as_ref().unwrap().standings(&now);
    let failure = standings[0].failure.unwrap();
    assert_eq!(failure.message, "no route to host");
    // 6 within two hours, hourly then; each takes a while, and others want the repository as well.
    assert!((14..30).contains(&failure.count), "tried {} times", failure.count);
    assert!(failure.since < now.wall - SignedDuration::from_hours(20));
    world.pass(2 * HOUR);
    let runs = world.runs(&backup("shop", "usb"));
    assert_eq!(runs.len(), 1);
    assert!(runs[0].truth - world.fails_until < HOUR + 30 * MINUTE, "{runs:?}");
    assert_eq!(world.ledger.tasks["backup/shop/nightly/usb"].failure, None);
}

#[test]
fn whoever_waits_for_it_sees_it_tried_again_at_once_but_not_twice() {
    let mut world = World::new("2026-01-01T00:00:00[UTC]", vec![every(4, snapshot())]);
    world.fails_until = world.truth + HOUR;
    world.pass(30 * MINUTE);
    let now = world.now();
    assert_eq!(world.daemon.as_mut().unwrap().start(&now), [], "it waits");
    let mut impatient = Scheduler::new(world.ledger.clone(), now.clone(), Patience::None);
    impatient.plan(world.plan.clone(), world.zone.clone(), &now);
    assert_eq!(impatient.start(&now).len(), 1);
    impatient.end(&snapshot(), &Outcome::Failed("no route to host".into()), &now);
    assert_eq!(impatient.start(&now), []);
}

#[test]
fn the_first_check_waits_for_something_to_be_checked() {
    let check = Task::Check { repository: "usb".into(), plan: "nightly".into() };
    let mut world = World::new("2026-01-01T00:00:00[UTC]", vec![every(7 * 24, check.clone())]);
    world.pass(7 * DAY - MINUTE);
    assert_eq!(world.runs(&check).len(), 0);
    world.pass(HOUR);
    assert_eq!(world.runs(&check).len(), 1);
}

#[test]
fn the_times_between_retries_double_up_to_an_hour() {
    let minutes: Vec<u64> = [1, 2, 3, 6, 7, 8, 40, u32::MAX].map(|n| retry_after(n).as_secs() / 60).to_vec();
    assert_eq!(minutes, [1, 2, 4, 32, 60, 60, 60, 60]);
}

#[test]
fn one_that_finds_somebody_at_work_tries_again_soon_and_has_not_failed() {
    let mut world = World::new("2026-01-01T00:00:00[UTC]", vec![every(4, snapshot())]);
    let daemon = world.daemon.as_mut().unwrap();
    let now = Moment { wall: Timestamp::from_millisecond(world.truth).unwrap(), boot: "0".into(), since_boot_ms: 0 };
    assert_eq!(daemon.start(&now), [Start { task: snapshot(), step: Step::Look }]);
    daemon.end(&snapshot(), &Outcome::Looked(None), &now);
    assert_eq!(daemon.start(&now), [Start { task: snapshot(), step: Step::Run }]);
    daemon.end(&snapshot(), &Outcome::Busy("process 7".into()), &now);
    assert_eq!(daemon.start(&now), []);
    assert_eq!(daemon.idle(&now), BUSY_AGAIN);
    assert_eq!(daemon.standings(&now)[0].failure, None);
    assert_eq!(daemon.start(&now.after(BUSY_AGAIN)).len(), 1);
    daemon.end(&snapshot(), &Outcome::Stopped, &now);
    assert_eq!(daemon.start(&now).len(), 1, "what was asked to stop is due as before");
}

#[test]
fn what_is_not_planned_any_more_is_forgotten_and_what_runs_goes_on() {
    let mut world = World::new("2026-01-01T00:00:00[UTC]", vec![every(4, snapshot())]);
    world.pass(MINUTE);
    let now = world.now();
    let daemon = world.daemon.as_mut().unwrap();
    assert_eq!(daemon.running().count(), 1);
    daemon.plan(only_nightly(), TimeZone::UTC, &now);
    assert_eq!(daemon.ledger().tasks.len(), 3);
    assert_eq!(daemon.running().count(), 1);
    daemon.end(&snapshot(), &Outcome::Done, &now);
    assert_eq!(daemon.ledger().tasks.len(), 3);
}

#[test]
fn a_ledger_that_is_lost_is_made_up_for_by_what_there_is() {
    let mut world = World::new("2026-01-01T12:00:00[UTC]", everything());
    let start = world.wall();
    world.pass(10 * DAY + 20 * MINUTE);
    world.kill(true);
    world.ledger = Ledger::default();
    world.start_daemon();
    world.pass(5 * DAY);
    world.plan = only_nightly();
    world.has_one_run_an_occurrence(start).unwrap();
    let snapshots = world.runs(&snapshot());
    assert!(snapshots.windows(2).all(|pair| pair[1].truth - pair[0].truth >= 4 * HOUR), "{snapshots:?}");
}

/// What happens to a server.
#[derive(Clone, Debug)]
enum Event {
    Pass(i64),
    Kill {
        results_are_there: bool,
        down: i64,
    },
    PowerCut(i64),
    /// The machine sleeps: CLOCK_BOOTTIME goes on.
    Sleep(i64),
    SetClock(i64),
    Fail(i64),
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..3 * DAY).prop_map(Event::Pass),
        3 => (any::<bool>(), 0..6 * HOUR).prop_map(|(results_are_there, down)| Event::Kill { results_are_there, down }),
        1 => (0..9 * HOUR).prop_map(Event::PowerCut),
        1 => (0..9 * HOUR).prop_map(Event::Sleep),
        1 => (0..DAY).prop_map(Event::Fail),
    ]
}

impl World {
    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Pass(time) => self.pass(time),
            Event::Kill { results_are_there, down } => {
                self.kill(results_are_there);
                self.pass(down);
                self.start_daemon();
            }
            Event::PowerCut(off) => {
                self.power_cut(off);
                self.start_daemon();
            }
            Event::Sleep(time) => {
                self.truth += time;
                self.end_what_has_ended();
            }
            Event::SetClock(by) => self.wrong += by,
            Event::Fail(time) => self.fails_until = self.truth + time,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_each_occurrence_is_met_once(
        events in prop::collection::vec(any_event(), 0..60), zone in prop::sample::select(vec!["Europe/Berlin", "UTC"]),
    ) {
        let mut world = World::new(&format!("2026-03-01T12:00:00[{zone}]"), only_nightly());
        let start = world.wall();
        for event in &events {
            world.happens(event);
        }
        world.fails_until = world.truth;
        world.pass(2 * DAY);
        no_occurrence_is_met_twice(&world, start)?;
        // After all of it, nothing is amiss.
        let calm = world.wall();
        world.pass(5 * DAY);
        prop_assert_eq!(world.has_one_run_an_occurrence(calm), Ok(()));
    }

    #[test]
    fn however_the_clock_is_set_every_counts_the_time_that_passes(
        steps in prop::collection::vec((0..2 * DAY, -400 * DAY..400 * DAY), 1..20),
    ) {
        let mut world = World::new("2026-03-01T12:00:00[Europe/Berlin]", vec![every(4, snapshot())]);
        for (time, by) in steps {
            world.pass(time);
            world.happens(&Event::SetClock(by));
        }
        world.pass(DAY);
        for pair in world.runs(&snapshot()).windows(2) {
            prop_assert_eq!(pair[1].truth - pair[0].truth, 4 * HOUR);
        }
    }

    #[test]
    fn a_clock_that_is_set_back_by_hours_loses_no_night_and_doubles_none(
        steps in prop::collection::vec((3 * DAY..6 * DAY, -14 * HOUR..0), 1..10),
    ) {
        let mut world = World::new("2026-03-01T12:00:00[Europe/Berlin]", only_nightly());
        let start = world.wall();
        for (time, by) in steps {
            world.pass(time);
            world.happens(&Event::SetClock(by));
        }
        world.pass(3 * DAY);
        prop_assert_eq!(world.has_one_run_an_occurrence(start), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_anywhere_stops_no_backups(
        steps in prop::collection::vec((0..3 * DAY, -4000 * DAY..4000 * DAY, any::<bool>()), 1..10),
    ) {
        let mut world = World::new("2026-03-01T12:00:00[Europe/Berlin]", only_nightly());
        for (time, by, reboots) in steps {
            world.pass(time);
            world.happens(&Event::SetClock(by));
            if reboots {
                world.happens(&Event::PowerCut(MINUTE));
            }
            let before = world.truth;
            world.pass(2 * DAY + 2 * HOUR);
            // One that was under way when the clock was set began before.
            let runs = world.runs(&backup("shop", "usb")).iter().filter(|run| run.truth >= before).count();
            // Two or three nights. Set forward: one is made up for. Set back by less than a day: that one is there already.
            prop_assert!((1..=4).contains(&runs), "{runs} runs in two days after {before}");
        }
    }
}

fn no_occurrence_is_met_twice(world: &World, from: Timestamp) -> Result<(), TestCaseError> {
    for planned in &world.plan {
        let mut met = BTreeMap::new();
        for run in world.runs(&planned.task).iter().filter(|run| run.wall >= from) {
            let mut occurrence = from;
            while let Some(next) =
                planned.schedule.next(occurrence, &world.zone, &planned.seed).filter(|next| *next <= run.wall)
            {
                occurrence = next;
            }
            *met.entry(occurrence).or_insert(0) += 1;
        }
        prop_assert!(met.values().all(|count| *count == 1), "{}: {met:?}", planned.task);
    }
    Ok(())
}
