//! Jobs of projects from the command line: what they need of the world, and what they say.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use engine::catalog::{self, Recorder};
use engine::job::{Context, Meter as JobMeter, Watch};
use repository::holder::Holder;
use snapshot::error::Error;
use snapshot::state::Lock;

use crate::clock::SystemClock;
use crate::global::Global;
use crate::open;
use crate::output::Output;
use crate::progress_bar::Meter;
use crate::signals;
use crate::snapshots::Session;

/// Others are in the way for moments: a prune gives way to a backup.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a command does with a job's context.
pub(crate) fn with_context<T>(
    global: &Global,
    output: &Output,
    looks_at_everything: bool,
    act: impl FnOnce(&Context<'_>) -> Result<T>,
) -> Result<T> {
    // From here on a signal asks for an end, and what was begun is tidied up.
    signals::watch();
    let session = Session::open(global, output)?;
    let lock_snapshots = || lock(&session);
    let holder: Holder = open::holder();
    let path = session.state.root().join(catalog::FILE_NAME);
    let recorder = Recorder::open(&path, session.now, |text| output.warning(text));
    let watch = Told { output };
    act(&Context {
        state: &session.state,
        lock_snapshots: &lock_snapshots,
        holder: &holder,
        program: concat!("snapback ", env!("CARGO_PKG_VERSION")),
        zone: jiff::tz::TimeZone::system(),
        clock: &SystemClock,
        variable: &|name| std::env::var_os(name),
        is_cancelled: Arc::new(signals::is_cancelled),
        patience: global.wait_lock.max(PATIENCE),
        looks_at_everything,
        watch: &watch,
        recorder: &recorder,
    })
}

/// The lock, with what was cut short finished or taken back.
fn lock(session: &Session<'_>) -> Result<Lock, Error> {
    session.lock().map_err(|error| match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::refused(error.to_string()),
    })
}

/// Shows what jobs say.
struct Told<'a> {
    output: &'a Output,
}

impl Watch for Told<'_> {
    fn meter<'m>(&'m self, label: &str) -> Box<dyn JobMeter + 'm> {
        Box::new(Meter::start(self.output, label))
    }

    fn say(&self, text: &str) {
        self.output.message(text);
    }

    fn warn(&self, text: &str) {
        self.output.warning(text);
    }
}
