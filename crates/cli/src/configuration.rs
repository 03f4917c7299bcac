//! The configuration file, and projects by name wherever a command takes a directory.

use std::path::{Path, PathBuf};

use anyhow::Result;
use engine::config::{Config, ConfigError, Project};
use engine::nearest::nearest;

use crate::error::CommandError;
use crate::global::Global;
use crate::output::Output;

/// `--config`; else where the system keeps such things, for all or for the user.
pub(crate) fn path(global: &Global) -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = match &global.config {
        Some(given) if given.as_os_str().is_empty() => {
            let error = CommandError::usage("the configuration file's name is empty");
            return Err(error.hint("give --config FILE, or unset SNAPBACK_CONFIG").into());
        }
        Some(given) => return Ok(std::path::absolute(given)?),
        None if rustix::process::geteuid().is_root() => Some(PathBuf::from("/etc/snapback")),
        None => absolute("XDG_CONFIG_HOME")
            .or_else(|| Some(absolute("HOME")?.join(".config")))
            .map(|configurations| configurations.join("snapback")),
    };
    let error = || CommandError::usage("HOME is not set").hint("give --config, or set SNAPBACK_CONFIG");
    Ok(directory.ok_or_else(error)?.join("snapback.toml"))
}

/// What `~/` stands for.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The configuration; that there is none is an error.
pub(crate) fn load(global: &Global) -> Result<Config> {
    Ok(Config::load(&path(global)?, home().as_deref())?)
}

/// The configuration, if there is a file. One that was named must be there.
pub(crate) fn load_if_any(global: &Global) -> Result<Option<Config>> {
    match load(global) {
        Ok(config) => Ok(Some(config)),
        Err(error) => match error.downcast_ref::<ConfigError>() {
            Some(ConfigError::Missing { .. }) if global.config.is_none() => Ok(None),
            _ => Err(error),
        },
    }
}

/// A project by its name.
pub(crate) fn project<'c>(config: &'c Config, name: &str) -> Result<&'c Project> {
    if let Some(project) = config.projects.get(name) {
        return Ok(project);
    }
    let error = CommandError::usage(format!("there is no project {name:?} in {}", config.path.display()));
    let hint = match nearest(name, config.projects.keys().map(String::as_str)) {
        Some(near) => near.to_owned(),
        None if config.projects.is_empty() => "snapback protect DIR makes one".to_owned(),
        None => config.projects.keys().cloned().collect::<Vec<_>>().join(", "),
    };
    Err(error.hint(hint).into())
}

/// The project to which a directory belongs; a configuration that cannot be read is none, and is told of.
pub(crate) fn project_of(directory: &Path, global: &Global, output: &Output) -> Option<Project> {
    let config = match load_if_any(global) {
        Ok(config) => config?,
        Err(error) => {
            output.warning(format_args!("no project is known: {error:#}"));
            return None;
        }
    };
    let same = |path: &PathBuf| path == directory || path.canonicalize().is_ok_and(|path| path == directory);
    config.projects.into_values().find(|project| project.paths.iter().any(same))
}

/// What somebody named where a command takes a directory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    /// As it was given.
    Directory(PathBuf),
    /// Of the configuration.
    Project(Box<Project>),
}

impl Target {
    /// A word without a slash is a project, if there is one of the name; whatever else is a directory. With a slash it
    /// is a directory, and the configuration is not looked at: a mistake in it stops nothing that does not need it.
    pub(crate) fn find(text: &Path, global: &Global) -> Result<Target> {
        let name = text.to_str().filter(|text| !text.contains('/') && !["", ".", ".."].contains(text));
        let Some(name) = name else { return Ok(Target::Directory(text.to_owned())) };
        let config = match load_if_any(global) {
            Ok(config) => config.unwrap_or_default(),
            // It is certain what is meant.
            Err(_) if text.is_dir() => return Ok(Target::Directory(text.to_owned())),
            Err(error) => return Err(error),
        };
        if !config.projects.contains_key(name) && (text.exists() || config.projects.is_empty()) {
            return Ok(Target::Directory(text.to_owned()));
        }
        Ok(Target::Project(Box::new(project(&config, name)?.clone())))
    }

    /// The directories that are meant.
    pub(crate) fn directories(&self) -> &[PathBuf] {
        match self {
            Target::Directory(directory) => std::slice::from_ref(directory),
            Target::Project(project) => &project.paths,
        }
    }

    /// The project, if one is meant.
    pub(crate) fn project(&self) -> Option<&Project> {
        match self {
            Target::Directory(_) => None,
            Target::Project(project) => Some(project),
        }
    }
}
