//! Looking whether a repository is whole, as a job.

use std::sync::Arc;

use repository::check::{self, Options, ReadData, Report};
use repository::lock::Lock;

use super::{Context, Error, wait};
use crate::catalog::{Figures, Job, JobKind, Outcome, Verification, Way};
use crate::config;
use crate::repositories;

/// Checks a repository of the configuration; so many of a hundred bytes of the data are read too, others each time.
/// Damage is no error but in the report.
pub fn run(context: &Context<'_>, repository: &config::Repository, percent: Option<f64>) -> Result<Report, Error> {
    let name = &repository.name;
    let started = context.clock.wall();
    let begun = Job::begin(JobKind::Check, None, Some(name), started)?;
    context.recorder.note(|catalog| catalog.record_job(&begun));
    let checked = super::priority::run(repository.low_priority, || look(context, repository, percent));
    let now = context.clock.wall();
    let ended = match &checked {
        Ok(report) if report.is_clean() => begun.ended(now, Outcome::Succeeded),
        Ok(report) => {
            let first = report.errors.first().map(ToString::to_string).unwrap_or_default();
            let count = report.errors.len() as u64 + report.more_errors;
            begun.ended(now, Outcome::Failed).with_error(format!("{count} errors, the first: {first}"))
        }
        Err(error) if error.is_cancelled() => begun.ended(now, Outcome::Cancelled),
        Err(error) => begun.ended(now, Outcome::Failed).with_error(error),
    };
    if let (Ok(report), Some(percent)) = (&checked, percent) {
        let verification = Verification {
            repository: name.clone(),
            backup: None,
            at: started,
            way: Way::Data,
            percent,
            is_good: report.is_clean(),
        };
        context.recorder.note(|catalog| catalog.record_verification(&verification));
    }
    let bytes = checked.as_ref().ok().map(|report| report.figures.bytes_read);
    let ended = ended.with_figures(Figures { bytes, ..Figures::default() });
    context.recorder.note(|catalog| catalog.record_job(&ended));
    checked
}

fn look(context: &Context<'_>, repository: &config::Repository, percent: Option<f64>) -> Result<Report, Error> {
    let name = &repository.name;
    let failed = |error| Error::repository(name)(error);
    let opened = repositories::open(repository, context.world());
    let opened = opened.map_err(|source| Error::access(name, source))?;
    let seed = context.clock.wall().as_millisecond().unsigned_abs();
    let read_data = match percent {
        None => ReadData::None,
        Some(percent) if percent >= 100.0 => ReadData::All,
        Some(percent) => ReadData::Percent { percent, seed },
    };
    wait::while_locked(context, &mut || {
        let lock = Lock::acquire(&opened, false, context.holder).map_err(failed)?;
        lock.confirm().map_err(failed)?;
        let _lock = Arc::new(lock);
        let meter = context.watch.meter(&format!("checking {name}"));
        check::check(&opened, &Options { read_data }, &*meter).map_err(failed)
    })
}
