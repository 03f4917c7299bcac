//! One backup, wherever it lies: in the repository that was named, or else in those of the configuration.

use std::sync::Arc;

use anyhow::Result;
use engine::config::Config;
use engine::repositories::{self, World};
use repository::Repository;
use repository::id::Id;
use repository::lock::Lock;
use repository::record::BackupRecord;

use crate::configuration;
use crate::error::CommandError;
use crate::global::Global;
use crate::open;
use crate::output::Output;
use crate::password::Sources;
use crate::select::{self, Filter};
use crate::signals;

/// A backup, and where it lies.
pub(crate) struct Chosen {
    pub(crate) repository: Arc<Repository>,
    pub(crate) id: Id,
    pub(crate) record: BackupRecord,
    /// `None` where it is only read, and cannot be written to.
    _lock: Option<Arc<Lock>>,
}

/// The backup that a text means.
pub(crate) fn find(text: &str, filter: &Filter, global: &Global, output: &Output) -> Result<Chosen> {
    signals::watch();
    let repositories = match &global.repository {
        Some(_) => {
            let storage = open::storage(open::location(global)?)?;
            vec![Arc::new(open::open(storage, &Sources::of(global))?)]
        }
        None => of_configuration(configuration::load_if_any(global)?.unwrap_or_default(), output)?,
    };
    let mut locks = Vec::new();
    let mut all: Vec<(usize, (Id, BackupRecord))> = Vec::new();
    for (place, repository) in repositories.iter().enumerate() {
        locks.push(open::lock_for_reading(repository, global, output)?);
        all.extend(select::all(repository, output)?.into_iter().map(|record| (place, record)));
    }
    // Within one repository they are in this order already.
    all.sort_by_key(|(_, (_, record))| (record.time.secs, record.time.nanos));
    let (places, records): (Vec<usize>, Vec<(Id, BackupRecord)>) = all.into_iter().unzip();
    let (id, record) = select::find(&records, text, filter)?.clone();
    let place = places[records.iter().position(|(known, _)| *known == id).unwrap_or(0)];
    Ok(Chosen { repository: Arc::clone(&repositories[place]), id, record, _lock: locks.swap_remove(place) })
}

/// Those that can be opened. One that cannot be is no reason not to look at the others, unless it is the only one.
fn of_configuration(config: Config, output: &Output) -> Result<Vec<Arc<Repository>>> {
    let variable = |name: &str| std::env::var_os(name);
    let is_cancelled: repository::storage::limited::IsCancelled = Arc::new(signals::is_cancelled);
    let world = World { variable: &variable, is_cancelled: &is_cancelled };
    let mut opened = Vec::new();
    let mut failed = None;
    for repository in config.repositories.values() {
        match repositories::open(repository, world) {
            Ok(repository) => opened.push(repository),
            Err(error) => {
                if let Some((name, error)) = failed.replace((&repository.name, error)) {
                    output.warning(format_args!("repository {name} cannot be looked at: {error}"));
                }
            }
        }
    }
    match failed {
        Some((_, error)) if opened.is_empty() => return Err(error.into()),
        Some((name, error)) => output.warning(format_args!("repository {name} cannot be looked at: {error}")),
        None if opened.is_empty() => {
            let error = CommandError::usage("no repository is named, and the configuration has none");
            return Err(error.hint("give -r DIRECTORY, or set SNAPBACK_REPOSITORY").into());
        }
        None => {}
    }
    Ok(opened)
}
