//! Dumps by pg_dump and pg_dumpall.
use crate::address::{Login, Server};
use crate::dump::{Contents, Dump, Part};
use crate::error::Error;

pub(crate) fn contents(_login: &Login, _server: &Server, _all: bool) -> Result<Contents, Error> {
    Err(Error::Refused("not yet".to_owned()))
}

pub(crate) fn open(_login: &Login, _server: &Server, _part: &Part) -> Result<Box<dyn Dump>, Error> {
    Err(Error::Refused("not yet".to_owned()))
}
