//! The loop, with a worker that does what it is told.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use policy::schedule::Schedule;

use super::*;

/// A wall clock that stands still; time since the boot passes.
struct Still;

impl Clock for Still {
    fn wall(&self) -> Timestamp {
        "2026-05-01T12:00:00Z".parse().unwrap()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Each run takes its outcome from here; without one it waits.
struct Told {
    outcomes: Mutex<Receiver<Outcome>>,
    made: Option<Timestamp>,
}

impl Worker for Told {
    fn run(&self, _: &Task) -> Outcome {
        match self.outcomes.lock().unwrap().recv().unwrap() {
            Outcome::Failed(message) if message == "panic" => panic!("as asked"),
            outcome => outcome,
        }
    }

    fn made(&self, _: &Task) -> Option<Timestamp> {
        self.made
    }
}

struct Fake {
    worker: Arc<Told>,
    /// What is read next; the newest for ever.
    configurations: Mutex<Vec<Result<Vec<Planned>, String>>>,
    heard: Sender<String>,
}

impl Host for Fake {
    fn load(&self) -> Result<Loaded, String> {
        let mut configurations = self.configurations.lock().unwrap();
        let plan = if configurations.len() > 1 { configurations.remove(0) } else { configurations[0].clone() };
        Ok(Loaded { plan: plan?, zone: TimeZone::UTC, worker: Arc::clone(&self.worker) as Arc<dyn Worker> })
    }

    fn tell(&self, event: &Event<'_>) {
        let text = match event {
            Event::Begun(task) => format!("begun {}", task.key()),
            Event::Ended { task, outcome, again, .. } => {
                format!(
                    "{} ended {outcome:?}, again in {:?}",
                    task.key(),
                    again.map(|again| again.as_secs().div_ceil(60))
                )
            }
            other => format!("{other:?}"),
        };
        let _ = self.heard.send(text);
    }

    fn alive(&self, _: &State<'_>) {}
}

/// A loop in a thread of its own.
struct Running {
    root: tempfile::TempDir,
    thread: Option<JoinHandle<Result<Undone, Error>>>,
    tell: Sender<Message>,
    heard: Receiver<String>,
    outcomes: Sender<Outcome>,
}

impl Running {
    fn new(configurations: Vec<Result<Vec<Planned>, String>>) -> Running {
        Running::on(tempfile::tempdir().unwrap(), configurations, None)
    }

    fn on(
        root: tempfile::TempDir,
        configurations: Vec<Result<Vec<Planned>, String>>,
        made: Option<Timestamp>,
    ) -> Running {
        let ((tell, receiver), (heard_from, heard), (outcomes, told)) = (channel(), channel(), channel());
        let worker = Arc::new(Told { outcomes: Mutex::new(told), made });
        let fake = Fake { worker, configurations: Mutex::new(configurations), heard: heard_from };
        let (path, sender) = (root.path().to_owned(), tell.clone());
        let options = Options { once: false, look_every: Duration::from_secs(60) };
        let thread = std::thread::spawn(move || serve(&path, &Still, &fake, (&sender, &receiver), options));
        Running { root, thread: Some(thread), tell, heard, outcomes }
    }

    fn hears(&self, text: &str) {
        let heard = self.heard.recv_timeout(Duration::from_secs(30)).expect("the loop says nothing");
        assert!(heard.contains(text), "{heard} instead of {text}");
    }

    fn ends(&mut self) -> Result<Undone, Error> {
        self.thread.take().unwrap().join().unwrap()
    }
}

fn every_hour(project: &str) -> Planned {
    let task = Task::Snapshot { project: project.into(), plan: "nightly".into() };
    Planned { task, schedule: Schedule::Every(SignedDuration::from_hours(1)), seed: String::new() }
}

#[test]
fn what_is_due_is_done_and_what_fails_is_tried_again() {
    let mut daemon = Running::new(vec![Ok(vec![every_hour("blog"), every_hour("shop")])]);
    daemon.hears("Up(2)");
    daemon.hears("begun snapshot/");
    daemon.hears("begun snapshot/");
    daemon.outcomes.send(Outcome::Done).unwrap();
    daemon.hears("ended Done, again in Some(60)");
    daemon.outcomes.send(Outcome::Failed("panic".into())).unwrap();
    daemon.hears("ended Failed(\"it ended in a defect of this program\"), again in Some(1)");
    daemon.tell.send(Message::Stop).unwrap();
    daemon.hears("Stopping(0)");
    assert_eq!(daemon.ends().unwrap(), Undone(1));
    let ledger = ledger::look(daemon.root.path()).unwrap();
    assert_eq!(ledger.tasks.values().filter(|entry| entry.failure.is_some()).count(), 1);
    assert_eq!(ledger.tasks.values().filter(|entry| entry.last.is_some()).count(), 1);
}

#[test]
fn a_broken_configuration_keeps_the_one_before() {
    let configurations = vec![Ok(vec![every_hour("shop")]), Err("line 3".into()), Ok(vec![every_hour("blog")])];
    let daemon = Running::new(configurations);
    daemon.hears("Up(1)");
    daemon.hears("begun snapshot/shop");
    daemon.outcomes.send(Outcome::Done).unwrap();
    daemon.hears("ended Done");
    daemon.tell.send(Message::Reload).unwrap();
    daemon.hears("Reloading");
    daemon.hears("NotReloaded(\"line 3\")");
    assert_eq!(ledger::look(daemon.root.path()).unwrap().tasks.len(), 1);
    daemon.tell.send(Message::Reload).unwrap();
    daemon.hears("Reloading");
    daemon.hears("Reloaded(1)");
    daemon.hears("begun snapshot/blog");
    daemon.outcomes.send(Outcome::Done).unwrap();
    daemon.tell.send(Message::Stop).unwrap();
}

#[test]
fn one_that_cannot_be_read_at_the_beginning_is_refused() {
    let mut daemon = Running::new(vec![Err("line 3".into())]);
    assert_eq!(daemon.ends().unwrap_err().to_string(), "line 3");
}

#[test]
fn a_stop_waits_for_what_runs_and_starts_nothing_more() {
    let mut daemon = Running::new(vec![Ok(vec![every_hour("shop")])]);
    daemon.hears("Up(1)");
    daemon.hears("begun");
    daemon.tell.send(Message::Stop).unwrap();
    daemon.hears("Stopping(1)");
    daemon.outcomes.send(Outcome::Stopped).unwrap();
    daemon.hears("ended Stopped, again in Some(0)");
    assert_eq!(daemon.ends().unwrap(), Undone(1));
}

#[test]
fn the_second_daemon_is_refused() {
    let daemon = Running::new(vec![Ok(Vec::new())]);
    daemon.hears("Up(0)");
    let path = daemon.root.path();
    let refused = Instance::acquire(path).unwrap_err().to_string();
    assert!(refused.contains(&std::process::id().to_string()), "{refused}");
    daemon.tell.send(Message::Stop).unwrap();
}

#[test]
fn what_is_impossible_is_told_once_and_again_when_it_is_another_thing() {
    let often = |_| Planned { schedule: Schedule::Every(SignedDuration::from_millis(1)), ..every_hour("shop") };
    let daemon = Running::new(vec![Ok(vec![often(())])]);
    daemon.hears("Up(1)");
    daemon.hears("begun");
    for outcome in ["ext4", "ext4", "ext4", "gone"] {
        daemon.outcomes.send(Outcome::Impossible(outcome.into())).unwrap();
    }
    daemon.hears("ended Impossible(\"ext4\")");
    daemon.hears("ended Impossible(\"gone\")");
    daemon.outcomes.send(Outcome::Done).unwrap();
    daemon.hears("ended Done");
    daemon.hears("begun");
    daemon.outcomes.send(Outcome::Stopped).unwrap();
    daemon.tell.send(Message::Stop).unwrap();
    daemon.outcomes.send(Outcome::Stopped).unwrap();
}

#[test]
fn a_run_that_was_killed_right_before_its_end_is_not_done_again() {
    let killed = Running::new(vec![Ok(vec![every_hour("shop")])]);
    killed.hears("Up(1)");
    killed.hears("begun");
    // As it is on the disk while it runs. What was made has the time at which it was begun.
    let root = tempfile::tempdir().unwrap();
    std::fs::copy(killed.root.path().join(ledger::FILE), root.path().join(ledger::FILE)).unwrap();
    let next = Running::on(root, vec![Ok(vec![every_hour("shop")])], Some(Still.wall()));
    next.hears("Up(1)");
    next.hears("begun");
    next.hears("ended Found(2026-05-01T12:00:00Z), again in Some(60)");
    next.tell.send(Message::Stop).unwrap();
    killed.outcomes.send(Outcome::Stopped).unwrap();
    killed.tell.send(Message::Stop).unwrap();
}

#[test]
fn without_room_for_the_ledger_the_work_goes_on_and_it_is_said() {
    let root = tempfile::tempdir().unwrap();
    // Whatever is tried, a directory is in the way.
    std::fs::create_dir_all(root.path().join(ledger::FILE).with_extension("tmp")).unwrap();
    let daemon = Running::on(root, vec![Ok(vec![every_hour("shop")])], None);
    daemon.hears("Warning(\"what was done cannot be written down");
    daemon.hears("Up(1)");
    daemon.hears("begun");
    daemon.outcomes.send(Outcome::Done).unwrap();
    daemon.hears("ended Done, again in Some(60)");
    daemon.tell.send(Message::Stop).unwrap();
}
