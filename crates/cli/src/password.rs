//! Where the password comes from: a file, a command, the environment, or the terminal. Never the arguments, which
//! every user of the machine can read.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use anyhow::Result;
use engine::config::split_words;
use engine::repositories::{self, Password};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::error::CommandError;
use crate::global::Global;

/// The environment's.
const VARIABLE: &str = "SNAPBACK_PASSWORD";

/// Where to look for a password before the terminal is asked.
pub(crate) struct Sources<'a> {
    pub(crate) file: Option<&'a Path>,
    pub(crate) command: Option<&'a str>,
    pub(crate) variable: Option<&'a str>,
}

impl<'a> Sources<'a> {
    /// Those of the repository in use.
    pub(crate) fn of(global: &'a Global) -> Self {
        Sources {
            file: global.password_file.as_deref(),
            command: global.password_command.as_deref(),
            variable: Some(VARIABLE),
        }
    }

    /// These, or the others where none of these is given.
    pub(crate) fn or(self, others: Sources<'a>) -> Self {
        let is_set = self.variable.is_some_and(|variable| std::env::var_os(variable).is_some());
        if self.file.is_some() || self.command.is_some() || is_set { self } else { others }
    }

    /// The password of an existing repository.
    pub(crate) fn get(&self, what: &str) -> Result<Password> {
        match self.given()? {
            Some(password) => Ok(password),
            None => ask(&format!("password for {what}: ")),
        }
    }

    /// A password to be set: asked twice on a terminal, and never empty.
    pub(crate) fn choose(&self, what: &str) -> Result<Password> {
        let password = match self.given()? {
            Some(password) => password,
            None => {
                let password = ask(&format!("new password for {what}: "))?;
                if ask("the same again: ")? != password {
                    return Err(CommandError::new("the two passwords differ")
                        .hint("nothing was changed; run it again")
                        .into());
                }
                password
            }
        };
        if password.is_empty() {
            return Err(CommandError::new("the password is empty").hint("choose one that nobody can guess").into());
        }
        Ok(password)
    }

    fn given(&self) -> Result<Option<Password>> {
        if let Some(file) = self.file {
            return Ok(Some(repositories::password_in_file(file)?));
        }
        if let Some(command) = self.command {
            return from_command(command).map(Some);
        }
        let value = self.variable.and_then(std::env::var_os);
        Ok(value.map(|value| Zeroizing::new(std::os::unix::ffi::OsStringExt::into_vec(value))))
    }
}

fn from_command(line: &str) -> Result<Password> {
    let wrong = |reason: &str| CommandError::usage(format!("--password-command {line:?}: {reason}"));
    let words = split_words(line).ok_or_else(|| wrong("a quote is not closed"))?;
    if words.is_empty() {
        return Err(wrong("it is empty").into());
    }
    Ok(repositories::password_of_command(&words)?)
}

/// Asks on the terminal, without showing what is typed.
fn ask(prompt: &str) -> Result<Password> {
    let no_terminal = || {
        CommandError::new("a password is needed, and there is no terminal to ask on")
            .hint("give --password-file, --password-command or SNAPBACK_PASSWORD")
    };
    if !std::io::stdin().is_terminal() && !std::io::stderr().is_terminal() {
        return Err(no_terminal().into());
    }
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = opened.map_err(|_| no_terminal())?;
    terminal.write_all(prompt.as_bytes())?;
    let before = tcgetattr(&terminal)?;
    let mut quiet: Termios = before.clone();
    // Without signals from keys too: Ctrl-C must not leave a terminal that shows nothing.
    quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
    quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&terminal, OptionalActions::Flush, &quiet)?;
    let line = read_line(&mut terminal);
    let restored = tcsetattr(&terminal, OptionalActions::Now, &before);
    terminal.write_all(b"\n")?;
    restored?;
    line
}

fn read_line(terminal: &mut std::fs::File) -> Result<Password> {
    let mut line = Zeroizing::new(Vec::with_capacity(256));
    let mut key = Zeroizing::new([0]);
    loop {
        if terminal.read(&mut *key)? == 0 {
            return Ok(line);
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(line),
            // Ctrl-C, and Ctrl-D on an empty line.
            3 => return Err(repository::Error::Cancelled.into()),
            4 if line.is_empty() => return Err(repository::Error::Cancelled.into()),
            // Backspace: a whole UTF-8 character.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl-U.
            21 => line.clear(),
            byte => line.push(byte),
        }
    }
}
