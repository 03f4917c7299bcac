//! The repositories of the configuration, to be opened when they are looked at.

use std::sync::Arc;

use engine::catalog::Source;
use engine::config::{Config, Repository};
use engine::repositories::{self, World};

use crate::signals;

/// The repositories, by name; none without a configuration.
pub(crate) struct Repositories<'a> {
    repositories: Vec<&'a Repository>,
}

impl<'a> Repositories<'a> {
    pub(crate) fn of(configuration: Option<&'a Config>) -> Self {
        Repositories { repositories: configuration.iter().flat_map(|config| config.repositories.values()).collect() }
    }

    /// Lends all of them.
    pub(crate) fn with_sources<T>(&self, act: impl FnOnce(&[Source<'_>]) -> T) -> T {
        let variable = |name: &str| std::env::var_os(name);
        let is_cancelled: repository::storage::limited::IsCancelled = Arc::new(signals::is_cancelled);
        let world = World { variable: &variable, is_cancelled: &is_cancelled };
        let opens: Vec<_> = self
            .repositories
            .iter()
            .map(|repository| {
                let repository = *repository;
                move || repositories::open(repository, world).map_err(|error| error.to_string())
            })
            .collect();
        let sources: Vec<Source<'_>> = self
            .repositories
            .iter()
            .zip(&opens)
            .map(|(repository, open)| Source { name: &repository.name, url: &repository.url, open })
            .collect();
        act(&sources)
    }
}
