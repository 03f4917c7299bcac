//! When and what to keep, and what will be, as pure functions of the points in time that exist and of now.
//!
//! The invariant: nothing here does I/O or asks for the time, so the plan that is shown is the plan that is executed,
//! and every decision can be tested for any moment. It does not know what a point in time consists of, where it lies,
//! or how it is deleted.

mod forecast;
mod group;
mod retention;
pub mod schedule;
mod span;

pub use forecast::{Forecast, Sample, forecast};
pub use group::{GroupBy, GroupByError, GroupKey};
pub use retention::{Count, CountError, Decision, Keep, Period, Reason, RestorePoint, decide};
pub use span::{Span, SpanError};
