//! What a rollback does, and when it refuses or takes all back.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};

use snapshot::error::Error;
use snapshot::holders::By;
use snapshot::manage;
use snapshot::rollback::recover::recover;
use snapshot::rollback::run::{Outcome, run};
use snapshot::rollback::{Plan, Request, newest_safety};
use snapshot::runner::System;
use snapshot::undo;

use crate::site::{Commands, NOW, Site, asked, fill, look};

/// A process that holds a file open until this is dropped.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn perform(site: &Site, commands: &Commands, plan: Plan) -> Result<Outcome, Error> {
    run(&site.lock(), &[&site.plain], commands, plan, NOW, &mut |_| {})
}

#[test]
fn a_rollback_brings_the_snapshot_back_and_its_undo_the_state_of_before() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    fill(&site.plain.directory, false);
    let (to, then) = (site.snapshot(), look(&site.plain.directory));
    fill(&site.plain.directory, true);
    let before = look(&site.plain.directory);

    let request =
        Request { stop: vec!["shop.service".into()], restart: vec!["web.service".into()], ..Request::default() };
    let plan = site.plan(&commands, &to, request);
    let announced = plan.steps();
    let outcome = perform(&site, &commands, plan).unwrap();
    assert_eq!(look(&site.plain.directory), then);
    assert_eq!(
        announced,
        ["stop shop.service", "copy", "exchange", "keep", "start shop.service", "restart web.service"]
    );
    let told =
        ["systemctl stop -- shop.service", "systemctl start -- shop.service", "systemctl restart -- web.service"];
    assert_eq!(*commands.told.lock().unwrap(), told);

    let safety = newest_safety(&site.state, &site.plain.directory).unwrap();
    assert_eq!(safety.id, outcome.safeties[0].id);
    perform(&site, &commands, site.plan(&commands, &safety, Request::default())).unwrap();
    assert_eq!(look(&site.plain.directory), before);
}

#[test]
fn units_are_started_once_and_before_the_probe() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    let to = site.snapshot();
    let units = |unit: &str| vec![format!("{unit}.service")];
    let request =
        Request { stop: units("shop"), restart: units("web"), probe: vec!["probe".into()], ..Request::default() };
    perform(&site, &commands, site.plan(&commands, &to, request)).unwrap();
    let told = ["stop -- shop.service", "start -- shop.service", "restart -- web.service"];
    let told: Vec<_> = told.iter().map(|line| format!("systemctl {line}")).chain(["probe ".to_owned()]).collect();
    assert_eq!(*commands.told.lock().unwrap(), told);
}

#[test]
fn a_probe_that_fails_takes_all_back() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands { failing: Some("curl x"), ..Commands::default() });
    fill(&site.plain.directory, false);
    let to = site.snapshot();
    fill(&site.plain.directory, true);
    let before = look(&site.plain.directory);
    let probe = vec!["curl".to_owned(), "x".to_owned()];
    let request = Request { stop: vec!["shop.service".into()], probe, ..Request::default() };
    let error = perform(&site, &commands, site.plan(&commands, &to, request)).unwrap_err();
    assert_eq!(error.to_string(), "curl x failed (exit code 1): it does not work; the directory is as it was before");
    assert_eq!(look(&site.plain.directory), before);
    assert_eq!(site.state.records().unwrap(), [to]);
    let told = commands.told.lock().unwrap();
    let verbs: Vec<_> = told.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(verbs, ["stop", "start", "x", "stop", "start"]);
}

#[test]
fn a_probe_is_tried_until_its_time_is_over() {
    let root = tempfile::tempdir().unwrap();
    let (site, ready) = (Site::at(root.path(), true), root.path().join("ready"));
    let to = site.snapshot();
    // The first try makes what the second one finds.
    let script = format!("test -e {0} || {{ touch {0}; exit 1; }}", ready.display());
    let probe = || ["bash", "-c", &script].map(str::to_owned).to_vec();
    let plan = |probe_secs| site.plan(&System, &to, Request { probe: probe(), probe_secs, ..Request::default() });
    let perform = |plan| run(&site.lock(), &[&site.plain], &System, plan, NOW, &mut |_| {});
    assert!(matches!(perform(plan(0)), Err(Error::Reverted { .. })));
    fs::remove_file(&ready).unwrap();
    perform(plan(30)).unwrap();
}

#[test]
fn units_that_do_not_stop_leave_all_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    let commands = Commands { failing: Some("systemctl stop -- shop.service"), ..Commands::default() };
    let site = Site::at(root.path(), true);
    fill(&site.plain.directory, false);
    let to = site.snapshot();
    fill(&site.plain.directory, true);
    let before = look(&site.plain.directory);
    let request = Request { stop: vec!["shop.service".into()], ..Request::default() };
    let error = perform(&site, &commands, site.plan(&commands, &to, request)).unwrap_err();
    assert!(matches!(error, Error::Reverted { also: None, .. }), "{error}");
    assert_eq!(look(&site.plain.directory), before);
}

#[test]
fn who_holds_the_old_tree_is_found_before_and_after_the_switch() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    fill(&site.plain.directory, false);
    let to = site.snapshot();
    let file = File::open(site.live("changed")).unwrap();
    let reader = Reader(Command::new("sleep").arg("60").stdin(Stdio::from(file)).spawn().unwrap());
    let plan = site.plan(&commands, &to, Request::default());
    let [holder] = &plan.parts[0].holders[..] else { panic!("{:?}", plan.parts[0].holders) };
    assert_eq!((holder.pid, holder.command.as_str()), (reader.0.id(), "sleep 60"));
    assert_eq!((holder.holds[0].by, &holder.holds[0].path), (By::Descriptor(0), &site.live("changed")));
    let outcome = perform(&site, &commands, plan).unwrap();
    assert_eq!(outcome.holders.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [reader.0.id()]);
}

#[test]
fn a_state_directory_inside_of_the_tree_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    let inside = snapshot::state::State::open(site.live("state")).unwrap();
    let site = Site { state: inside, plain: site.plain };
    let to = site.snapshot();
    let before = look(&site.plain.directory);
    let plan = site.plan(&commands, &to, Request::default());
    assert!(plan.refusals[0].message.contains("lies in the tree"), "{:?}", plan.refusals);
    assert!(matches!(perform(&site, &commands, plan), Err(Error::Refused { hint: Some(_), .. })));
    assert_eq!(look(&site.plain.directory), before);
}

#[test]
fn a_snapshot_that_somebody_removed_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    let to = site.snapshot();
    fs::remove_dir_all(site.plain.store.join(to.id.to_string())).unwrap();
    let plan = site.plan(&commands, &to, Request::default());
    assert!(plan.refusals[0].message.contains("is gone"), "{:?}", plan.refusals);
}

#[test]
fn until_a_rollback_that_was_cut_short_is_recovered_nothing_else_changes_the_directory() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    fill(&site.plain.directory, false);
    let (to, other) = (site.snapshot(), site.snapshot());
    fill(&site.plain.directory, true);
    let before = look(&site.plain.directory);
    let plan = site.plan(&commands, &to, Request::default());
    // As a kill would, this leaves everything as it is at the moment of the exchange.
    let cut_short = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run(&site.lock(), &[&site.plain], &commands, plan, NOW, &mut |act| assert_ne!(act, "keep"))
    }));
    assert!(cut_short.is_err());
    let lock = site.lock();
    let refused = [
        manage::create(&lock, &site.plain, asked(), NOW).map(drop),
        manage::delete(&lock, &site.plain, to.id).map(drop),
        run(&lock, &[&site.plain], &commands, site.plan(&commands, &other, Request::default()), NOW, &mut |_| {})
            .map(drop),
        undo::bring_back(&lock, &site.plain.directory, to.id, root.path(), &undo::Request::default(), &mut |_| {})
            .map(drop),
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        assert!(matches!(refused, Err(Error::Refused { .. })), "{number}: {refused:?}");
    }
    let plan = site.plan(&commands, &other, Request::default());
    assert!(plan.refusals[0].message.contains("is not finished"), "{:?}", plan.refusals);
    let recovered = recover(&lock, &commands, &site.open(), &mut |_| {}).unwrap();
    assert!(matches!(&recovered[..], [one] if !one.ending.as_ref().unwrap().is_finished));
    assert_eq!(look(&site.plain.directory), before);
    manage::create(&lock, &site.plain, asked(), NOW).unwrap();
}

#[test]
fn a_plan_that_no_longer_fits_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let (site, commands) = (Site::at(root.path(), true), Commands::default());
    let to = site.snapshot();
    let (first, second) =
        (site.plan(&commands, &to, Request::default()), site.plan(&commands, &to, Request::default()));
    perform(&site, &commands, first).unwrap();
    let refused = perform(&site, &commands, second).unwrap_err();
    assert!(refused.to_string().contains("has changed since this was planned"), "{refused}");
    let plan = site.plan(&commands, &to, Request::default());
    manage::delete(&site.lock(), &site.plain, to.id).unwrap();
    assert!(matches!(perform(&site, &commands, plan), Err(Error::NoSuchSnapshot(_))));
}
