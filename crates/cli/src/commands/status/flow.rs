//! Lines that fit a width: cells one after the other, folded between cells, with what follows indented.

/// How a piece of text looks on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// As it is.
    Plain,
    /// The colour of snapshots.
    Amber,
    /// The colour of backups.
    Blue,
    /// For what needs an act, and nothing else.
    Red,
    /// What nobody needs to look at.
    Dim,
    /// What one looks for.
    Bold,
}

/// A piece of text that is not folded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), style: Style::Plain }
    }

    pub(super) fn styled(text: impl Into<String>, style: Style) -> Cell {
        Cell { text: text.into(), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// A page of lines.
pub(super) struct Page {
    /// Where lines are folded; `None` into a pipe.
    width: Option<usize>,
    has_colors: bool,
    lines: Vec<String>,
}

/// Blanks between cells; where that does not fit, the lesser.
const GAP: usize = 3;
const NARROW_GAP: usize = 2;

impl Page {
    pub(super) fn new(width: Option<usize>, has_colors: bool) -> Page {
        Page { width, has_colors, lines: Vec::new() }
    }

    pub(super) fn lines(self) -> Vec<String> {
        self.lines
    }

    pub(super) fn blank(&mut self) {
        if !self.lines.is_empty() {
            self.lines.push(String::new());
        }
    }

    /// A label, and cells behind it from column `indent` on.
    pub(super) fn row(&mut self, label: &Cell, indent: usize, cells: &[Cell]) {
        let begin = indent.max(label.width() + 2);
        let shown = || cells.iter().map(Cell::width).filter(|width| *width > 0);
        let total = begin + shown().sum::<usize>() + GAP * shown().count().saturating_sub(1);
        let fits = self.width.is_none_or(|width| total <= width);
        self.fold(label, indent, cells, if fits { GAP } else { NARROW_GAP });
    }

    /// A label and a sentence, which is folded between words.
    pub(super) fn sentence(&mut self, label: &Cell, indent: usize, text: &str, style: Style) {
        let words: Vec<Cell> = text.split(' ').map(|word| Cell::styled(word, style)).collect();
        self.fold(label, indent, &words, 1);
    }

    /// A label and a command, which is never folded: it is there to be copied.
    pub(super) fn command(&mut self, indent: usize, label: &Cell, command: &str) {
        let line = format!("{:indent$}{} {command}", "", self.painted(label));
        self.lines.push(line);
    }

    /// Several rows below one label, in columns if there is room for them.
    pub(super) fn table(&mut self, label: &Cell, indent: usize, rows: &[Vec<Cell>]) {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| rows.iter().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0))
            .collect();
        let is_wide_enough = |gap: &usize| {
            let total = indent + widths.iter().sum::<usize>() + gap * columns.saturating_sub(1);
            self.width.is_none_or(|width| total <= width)
        };
        let gap = [GAP, NARROW_GAP].into_iter().find(is_wide_enough);
        let nothing = Cell::new("");
        for (number, row) in rows.iter().enumerate() {
            let label = if number == 0 { label } else { &nothing };
            let Some(gap) = gap else {
                self.row(label, indent, row);
                continue;
            };
            let padded: Vec<Cell> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| Cell { text: format!("{:width$}", cell.text), style: cell.style })
                .collect();
            self.fold(label, indent, &padded, gap);
        }
    }

    fn fold(&mut self, label: &Cell, indent: usize, cells: &[Cell], gap: usize) {
        let begin = indent.max(label.width() + 2);
        let mut line = format!("{}{:pad$}", self.painted(label), "", pad = begin - label.width());
        let mut column = begin;
        let mut is_empty = true;
        // A column without anything in it is a gap.
        for cell in cells.iter().filter(|cell| !cell.text.is_empty()) {
            let needed = if is_empty {
                cell.text.trim_end().chars().count()
            } else {
                gap + cell.text.trim_end().chars().count()
            };
            if !is_empty && self.width.is_some_and(|width| column + needed > width) {
                self.lines.push(std::mem::take(&mut line).trim_end().to_owned());
                line = " ".repeat(indent);
                (column, is_empty) = (indent, true);
            }
            if !is_empty {
                line.push_str(&" ".repeat(gap));
                column += gap;
            }
            line.push_str(&self.painted(cell));
            column += cell.width();
            is_empty = false;
        }
        self.lines.push(line.trim_end().to_owned());
    }

    fn painted(&self, cell: &Cell) -> String {
        let code = match cell.style {
            _ if !self.has_colors || cell.text.trim().is_empty() => return cell.text.clone(),
            Style::Plain => return cell.text.clone(),
            Style::Amber => "33",
            Style::Blue => "34",
            Style::Red => "1;31",
            Style::Dim => "2",
            Style::Bold => "1",
        };
        let shown = cell.text.trim_end();
        format!("\x1b[{code}m{shown}\x1b[0m{}", &cell.text[shown.len()..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(texts: &[&str]) -> Vec<Cell> {
        texts.iter().map(|text| Cell::new(*text)).collect()
    }

    #[test]
    fn cells_are_folded_where_the_terminal_ends() {
        let mut page = Page::new(Some(20), false);
        page.row(&Cell::new("  a"), 6, &cells(&["one", "two", "three", "a long one that fits nowhere"]));
        assert_eq!(page.lines(), ["  a   one  two", "      three", "      a long one that fits nowhere"]);
    }

    #[test]
    fn a_pipe_folds_nothing_and_has_no_colours() {
        let mut page = Page::new(None, false);
        page.sentence(&Cell::styled("red", Style::Red), 6, &"word ".repeat(50), Style::Plain);
        let lines = page.lines();
        assert!(lines.len() == 1 && !lines[0].contains('\x1b'));
    }

    #[test]
    fn rows_stand_in_columns_if_there_is_room() {
        let rows = [cells(&["usb", "7 h"]), cells(&["offsite", "2 days"])];
        let table = |width| {
            let mut page = Page::new(Some(width), false);
            page.table(&Cell::new("  b"), 6, &rows);
            page.lines()
        };
        assert_eq!(table(22), ["  b   usb       7 h", "      offsite   2 days"]);
        assert_eq!(table(21), ["  b   usb      7 h", "      offsite  2 days"]);
        assert_eq!(table(20), ["  b   usb   7 h", "      offsite", "      2 days"]);
    }

    #[test]
    fn colours_take_no_room() {
        let mut page = Page::new(Some(11), true);
        page.row(&Cell::styled("ab", Style::Blue), 4, &[Cell::styled("cd", Style::Red), Cell::new("ef")]);
        assert_eq!(page.lines(), ["\x1b[34mab\x1b[0m  \x1b[1;31mcd\x1b[0m   ef"]);
    }
}
