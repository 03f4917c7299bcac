//! Whether the parts of a configuration fit each other.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use backup::patterns::Patterns;

use super::section::Source;
use super::value::Wrong;
use super::{Config, Project, SnapshotOptions};
use crate::nearest::nearest;

/// Where in the file the names stand that refer to something else.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// Repository, and where its URL stands.
    pub(crate) urls: Vec<(String, Range<usize>)>,
    /// Names of repositories in plans.
    pub(crate) to: Vec<(String, Range<usize>)>,
    /// Names of plans in projects.
    pub(crate) plans: Vec<(String, Range<usize>)>,
    /// Project, path.
    pub(crate) paths: Vec<(String, PathBuf, Range<usize>)>,
    /// Project, database, and where its URL stands.
    pub(crate) databases: Vec<(String, String, Range<usize>)>,
    /// Projects by name.
    pub(crate) projects: BTreeMap<String, Range<usize>>,
    /// Plans by name.
    pub(crate) plan_names: BTreeMap<String, Range<usize>>,
    /// Of plans by name.
    pub(crate) backups: BTreeMap<String, Range<usize>>,
    /// Of plans by name.
    pub(crate) keeps: BTreeMap<String, Range<usize>>,
    /// Of plans by name.
    pub(crate) checks: BTreeMap<String, Range<usize>>,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self { expire: std::time::Duration::from_secs(4 * 3600), keep_base: true }
    }
}

/// Notes all that does not.
pub(crate) fn check(config: &Config, places: &Places, source: &Source<'_>) {
    names(config, places, source);
    plans(config, places, source);
    paths(places, source);
    projects(config, places, source);
    databases(config, places, source);
    repositories(config, places, source);
}

fn names(config: &Config, places: &Places, source: &Source<'_>) {
    for (name, span) in &places.to {
        if !config.repositories.contains_key(name) {
            let fix = instead("repository", name, &config.repositories);
            source.wrong(span, Wrong::new(format!("there is no repository {name:?}"), fix));
        }
    }
    for (name, span) in &places.plans {
        if !config.plans.contains_key(name) {
            let fix = instead("plan", name, &config.plans);
            source.wrong(span, Wrong::new(format!("there is no plan {name:?}"), fix));
        }
    }
}

fn plans(config: &Config, places: &Places, source: &Source<'_>) {
    for (name, plan) in &config.plans {
        let Some(span) = places.plan_names.get(name) else { continue };
        if plan.backup.is_none() && plan.snapshot.is_none() && plan.check.is_none() {
            let fix = "add backup = { at = \"02:30\", to = [...] }, or snapshot = { every = \"4h\", keep = \"24h\" }";
            source.warn(span, Wrong::new(format!("the plan {name} does nothing"), fix));
        } else if plan.backup.is_none() {
            for (what, place) in [("check", places.checks.get(name)), ("keep", places.keeps.get(name))] {
                if let Some(place) = place {
                    let message = format!("{what} of the plan {name} concerns its backups, and it makes none");
                    source.wrong(place, Wrong::new(message, "add backup = { at = \"02:30\", to = [...] }"));
                }
            }
        }
        if !config.projects.values().any(|project| project.plans.contains(name)) {
            let fix = format!("add plans = [{name:?}] to a project");
            source.warn(span, Wrong::new(format!("no project has the plan {name}"), fix));
        }
    }
}

/// A path in two projects would be rolled back by one behind the back of the other.
fn paths(places: &Places, source: &Source<'_>) {
    for (number, (project, path, span)) in places.paths.iter().enumerate() {
        let before = &places.paths[..number];
        let Some((other, ..)) = before.iter().find(|(_, earlier, _)| earlier == path) else { continue };
        let path = path.display();
        let wrong = match other == project {
            true => Wrong::new(format!("{path} is twice in the project {project}"), "leave one of them out"),
            false => Wrong::new(
                format!("{path} belongs to the projects {other} and {project}"),
                format!("leave it in one of them; several plans can be in one project: plans = [...] of {other}"),
            ),
        };
        source.wrong(span, wrong);
    }
}

fn projects(config: &Config, places: &Places, source: &Source<'_>) {
    for (name, project) in &config.projects {
        let Some(span) = places.projects.get(name) else { continue };
        if project.plans.is_empty() {
            let message = format!("the project {name} has no plan: nothing is done by the clock");
            source.warn(span, Wrong::new(message, "add plans = [\"...\"]"));
        }
        let leaves_out = |path: &str| excludes(project, Path::new(path));
        if project.paths.iter().any(|path| path == Path::new("/"))
            && !project.one_file_system
            && !["/proc", "/sys"].into_iter().all(leaves_out)
        {
            let message = format!("the project {name} takes in /proc and /sys, which are no files");
            source.warn(span, Wrong::new(message, "add one-file-system = true"));
        }
    }
}

/// Every dump of one database costs its whole time once more.
fn databases(config: &Config, places: &Places, source: &Source<'_>) {
    let dumped =
        |project: &str, name: &str| config.projects.get(project)?.databases.get(name).filter(|database| database.dump);
    for (number, (project, name, span)) in places.databases.iter().enumerate() {
        let Some(database) = dumped(project, name) else { continue };
        let is_same = |(within, other, _): &&(String, String, Range<usize>)| {
            within == project
                && dumped(within, other).is_some_and(|other| other.login.address == database.login.address)
        };
        if let Some((_, other, _)) = places.databases[..number].iter().find(is_same) {
            let message = format!("the databases {other} and {name} of the project {project} are the same");
            source.warn(span, Wrong::new(message, "leave one of them out, or add dump = false to it"));
        }
    }
}

/// Whether a pattern of the project covers the path.
fn excludes(project: &Project, path: &Path) -> bool {
    // Patterns that cannot be used have been told of.
    Patterns::new(project.exclude.iter().map(String::as_str)).is_ok_and(|patterns| patterns.matches(path, true))
}

fn repositories(config: &Config, places: &Places, source: &Source<'_>) {
    for (number, (name, span)) in places.urls.iter().enumerate() {
        let Some(repository) = config.repositories.get(name) else { continue };
        let url = |name: &String| config.repositories.get(name).map(|other| other.url.as_str());
        let same = |(other, _): &&(String, Range<usize>)| url(other) == Some(&repository.url);
        if let Some((other, _)) = places.urls[..number].iter().find(same).filter(|_| !repository.url.is_empty()) {
            let message = format!("the repositories {other} and {name} are the same");
            source.wrong(span, Wrong::new(message, format!("leave {name} out, or write another url")));
        }
        let path = Path::new(&repository.url);
        for (project, around) in &config.projects {
            if repository.url.is_empty() || !around.paths.iter().any(|directory| path.starts_with(directory)) {
                continue;
            }
            let message = format!("the repository {name} lies in the project {project}, and is lost with it");
            source.warn(span, Wrong::new(message, "choose a place outside, best on another disk"));
        }
    }
}

/// The name that was probably meant, or all there are, or what to add.
fn instead(kind: &str, name: &str, known: &BTreeMap<String, impl Sized>) -> String {
    match nearest(name, known.keys().map(String::as_str)) {
        Some(near) => format!("write {near:?}"),
        None if known.is_empty() => format!("add [{kind}.{name}]"),
        None => {
            format!("add [{kind}.{name}], or write one of {}", known.keys().cloned().collect::<Vec<_>>().join(", "))
        }
    }
}
