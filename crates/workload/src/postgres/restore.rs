//! Dumps brought back by pg_restore.
use std::io::Read;

use crate::address::{Login, Server};
use crate::dump::Part;
use crate::error::Error;
use crate::restore::{Options, Restored};

pub(crate) fn restore(
    _login: &Login,
    _server: &Server,
    _part: &Part,
    _dump: &mut dyn Read,
    _options: &Options,
) -> Result<Restored, Error> {
    Err(Error::Refused("not yet".to_owned()))
}
