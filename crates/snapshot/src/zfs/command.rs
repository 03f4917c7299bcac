//! The command `zfs`, and what its errors mean.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use crate::error::Error;
use crate::runner::{self, Runner};

/// Runs `zfs`.
#[derive(Clone)]
pub(super) struct Command {
    runner: Arc<dyn Runner>,
}

/// What `zfs get -Hp -o name,property,value,source` answers: value and source of each property of each object.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    values: HashMap<(String, String), (String, String)>,
    /// The objects, in the order of the answer.
    pub(super) names: Vec<String>,
}

impl Answers {
    /// A property's value; `None` where it has none.
    pub(super) fn value(&self, name: &str, property: &str) -> Option<&str> {
        let (value, _) = self.values.get(&(name.to_owned(), property.to_owned()))?;
        (value != "-").then_some(value.as_str())
    }

    /// A value that was set on the object itself.
    pub(super) fn own_value(&self, name: &str, property: &str) -> Option<&str> {
        let (_, source) = self.values.get(&(name.to_owned(), property.to_owned()))?;
        self.value(name, property).filter(|_| source == "local" || source == "received")
    }

    /// All values that were set on the object itself.
    pub(super) fn own_values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let properties = self.values.keys().filter(move |(of, _)| of == name);
        properties.filter_map(move |(_, property)| Some((property.as_str(), self.own_value(name, property)?)))
    }
}

impl Command {
    pub(super) fn new(runner: Arc<dyn Runner>) -> Command {
        Command { runner }
    }

    /// Runs `zfs` with arguments.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        self.run_other("zfs", arguments)
    }

    /// Runs `zfs` on a dataset that was unmounted just now: zfs-fuse has it in use for another moment.
    pub(super) fn run_when_free(&self, arguments: &[&str]) -> Result<(), Error> {
        for pause_ms in [10, 40, 160, 640] {
            match self.run(arguments) {
                Err(Error::Refused { .. }) => sleep(Duration::from_millis(pause_ms)),
                ended => return ended.map(drop),
            }
        }
        self.run(arguments).map(drop)
    }

    /// Runs a command of the same trade: `mount`, `umount`.
    pub(super) fn run_other(&self, program: &str, arguments: &[&str]) -> Result<String, Error> {
        runner::run(&*self.runner, program, arguments).map_err(|error| explain(error, arguments))
    }

    /// One property of one object.
    pub(super) fn property(&self, property: &str, name: &str) -> Result<String, Error> {
        let answer = self.run(&["get", "-Hp", "-o", "value", property, name])?;
        Ok(answer.trim_end_matches('\n').to_owned())
    }

    /// Properties of objects. `options` is as for zfs-get(8).
    pub(super) fn get(&self, options: &[&str], properties: &str, names: &[&str]) -> Result<Answers, Error> {
        let mut arguments = vec!["get", "-Hp", "-o", "name,property,value,source"];
        arguments.extend_from_slice(options);
        arguments.push(properties);
        arguments.extend_from_slice(names);
        let mut answers = Answers::default();
        for line in self.run(&arguments)?.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            let [name, property, value, source] = fields[..] else {
                let reason = format!("not name, property, value and source: {line:?}");
                return Err(Error::Answer { command: format!("zfs {}", arguments.join(" ")), reason });
            };
            if answers.names.last().is_none_or(|last| last != name) {
                answers.names.push(name.to_owned());
            }
            let (key, value) = ((name.to_owned(), property.to_owned()), (value.to_owned(), source.to_owned()));
            answers.values.insert(key, value);
        }
        Ok(answers)
    }

    /// Names of datasets, and whether they are mounted, as `zfs list` with more arguments lists them.
    pub(super) fn datasets(&self, arguments: &[&str]) -> Result<Vec<(String, bool)>, Error> {
        let all = [&["list", "-H", "-o", "name,mounted", "-t", "filesystem,volume"], arguments].concat();
        let listed = self.run(&all)?;
        let fields = listed.lines().map(|line| line.split_once('\t').unwrap_or((line, "-")));
        Ok(fields.map(|(name, mounted)| (name.to_owned(), mounted == "yes")).collect())
    }

    /// Which of a dataset and those below it are mounted; none, if it does not exist.
    pub(super) fn mounted(&self, dataset: &str) -> Result<Vec<String>, Error> {
        let all = match self.datasets(&["-r", dataset]) {
            Err(Error::Command { output, .. }) if output.contains("does not exist") => return Ok(Vec::new()),
            all => all?,
        };
        Ok(all.into_iter().filter(|(_, is_mounted)| *is_mounted).map(|(name, _)| name).collect())
    }

    /// Sets a property. One at a time, as only OpenZFS takes several.
    pub(super) fn set(&self, property: &str, value: &str, name: &str) -> Result<(), Error> {
        self.run(&["set", &format!("{property}={value}"), name]).map(drop)
    }
}

/// Turns what `zfs` says into what it means.
fn explain(error: Error, arguments: &[&str]) -> Error {
    let output = match &error {
        Error::Command { output, .. } => output.to_lowercase(),
        Error::Refused { hint: None, .. } => return error.or("install it: Debian's package is zfsutils-linux"),
        _ => return error,
    };
    let of = arguments.last().copied().unwrap_or_default();
    if output.contains("permission denied") || output.contains("must be root") {
        let action = format!("run zfs {}", arguments.join(" "));
        let hint = "run as root, or let an administrator delegate it with: zfs allow";
        return Error::Privilege { action, capability: "CAP_SYS_ADMIN", hint: Some(hint.to_owned()) };
    }
    if output.contains("busy") {
        return Error::refused(format!("{of} is in use")).or("stop what uses it: fuser -vm shows who does");
    }
    if output.contains("out of space") || output.contains("no space left") || output.contains("quota exceeded") {
        let message = format!("the pool of {of} is full: zfs {}", arguments.join(" "));
        return Error::refused(message).or("delete snapshots, or add a device to the pool");
    }
    error
}
