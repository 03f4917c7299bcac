//! Where the facts are found.

use std::sync::Arc;

use jiff::tz::TimeZone;
use snapshot::provider::Open;
use snapshot::runner::Runner;
use snapshot::state::State;

use crate::catalog::Catalog;
use crate::config::Config;
use crate::guard::document::Guard;
use crate::moment::Moment;
use crate::place::System;

/// Where to look.
pub struct Sources<'a> {
    /// What is protected, and how.
    pub config: &'a Config,
    /// The state directory.
    pub state: &'a State,
    /// What was done; `None` if it cannot be read.
    pub catalog: Option<&'a Catalog>,
    /// This machine.
    pub system: &'a System,
    /// The guards that there are.
    pub guards: &'a [Guard],
    /// How the mechanism of a snapshot is found again.
    pub open: &'a Open<'a>,
    /// For the mechanisms' own commands.
    pub runner: Arc<dyn Runner>,
    /// This machine's name, as the daemon knows it.
    pub host: &'a str,
    /// By whose clocks the plans go.
    pub zone: TimeZone,
    /// Now.
    pub now: Moment,
}
