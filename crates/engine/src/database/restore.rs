//! Bringing a database back from a backup: planned, shown, and then done as planned.
//!
//! Invariant: the present database goes on until the restored one is whole, and is kept under another name then. Files are
//! restored one after the other, the server's own first; the first that fails ends it, and says what was done before it.

use jiff::Timestamp;
use serde::Serialize;
use workload::address::Login;
use workload::dump::Part;
use workload::restore::{self, Options, Restored};

use super::Error;
use super::dumps::Dumps;
use crate::catalog::{Job, JobKind, Outcome};
use crate::job::Context;
use crate::manifest::DumpedDatabase;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which database of the backup.
    pub name: String,
    /// Onto which server.
    pub target: Login,
    /// Under another name, beside what there is.
    pub new_name: Option<String>,
    /// Only these tables; all if empty.
    pub tables: Vec<String>,
    /// Only this file of the dump.
    pub file: Option<String>,
    /// Replace a file of SQLite although programs have it open.
    pub even_if_open: bool,
}

/// What will be done.
pub struct Plan<'a> {
    dumps: &'a Dumps,
    /// Which database, as the backup knows it.
    pub database: &'a DumpedDatabase,
    /// The files, in this order.
    pub steps: Vec<Step>,
    request: Request,
    options: Options,
}

/// One file of a dump, and where it goes.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The file.
    #[serde(flatten)]
    pub part: Part,
    /// How long it is.
    pub bytes: u64,
    /// The database that will have the content; `None` for what belongs to the server, such as roles.
    pub into: Option<String>,
    /// Whether what is there under that name now is set aside, and kept.
    pub replaces: bool,
}

/// Plans.
///
/// # Errors
/// [`Error::Refused`] if the backup lacks what is asked for, or it makes no sense.
pub fn plan<'a>(dumps: &'a Dumps, request: Request, now: Timestamp) -> Result<Plan<'a>, Error> {
    let database = dumps.database(&request.name)?;
    let parts = dumps.parts(database)?;
    let parts = match &request.file {
        None => parts,
        Some(file) => {
            let names = parts.iter().map(|part| part.file.as_str()).collect::<Vec<_>>().join(", ");
            let one: Vec<Part> = parts.into_iter().filter(|part| part.file == *file).collect();
            if one.is_empty() {
                return Err(Error::refused(format!("the dump of {} has no file {file:?}", request.name)).or(names));
            }
            one
        }
    };
    let of_databases = parts.iter().filter(|part| part.database.is_some()).count();
    if (request.new_name.is_some() || !request.tables.is_empty()) && of_databases != 1 {
        let files = parts.iter().map(|part| part.file.as_str()).collect::<Vec<_>>().join(", ");
        let message = format!("the dump of {} has {of_databases} databases, and one is to be named", request.name);
        return Err(Error::refused(message).or(format!("--file with one of {files}")));
    }
    if !request.tables.is_empty() && request.new_name.is_none() {
        return Err(Error::refused("single tables come into a database of their own, from which you copy them")
            .or("give it a name: --as NEWNAME"));
    }
    let named = request.target.address.database().map(str::to_owned).filter(|_| of_databases == 1);
    let step = |part: Part| {
        let bytes = database.parts.iter().find(|known| known.part == part).and_then(|known| known.bytes).unwrap_or(0);
        let own = part.database.clone();
        let into = own.map(|own| request.new_name.clone().or_else(|| named.clone()).unwrap_or(own));
        Step { bytes, replaces: into.is_some() && request.new_name.is_none(), into, part }
    };
    let steps = parts.into_iter().map(step).collect();
    let options = Options {
        name: request.new_name.clone(),
        tables: request.tables.clone(),
        even_if_open: request.even_if_open,
        mark: now.strftime("%Y%m%dT%H%M%S").to_string(),
    };
    Ok(Plan { dumps, database, steps, request, options })
}

/// What was done.
#[derive(Debug)]
pub struct Done {
    /// Of each file that was restored.
    pub restored: Vec<(Step, Restored)>,
    /// What ended it before its time.
    pub failed: Option<(Step, Error)>,
}

impl Plan<'_> {
    /// Onto which server.
    pub fn target(&self) -> &Login {
        &self.request.target
    }

    /// Does it.
    ///
    /// # Errors
    /// If nothing could be begun. What fails later is in [`Done::failed`].
    pub fn perform(self, context: &Context<'_>) -> Result<Done, Error> {
        let job = Job::begin(JobKind::Restore, self.dumps.project(), None, context.clock.wall())?;
        let mut done = Done { restored: Vec::new(), failed: None };
        for step in &self.steps {
            match self.one(step) {
                Ok(restored) => done.restored.push((step.clone(), restored)),
                Err(error) => {
                    done.failed = Some((step.clone(), error));
                    break;
                }
            }
        }
        let now = context.clock.wall();
        let ended = match &done.failed {
            None => job.ended(now, Outcome::Succeeded),
            Some((_, error)) => job.ended(now, Outcome::Failed).with_error(error),
        };
        let ended = ended.with_point(self.dumps.backup());
        context.recorder.note(|catalog| catalog.record_job(&ended));
        Ok(done)
    }

    fn one(&self, step: &Step) -> Result<Restored, Error> {
        let mut dump = self.dumps.open(self.database, &step.part)?;
        Ok(restore::restore(&self.request.target, &step.part, &mut dump, &self.options)?)
    }
}
