//! What the user sees: results on stdout, everything else on stderr, colours only on a terminal.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, StdoutLock, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table};
use serde::Serialize;

use crate::global::Global;
use crate::status_line::StatusLine;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[34m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// How much a line weighs, as syslog(3) counts.
#[derive(Clone, Copy, Debug)]
enum Level {
    Error = 3,
    Warning = 4,
    Info = 6,
}

/// Where results and messages go.
#[derive(Clone)]
pub(crate) struct Output {
    /// Results are JSON.
    pub(crate) json: bool,
    /// Only results and errors.
    pub(crate) quiet: bool,
    /// More of everything.
    pub(crate) verbose: bool,
    colors: bool,
    before: Before,
    /// What a running command shows at the bottom.
    pub(crate) status: StatusLine,
}

/// What stands before a line on stderr.
#[derive(Clone, Copy, Debug)]
enum Before {
    /// Nothing.
    Nothing,
    /// When it was said.
    Dated,
    /// How much it weighs: sd-daemon(3). The journal knows when it came.
    Journal,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let wanted = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
        Output {
            json: global.json,
            quiet: global.quiet,
            verbose: global.verbose,
            colors: wanted,
            before: Before::Nothing,
            status: StatusLine::default(),
        }
    }

    /// Whether a progress bar would be seen.
    pub(crate) fn wants_bar(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    fn to_stderr(&self, text: &str) {
        self.leveled(Level::Info, text);
    }

    fn leveled(&self, level: Level, text: &str) {
        match self.before {
            Before::Nothing => self.status.message(text),
            Before::Dated => {
                let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S");
                self.status.message(&format!("{now} {}", one_line(text)));
            }
            Before::Journal => self.status.message(&format!("<{}>{}", level as u8, one_line(text))),
        }
    }

    fn colored(&self, color: &str, text: &str) -> String {
        if self.colors { format!("{color}{text}{RESET}") } else { text.to_owned() }
    }

    /// In the accent colour of backups, for the bar.
    pub(crate) fn accent(&self, text: &str) -> String {
        self.colored(BLUE, text)
    }

    /// Something good to know; not with `-q` or `--json`.
    pub(crate) fn message(&self, text: impl Display) {
        if !self.quiet && !self.json {
            self.to_stderr(&text.to_string());
        }
    }

    /// Only with `-v`.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbose && !self.json {
            self.to_stderr(&self.colored(DIM, &text.to_string()));
        }
    }

    /// As a service says it: one line each, with the time before it.
    pub(crate) fn of_a_service(&self) -> Output {
        let lines = if is_journal() { Before::Journal } else { Before::Dated };
        Output { before: lines, ..self.clone() }
    }

    /// As a job of a service says it: what somebody should look at.
    pub(crate) fn of_a_job(&self) -> Output {
        Output { quiet: true, json: false, ..self.clone() }
    }

    /// Something of a service failed; it goes on.
    pub(crate) fn failure(&self, text: &str) {
        self.leveled(Level::Error, &format!("{} {text}", self.colored(RED, "error:")));
    }

    /// Something to look at that stops nothing.
    pub(crate) fn warning(&self, text: impl Display) {
        let text = text.to_string();
        if self.json {
            self.to_stderr(&document(&serde_json::json!({ "type": "warning", "message": text })));
        } else {
            let text = harmless(&text);
            self.leveled(Level::Warning, &format!("{} {text}", self.colored(YELLOW, "warning:")));
        }
    }

    /// One file that could not be dealt with; the run goes on.
    pub(crate) fn file_error(&self, path: &Path, error: &dyn Display) {
        let path = printable(path);
        if self.json {
            let error = error.to_string();
            self.to_stderr(&document(&serde_json::json!({ "type": "file_error", "path": path, "message": error })));
        } else {
            self.to_stderr(&format!("{} {path}: {error}", self.colored(RED, "error:")));
        }
    }

    /// Why the command failed.
    pub(crate) fn error(&self, text: &str, hint: Option<&str>, code: u8) {
        self.status.clear();
        if self.json {
            let document_ = serde_json::json!({ "type": "error", "code": code, "message": text, "hint": hint });
            self.to_stderr(&document(&document_));
            return;
        }
        self.to_stderr(&format!("{} {}", self.colored(RED, "error:"), harmless(text)));
        if let Some(hint) = hint {
            self.to_stderr(&format!("  {} {}", self.colored(BLUE, "try:"), harmless(hint)));
        }
    }

    /// A line of the result.
    pub(crate) fn line(&self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// The result as one JSON document on one line.
    pub(crate) fn json(&self, value: &impl Serialize) -> io::Result<()> {
        self.line(document(value))
    }

    /// For results of many lines.
    pub(crate) fn lines(&self) -> Lines<'_> {
        let stdout = io::stdout();
        let escape = stdout.is_terminal();
        Lines { output: self, stdout: BufWriter::new(stdout.lock()), escape, begun: false }
    }

    /// A table that fits the terminal: it loses the columns that can be missed, then folds the last one, which is the
    /// long one. Into a pipe, as wide as it needs.
    pub(crate) fn table(&self, columns: &[Column], mut rows: Vec<Vec<String>>) -> io::Result<()> {
        // Names, notes and tags are others'; a line break in one would look like a row.
        rows.iter_mut().flatten().for_each(|cell| *cell = printable(Path::new(cell)));
        let widths: Vec<usize> = (0..columns.len())
            .map(|number| {
                let cells = rows.iter().filter_map(|row| row.get(number)).map(|cell| cell.chars().count());
                cells.max().unwrap_or(0).max(columns[number].title.chars().count()) + GAP
            })
            .collect();
        let terminal = terminal_width(&io::stdout()).map(usize::from);
        let kept = kept_columns(columns, &widths, terminal);
        let folded = widths[kept[kept.len() - 1]].min(FOLDED);
        let fixed: usize = kept[..kept.len() - 1].iter().map(|number| widths[*number]).sum();

        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header(kept.iter().map(|number| columns[*number].title));
        for row in &rows {
            table.add_row(kept.iter().map(|number| &row[*number]));
        }
        let folds = terminal.filter(|width| fixed + folded <= *width);
        match folds.and_then(|width| u16::try_from(width).ok()) {
            Some(width) => table.set_width(width).set_content_arrangement(ContentArrangement::Dynamic),
            // Hopelessly narrow: the terminal folds as it likes.
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        for (shown, number) in kept.iter().enumerate() {
            let Some(column) = table.column_mut(shown) else { continue };
            column.set_padding((0, GAP as u16));
            if columns[*number].numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
            if folds.is_some() && shown + 1 < kept.len() {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
        let text = table.to_string();
        for line in text.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// Blanks between columns.
const GAP: usize = 2;
/// The last column is not folded to less than this.
const FOLDED: usize = 28;

/// Numbers of the columns there is room for.
fn kept_columns(columns: &[Column], widths: &[usize], terminal: Option<usize>) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    let Some(terminal) = terminal else { return kept };
    loop {
        let last = kept[kept.len() - 1];
        let fixed: usize = kept[..kept.len() - 1].iter().map(|number| widths[*number]).sum();
        let missed = kept.iter().rposition(|number| columns[*number].can_be_missed);
        match missed {
            Some(missed) if fixed + widths[last].min(FOLDED) > terminal => drop(kept.remove(missed)),
            _ => return kept,
        }
    }
}

/// A column of a table.
pub(crate) struct Column {
    title: &'static str,
    numeric: bool,
    can_be_missed: bool,
}

impl Column {
    /// A narrow terminal does without it.
    pub(crate) const fn less_important(self) -> Column {
        Column { can_be_missed: true, ..self }
    }
}

/// A column of words.
pub(crate) const fn words(title: &'static str) -> Column {
    Column { title, numeric: false, can_be_missed: false }
}

/// A column of numbers, aligned right.
pub(crate) const fn numbers(title: &'static str) -> Column {
    Column { title, numeric: true, can_be_missed: false }
}

/// Many lines of results. JSON objects become one array.
pub(crate) struct Lines<'a> {
    output: &'a Output,
    stdout: BufWriter<StdoutLock<'static>>,
    /// Control characters in names could take over a terminal.
    escape: bool,
    begun: bool,
}

impl Lines<'_> {
    /// A line with a path in it. Into a pipe, its bytes as they are.
    pub(crate) fn path(&mut self, before: &str, path: &Path, after: &str) -> io::Result<()> {
        self.stdout.write_all(before.as_bytes())?;
        if self.escape {
            self.stdout.write_all(printable(path).as_bytes())?;
        } else {
            self.stdout.write_all(path.as_os_str().as_bytes())?;
        }
        writeln!(self.stdout, "{after}")
    }

    /// A line without a path.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.stdout, "{text}")
    }

    /// The next object of the array.
    pub(crate) fn object(&mut self, value: &impl Serialize) -> io::Result<()> {
        let before = if self.begun { ",\n" } else { "[\n" };
        self.begun = true;
        write!(self.stdout, "{before}{}", document(value))
    }

    /// Writes what is left. Without it, the last lines may be lost.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.output.json {
            writeln!(self.stdout, "{}", if self.begun { "\n]" } else { "[]" })?;
        }
        self.stdout.flush()
    }
}

/// How many columns the terminal has, if it is one.
pub(crate) fn terminal_width(of: &impl std::os::fd::AsFd) -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(of).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

fn one_line(text: &str) -> String {
    text.trim_end().replace('\n', "; ")
}

/// Whether stderr is the journal: systemd.exec(5), "$JOURNAL_STREAM".
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A path without anything that a terminal would obey.
pub(crate) fn printable(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.to_string_lossy().chars() {
        if letter.is_control() {
            text.extend(letter.escape_default());
        } else {
            text.push(letter);
        }
    }
    text
}

/// A text of several lines without anything else that a terminal would obey.
fn harmless(text: &str) -> String {
    text.split('\n').map(|line| printable(Path::new(line))).collect::<Vec<_>>().join("\n")
}

fn document(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own documents are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_loses_the_less_important_columns_from_the_right() {
        let columns = [words("ID"), words("Age").less_important(), numbers("Size").less_important(), words("Paths")];
        let kept = |terminal| kept_columns(&columns, &[10, 12, 8, 40], terminal);
        assert_eq!(kept(None), [0, 1, 2, 3]);
        assert_eq!(kept(Some(58)), [0, 1, 2, 3]);
        assert_eq!(kept(Some(57)), [0, 1, 3]);
        assert_eq!(kept(Some(49)), [0, 3]);
        assert_eq!(kept(Some(5)), [0, 3]);
    }

    #[test]
    fn names_cannot_command_a_terminal() {
        assert_eq!(printable(Path::new("/a\x1b[2J/b\n")), "/a\\u{1b}[2J/b\\n");
        assert_eq!(printable(Path::new("/ä ö")), "/ä ö");
        assert_eq!(harmless("one\ntwo\x1b]0;"), "one\ntwo\\u{1b}]0;");
    }
}
