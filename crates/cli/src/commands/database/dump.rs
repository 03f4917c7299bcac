//! `snapback database dump`

use std::io::{self, BufWriter, IsTerminal as _, Read, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use workload::dump::{self, Format, Part};

use super::configured;
use crate::configuration;
use crate::error::CommandError;
use crate::global::Global;
use crate::output::Output;

/// Write a dump to standard output, made now or from a backup.
#[derive(Args, Debug)]
#[command(after_help = "\
  snapback database dump orders > orders.pgdump
  snapback database dump orders --from latest | pg_restore --list
It ends with an error unless the dump is whole.")]
pub(crate) struct Command {
    /// Which, as the configuration calls it; PROJECT/NAME where several projects have one of the name
    #[arg(value_name = "NAME")]
    name: String,

    /// The dump that this backup has, instead of one made now
    #[arg(long, value_name = "BACKUP")]
    from: Option<String>,

    /// Which file of it, where there are several: those of a server with `all`
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
}

pub(crate) fn run(command: &Command, global: &Global, output: &Output) -> Result<ExitCode> {
    if let Some(backup) = &command.from {
        let (_chosen, dumps) = super::dumps(backup, global, output)?;
        let database = dumps.database(&command.name)?;
        let part = command.part(&dumps.parts(database)?)?;
        return write(&part, &mut dumps.open(database, &part)?);
    }
    let config = configuration::load(global)?;
    let (_, database) = configured(&config, &command.name)?;
    let contents = dump::contents(&database.login, database.all)?;
    let part = command.part(&contents.parts)?;
    output.detail(format_args!("{} by {}", contents.server, contents.tool));
    write(&part, &mut dump::open(&database.login, &part)?)
}

impl Command {
    fn part(&self, parts: &[Part]) -> Result<Part> {
        let files = || parts.iter().map(|part| part.file.as_str()).collect::<Vec<_>>().join(", ");
        match (&self.file, parts) {
            (None, [one]) => Ok(one.clone()),
            (None, _) => {
                let error = CommandError::usage(format!("the dump of {} has several files", self.name));
                Err(error.hint(format!("--file with one of {}", files())).into())
            }
            (Some(file), _) => parts.iter().find(|part| part.file == *file).cloned().ok_or_else(|| {
                let error = CommandError::usage(format!("the dump of {} has no file {file:?}", self.name));
                error.hint(files()).into()
            }),
        }
    }
}

fn write(part: &Part, dump: &mut dyn Read) -> Result<ExitCode> {
    let is_text = matches!(part.format, Format::PgSql | Format::MysqlSql);
    if !is_text && io::stdout().is_terminal() {
        let error = CommandError::usage(format!("{} is nothing for a terminal", part.file));
        return Err(error.hint(format!("append `> {}`", part.file)).into());
    }
    let mut stdout = BufWriter::with_capacity(1 << 20, io::stdout().lock());
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match dump.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Not to be taken for one of standard output, which whoever has seen enough closes.
            Err(error) => {
                let reason = error.to_string();
                return Err(CommandError::new(reason).into());
            }
        };
        stdout.write_all(&buffer[..read])?;
    }
    stdout.flush().context("cannot write the dump")?;
    Ok(ExitCode::SUCCESS)
}
