//! A dump of mariadb-dump or mysqldump taken apart while it streams: tables go on to the server, code is kept.
//!
//! Code is what is bound to a database's name or acts by itself: triggers (a table with one cannot be moved to another
//! database), views, routines, events (which would fire in a database that is not in use yet). It is small, and is run
//! once the tables have their final place.
//!
//! The tools write a comment of three lines before each section; within rows no line begins with what is looked for, since
//! line ends in values are escaped. In bodies of routines one could; those stand between two lines `DELIMITER`.
//!
//! The invariant: the stream ends well only if the tool's last line, `-- Dump completed`, has come.

use std::io::{self, BufRead, BufReader, Read};

/// So much of a line is looked at, and kept at once.
const CHUNK_BYTES: u64 = 64 << 10;

/// The first line of what sets up the session for a trigger. Tables have the same with another version's number.
const TRIGGER: &[u8] = b"/*!50003 SET @saved_cs_client";

/// More code than this is none.
const CODE_BYTES: usize = 256 << 20;

/// A trigger, with what sets up the session for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trigger {
    pub(super) name: String,
    pub(super) statements: Vec<u8>,
}

/// What a dump has besides tables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    /// What sets up the session: character set, time zone, checks off.
    pub(super) prologue: Vec<u8>,
    pub(super) triggers: Vec<Trigger>,
    /// Stand-ins for views, so that one can use another that comes after it.
    pub(super) stand_ins: Vec<u8>,
    pub(super) routines: Vec<u8>,
    pub(super) views: Vec<u8>,
    pub(super) events: Vec<u8>,
}

impl Code {
    /// What can be run in any database that has the tables. Events act by themselves, and are run in the final one alone.
    pub(super) fn statements(&self, events: bool) -> Vec<u8> {
        let none = Vec::new();
        let events = if events { &self.events } else { &none };
        let triggers = self.triggers.iter().map(|trigger| &trigger.statements);
        let parts = [&self.prologue, &self.stand_ins, &self.routines, &self.views];
        parts.into_iter().chain(triggers).chain([events]).flatten().copied().collect()
    }
}

/// Where a line belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    Prologue,
    /// A table or sequence, with its rows; `None` for one that is not wanted.
    Table(Option<String>),
    Trigger,
    StandIn,
    Routine,
    View,
    Event,
    Epilogue,
}

/// Reads a dump as what makes its tables alone.
pub(super) struct Tables<'a> {
    dump: BufReader<&'a mut dyn Read>,
    /// Only these; empty for all, and then their code, too.
    wanted: &'a [String],
    /// The tables that came by.
    pub(super) found: Vec<String>,
    code: Code,
    /// One after the other, as they came.
    triggers: Vec<Vec<u8>>,
    section: Section,
    /// Whether triggers of this table are wanted.
    keeps: bool,
    in_body: bool,
    /// The chunk that is read next begins a line.
    line_begins: bool,
    /// A line `--` that may begin a header.
    held: Vec<u8>,
    ready: Vec<u8>,
    given: usize,
    completed: bool,
    ended: bool,
}

impl<'a> Tables<'a> {
    pub(super) fn new(dump: &'a mut dyn Read, wanted: &'a [String]) -> Tables<'a> {
        Tables {
            dump: BufReader::with_capacity(256 << 10, dump),
            wanted,
            found: Vec::new(),
            code: Code::default(),
            triggers: Vec::new(),
            section: Section::Prologue,
            keeps: true,
            in_body: false,
            line_begins: true,
            held: Vec::new(),
            ready: Vec::new(),
            given: 0,
            completed: false,
            ended: false,
        }
    }

    /// Whether the last line has come.
    pub(super) fn is_complete(&self) -> bool {
        self.completed
    }

    /// The code, once all was read.
    pub(super) fn code(mut self) -> (Code, Vec<String>) {
        self.code.triggers = self.triggers.iter().map(|text| Trigger::read(text)).collect();
        (self.code, self.found)
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.given = 0;
        while self.ready.len() < CHUNK_BYTES as usize && !self.ended {
            let mut chunk = Vec::new();
            let length = (&mut self.dump).take(CHUNK_BYTES).read_until(b'\n', &mut chunk)?;
            if length == 0 {
                self.end()?;
            } else if std::mem::replace(&mut self.line_begins, chunk.ends_with(b"\n")) {
                self.line(chunk)?;
            } else {
                self.put(&chunk)?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        if !self.completed {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the dump ends before its last line"));
        }
        match self.wanted.iter().find(|wanted| !self.found.contains(wanted)) {
            Some(missing) => Err(io::Error::other(format!("the dump has no table {missing:?}"))),
            None => Ok(()),
        }
    }

    fn line(&mut self, line: Vec<u8>) -> io::Result<()> {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.starts_with(b"DELIMITER ") {
            self.in_body = text != b"DELIMITER ;";
            return self.put(&line);
        }
        if self.in_body {
            return self.put(&line);
        }
        if text == b"--" && self.held.is_empty() {
            self.held = line;
            return Ok(());
        }
        if !self.held.is_empty() {
            let header = std::str::from_utf8(text).ok().and_then(header);
            let held = std::mem::take(&mut self.held);
            if let Some(section) = header {
                self.enter(section);
            }
            self.put(&held)?;
            return self.put(&line);
        }
        if text.starts_with(b"-- Dump completed") {
            self.completed = true;
        } else if text.starts_with(TRIGGER) && matches!(self.section, Section::Table(_) | Section::Trigger) {
            self.section = Section::Trigger;
            self.triggers.extend(self.keeps.then(Vec::new));
        } else if text.starts_with(b"/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE") {
            self.section = Section::Epilogue;
        } else if text.starts_with(b"USE `") || text.starts_with(b"CREATE DATABASE ") {
            return Err(io::Error::other("the dump chooses a database itself; one of a single database is needed"));
        }
        self.put(&line)
    }

    fn enter(&mut self, section: Section) {
        if let Section::Table(Some(table)) = &section {
            self.keeps = self.wanted.is_empty() || self.wanted.contains(table);
            if self.found.last() != Some(table) {
                self.found.push(table.clone());
            }
            self.section = Section::Table(Some(table.clone()).filter(|_| self.keeps));
        } else {
            self.section = section;
        }
    }

    fn put(&mut self, line: &[u8]) -> io::Result<()> {
        let all = self.wanted.is_empty();
        let to = match &self.section {
            Section::Prologue => {
                self.code.prologue.extend_from_slice(line);
                &mut self.ready
            }
            Section::Epilogue | Section::Table(Some(_)) => &mut self.ready,
            Section::Trigger if self.keeps => match self.triggers.last_mut() {
                Some(trigger) => trigger,
                None => return Ok(()),
            },
            Section::StandIn if all => &mut self.code.stand_ins,
            Section::Routine if all => &mut self.code.routines,
            Section::View if all => &mut self.code.views,
            Section::Event if all => &mut self.code.events,
            _ => return Ok(()),
        };
        to.extend_from_slice(line);
        if to.len() > CODE_BYTES { Err(io::Error::other("the dump has no sections")) } else { Ok(()) }
    }
}

impl Read for Tables<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.ready.len() && !self.ended {
            self.fill()?;
        }
        let length = buffer.len().min(self.ready.len() - self.given);
        buffer[..length].copy_from_slice(&self.ready[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

/// The section that a header begins.
fn header(line: &str) -> Option<Section> {
    let tables = ["-- Table structure for table ", "-- Dumping data for table ", "-- Sequence structure for "];
    if let Some(name) = tables.iter().find_map(|prefix| line.strip_prefix(prefix)) {
        let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')).unwrap_or(name);
        return Some(Section::Table(Some(name.replace("``", "`"))));
    }
    let others = [
        ("-- Temporary table structure for view ", Section::StandIn),
        ("-- Temporary view structure for view ", Section::StandIn),
        ("-- Dumping events for database ", Section::Event),
        ("-- Dumping routines for database ", Section::Routine),
        ("-- Final view structure for view ", Section::View),
    ];
    others.into_iter().find(|(prefix, _)| line.starts_with(prefix)).map(|(_, section)| section)
}

impl Trigger {
    /// Triggers come as whoever made them wrote them, and so can name the database: `TRIGGER shop.t AFTER INSERT ON
    /// shop.orders`. In a database of another name that is refused, or hits the old one; so the two names lose what stands
    /// before the dot.
    fn read(text: &[u8]) -> Trigger {
        let text = String::from_utf8_lossy(text);
        let Some((before, after)) = text.split_once("DELIMITER ;;\n") else {
            return Trigger { name: String::new(), statements: text.into_owned().into_bytes() };
        };
        let (name, statement) = unqualified(after);
        Trigger { name, statements: format!("{before}DELIMITER ;;\n{statement}").into_bytes() }
    }
}

/// The name of a trigger, and its statement in whichever database is in use.
fn unqualified(statement: &str) -> (String, String) {
    let mut result = String::with_capacity(statement.len());
    let mut words = Words(statement);
    let mut names = Vec::new();
    let mut name_follows = false;
    while names.len() < 2 {
        // Each word with the blanks and comments before it.
        let Some((blank, word)) = words.next() else { break };
        let lower = word.to_ascii_lowercase();
        result.push_str(blank);
        if name_follows && !matches!(&lower[..], "if" | "not" | "exists") {
            let (mut name, mut next) = (word, words);
            if let Some((_, ".")) = next.next()
                && let Some((_, table)) = next.next()
            {
                (name, words) = (table, next);
            }
            result.push_str(name);
            name_follows = false;
            names.push(name);
        } else {
            name_follows = name_follows || lower == "trigger" || names.len() == 1 && lower == "on";
            result.push_str(word);
        }
    }
    result.push_str(words.0);
    (names.first().map(|name| plain(name)).unwrap_or_default(), result)
}

/// A name without its quotes.
fn plain(name: &str) -> String {
    match name.chars().next().filter(|quote| matches!(quote, '`' | '"')) {
        Some(quote) => name[1..name.len() - 1].replace(&format!("{quote}{quote}"), &quote.to_string()),
        None => name.to_owned(),
    }
}

/// The words of a statement: names, quoted or not, and single signs.
#[derive(Clone, Copy)]
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        let text = self.0;
        let start = blank(text);
        let word = &text[start..];
        let first = word.chars().next()?;
        let length = match first {
            '`' | '"' | '\'' => quoted(word, first),
            _ if is_name(first) => word.find(|character| !is_name(character)).unwrap_or(word.len()),
            _ => first.len_utf8(),
        };
        self.0 = &word[length..];
        Some((&text[..start], &word[..length]))
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$')
}

fn quoted(word: &str, quote: char) -> usize {
    let mut characters = word.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    word.len()
}

/// How long blanks and comments are. `/*!50003 ... */` is no comment: what it holds is run.
fn blank(text: &str) -> usize {
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let end = match trimmed {
            _ if trimmed.starts_with("/*!") || trimmed.starts_with("/*M!") => {
                let digits =
                    trimmed.trim_start_matches(['/', '*', 'M', '!']).trim_start_matches(|c: char| c.is_ascii_digit());
                trimmed.len() - digits.len()
            }
            _ if trimmed.starts_with("*/") => 2,
            _ if trimmed.starts_with("/*") => trimmed.find("*/").map_or(trimmed.len(), |at| at + 2),
            _ if trimmed.starts_with('#') || trimmed.starts_with("-- ") => trimmed.find('\n').unwrap_or(trimmed.len()),
            _ => return text.len() - trimmed.len(),
        };
        rest = &trimmed[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trigger_loses_the_name_of_its_database() {
        for (written, expected) in [
            (
                "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`%`*/ /*!50003 trigger shop.t after insert on shop.o for each row set @on = a.b */;;",
                "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`%`*/ /*!50003 trigger t after insert on o for each row set @on = a.b */;;",
            ),
            (
                "CREATE TRIGGER IF NOT EXISTS `my shop` . `t.``1`\nBEFORE UPDATE /* on x.y */ ON `my shop`.`o` FOR EACH ROW BEGIN END",
                "CREATE TRIGGER IF NOT EXISTS `t.``1`\nBEFORE UPDATE /* on x.y */ ON `o` FOR EACH ROW BEGIN END",
            ),
            (
                "CREATE TRIGGER t AFTER DELETE ON o FOR EACH ROW DELETE FROM x.y",
                "CREATE TRIGGER t AFTER DELETE ON o FOR EACH ROW DELETE FROM x.y",
            ),
        ] {
            let (name, statement) = unqualified(written);
            assert_eq!(statement, expected);
            assert!(["t", "t.`1"].contains(&&name[..]), "{name}");
        }
    }

    const DUMP: &str = "-- MariaDB dump\n--\n-- Host: localhost\n/*!40101 SET NAMES utf8mb4 */;\n\
        --\n-- Table structure for table `a`\n--\n\nCREATE TABLE `a` (x int);\n--\n-- Dumping data for table `a`\n--\n\n\
        INSERT INTO `a` VALUES\n(1);\nUNLOCK TABLES;\n/*!50003 SET @saved_cs_client = 1 */ ;\nDELIMITER ;;\ntrigger d.t after insert on d.a for each row\n\
        --\n-- Table structure for table `no`\n--\n;;\nDELIMITER ;\n\n--\n-- Table structure for table `b`\n--\n\nCREATE TABLE `b` (x int);\n\
        --\n-- Dumping events for database 'd'\n--\nEVENT;\n--\n-- Final view structure for view `v`\n--\nVIEW;\n\
        /*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;\n\n-- Dump completed\n";

    fn read(dump: &str, wanted: &[&str]) -> Result<(String, Code, Vec<String>), String> {
        let wanted: Vec<String> = wanted.iter().map(|table| (*table).to_owned()).collect();
        let mut dump = dump.as_bytes();
        let mut tables = Tables::new(&mut dump, &wanted);
        let mut text = String::new();
        tables.read_to_string(&mut text).map_err(|error| error.to_string())?;
        let (code, found) = tables.code();
        Ok((text, code, found))
    }

    #[test]
    fn a_dump_is_taken_apart_into_tables_and_code() {
        let (text, code, found) = read(DUMP, &[]).unwrap();
        assert_eq!(found, ["a", "b"]);
        assert!(text.contains("INSERT INTO `a`") && text.contains("CREATE TABLE `b`"), "{text}");
        assert!(!text.contains("DELIMITER") && !text.contains("VIEW") && !text.contains("EVENT"), "{text}");
        assert_eq!(code.triggers.len(), 1);
        assert_eq!(code.triggers[0].name, "t");
        let triggers = String::from_utf8(code.triggers[0].statements.clone()).unwrap();
        assert!(triggers.contains("trigger t after insert on a for") && triggers.contains("table `no`"), "{triggers}");
        assert!(code.events.ends_with(b"EVENT;\n") && code.views.ends_with(b"VIEW;\n"));
    }

    #[test]
    fn only_the_wanted_tables_go_on() {
        let (text, code, _) = read(DUMP, &["b"]).unwrap();
        assert!(!text.contains("`a`") && text.contains("CREATE TABLE `b`") && text.contains("SET NAMES"), "{text}");
        assert!(code.triggers.is_empty() && code.views.is_empty());
        assert!(read(DUMP, &["c"]).unwrap_err().contains("no table \"c\""));
    }

    #[test]
    fn a_dump_that_ends_early_or_chooses_a_database_is_refused() {
        for (length, _) in DUMP.char_indices().filter(|(length, _)| *length < DUMP.len() - 1) {
            assert!(read(&DUMP[..length], &[]).is_err(), "{length}");
        }
        assert!(read(&format!("USE `shop`;\n{DUMP}"), &[]).is_err());
    }
}
