//! What goes wrong, as the user sees it: what happened, to what, and the way out; and the exit code for scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use engine::config::ConfigError;
use engine::database;
use engine::job;
use engine::protect::ProtectError;
use engine::repositories::AccessError;
use repository::storage::StorageError;

use crate::output::Output;
use crate::signals;

/// Exit codes, which scripts rely on. 2 is wrong usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Nothing else fits.
    Failed = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// A backup was made, but without some of the files.
    Incomplete = 3,
    /// There is no repository.
    NoRepository = 10,
    /// Somebody else works with it.
    Locked = 11,
    /// No key opens with the password.
    WrongPassword = 12,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code as u8)
    }
}

/// An error that the command line itself finds, with the way out.
#[derive(Debug)]
pub(crate) struct CommandError {
    message: String,
    hint: Option<String>,
    code: Code,
}

impl CommandError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        CommandError { message: message.into(), hint: None, code: Code::Failed }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        CommandError { code: Code::Usage, ..CommandError::new(message) }
    }

    /// What to try.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        CommandError { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CommandError {}

/// Tells the user, and gives the code to end with.
pub(crate) fn report(error: &anyhow::Error, output: &Output) -> ExitCode {
    ExitCode::from(tell(error, output))
}

/// As [`report`], for whoever goes on with something else.
pub(crate) fn tell(error: &anyhow::Error, output: &Output) -> u8 {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    if error.downcast_ref::<io::Error>().is_some_and(is_broken_pipe) {
        // Whoever read our output (`head`) has seen enough.
        return 0;
    }
    let (code, hint) = verdict(error);
    // What was done until then is worth knowing only where somebody waits for it.
    output.error(&describe(error), hint.as_deref(), code);
    code
}

/// What happened, and what to try, for a log.
pub(crate) fn in_one_line(error: &anyhow::Error) -> String {
    match verdict(error) {
        (_, Some(hint)) => format!("{} (try: {hint})", describe(error)),
        (_, None) => describe(error),
    }
}

/// The exit code, and the way out.
fn verdict(error: &anyhow::Error) -> (u8, Option<String>) {
    let mut code = Code::Failed as u8;
    let mut hint = None;
    for cause in error.chain() {
        if let Some(own) = cause.downcast_ref::<CommandError>() {
            (code, hint) = (own.code as u8, own.hint.clone());
            break;
        }
        if let Some(cause) = cause.downcast_ref::<repository::Error>() {
            (code, hint) = judge(cause);
            break;
        }
        if let Some(cause) = cause.downcast_ref::<AccessError>() {
            match cause {
                AccessError::Repository(cause) => (code, hint) = judge(cause),
                cause => hint = cause.hint(),
            }
            break;
        }
        if let Some(cause) = cause.downcast_ref::<engine::catalog::Error>() {
            hint = cause.hint();
            break;
        }
        if let Some(cause) = cause.downcast_ref::<database::Error>() {
            match cause {
                database::Error::Repository(cause) => (code, hint) = judge(cause),
                database::Error::Snapshot(cause) => hint = way_out(cause),
                cause => hint = cause.hint(),
            }
            break;
        }
        if let Some(cause) = cause.downcast_ref::<ConfigError>() {
            (code, hint) = (Code::Usage as u8, cause.fix().map(str::to_owned));
            break;
        }
        if let Some(cause) = cause.downcast_ref::<ProtectError>() {
            match cause {
                ProtectError::Config(cause) => (code, hint) = (Code::Usage as u8, cause.fix().map(str::to_owned)),
                ProtectError::Refused { fix, .. } => (code, hint) = (Code::Usage as u8, Some(fix.clone())),
                ProtectError::Access(AccessError::Repository(cause)) => (code, hint) = judge(cause),
                ProtectError::Access(cause) => hint = cause.hint(),
                // What the repository or the system said comes next in the chain.
                _ => continue,
            }
            break;
        }
        if let Some(cause) = cause.downcast_ref::<snapshot::error::Error>() {
            hint = way_out(cause);
            break;
        }
        match cause.downcast_ref::<job::Error>() {
            Some(job::Error::Snapshot(cause)) => hint = way_out(cause),
            // What the repository said comes next in the chain.
            None | Some(job::Error::Repository { .. }) => continue,
            Some(cause) => {
                code = if matches!(cause, job::Error::Busy { .. }) { Code::Locked as u8 } else { code };
                hint = cause.hint();
            }
        }
        break;
    }
    (code, hint)
}

/// The whole chain of causes in one sentence, without saying the same twice.
fn describe(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Of an error of the repository.
fn judge(error: &repository::Error) -> (u8, Option<String>) {
    use repository::Error;
    let (code, hint) = match error {
        Error::NoRepository(location) => (
            Code::NoRepository,
            format!("`snapback repo init -r {location}` makes one; or is the disk not mounted, or -r misspelt?"),
        ),
        Error::AlreadyARepository(_) => (Code::Failed, "use it as it is, or choose another place".to_owned()),
        Error::WrongPassword(_) => (
            Code::WrongPassword,
            "check --password-file, --password-command or SNAPBACK_PASSWORD; any password that `key add` set will do"
                .to_owned(),
        ),
        Error::NoKey(_) => (Code::Failed, "copy the directory keys/ back from wherever there is one".to_owned()),
        Error::Locked(lock) => (
            Code::Locked,
            format!(
                "wait for it (--wait-lock 1h); if process {} on {} is certainly gone, `snapback repo unlock --all`",
                lock.pid, lock.hostname
            ),
        ),
        Error::Cancelled => {
            // Not where only a question was left unanswered.
            let hint = signals::is_cancelled().then(|| "the next run goes on from what is stored already".to_owned());
            return (signals::exit_code(), hint);
        }
        Error::Damaged { .. } | Error::DamagedBlob { .. } | Error::MissingBlob { .. } | Error::Tree { .. } => (
            Code::Failed,
            "`snapback repo check --read-data` names all damage, `snapback repo repair` saves what can be saved"
                .to_owned(),
        ),
        Error::NoBackup(_) => (Code::Failed, "`snapback list` shows the backups".to_owned()),
        Error::AmbiguousBackup { .. } => {
            (Code::Failed, "type more of the id; `snapback list -v` shows whole ids".to_owned())
        }
        Error::Storage(StorageError::Io { source, .. }) => return (Code::Failed as u8, io_hint(source)),
        Error::Storage(StorageError::NotFound { .. } | StorageError::Truncated { .. }) => {
            (Code::Failed, "`snapback repo check` tells what else is missing".to_owned())
        }
        _ => return (Code::Failed as u8, None),
    };
    (code as u8, Some(hint))
}

/// What to try after an error of the snapshots.
fn way_out(error: &snapshot::error::Error) -> Option<String> {
    use snapshot::error::Error;
    match error {
        Error::NoSuchSnapshot(_) => Some("`snapback snapshot list` shows the snapshots".to_owned()),
        Error::Ambiguous { .. } => Some("type more of the id".to_owned()),
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied => Some("run it as root, or as the owner of the directory".to_owned()),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("make room: `snapback snapshot list` shows what each snapshot keeps".to_owned())
            }
            _ => None,
        },
        error => error.hint().map(str::to_owned),
    }
}

fn io_hint(error: &io::Error) -> Option<String> {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "run as the user that owns the repository, or change its owner",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room: `snapback forget` with `--prune`, or a larger disk; what is stored already is kept"
        }
        io::ErrorKind::ReadOnlyFilesystem => "mount it writable; commands that only read work as it is",
        _ => return None,
    };
    Some(hint.to_owned())
}
