//! The one line at the bottom of the terminal that is drawn again and again, and steps aside for messages.
//!
//! It is never padded to the terminal's edge: the `^C` that a terminal shows must not begin a new line.

use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard};

/// Moves to the line's beginning; clears from here to the line's end.
const BEGIN: &str = "\r";
const CLEAR: &str = "\x1b[K";

/// A line on stderr. Copies are the same line.
#[derive(Clone, Default)]
pub(crate) struct StatusLine {
    shown: Arc<Mutex<Option<String>>>,
}

impl StatusLine {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.shown.lock().expect("no panic while the line is held")
    }

    /// Shows a text, which must fit into the terminal.
    pub(crate) fn draw(&self, text: String) {
        let mut shown = self.lock();
        print(&format!("{BEGIN}{text}{CLEAR}"));
        *shown = Some(text);
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        if self.lock().take().is_some() {
            print(&format!("{BEGIN}{CLEAR}"));
        }
    }

    /// Prints a question; what is typed follows it.
    pub(crate) fn prompt(&self, text: &str) {
        self.clear();
        print(text);
    }

    /// Prints a message above the line.
    pub(crate) fn message(&self, text: &str) {
        match &*self.lock() {
            Some(shown) => print(&format!("{BEGIN}{CLEAR}{text}\n{shown}")),
            None => print(&format!("{text}\n")),
        }
    }
}

/// Whole, so that nothing of another thread comes between. Nothing can be told to somebody who closed stderr.
fn print(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A bar `width` columns wide, filled to an eighth of a column.
pub(crate) fn bar(done: u64, total: u64, width: usize) -> String {
    const EIGHTHS: [char; 8] = ['░', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let all = width * 8;
    let filled = if total == 0 { 0 } else { (u128::from(done) * all as u128 / u128::from(total)) as usize }.min(all);
    let mut bar = "█".repeat(filled / 8);
    if filled < all {
        bar.push(EIGHTHS[filled % 8]);
        bar.extend(std::iter::repeat_n('░', width - filled / 8 - 1));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_always_as_wide_as_it_should_be() {
        for done in 0..=100 {
            assert_eq!(bar(done, 100, 10).chars().count(), 10, "{done}");
        }
        assert_eq!(bar(0, 100, 4), "░░░░");
        assert_eq!(bar(100, 100, 4), "████");
        assert_eq!(bar(150, 100, 4), "████");
        assert_eq!(bar(54, 100, 4), "██▏░");
        assert_eq!(bar(1, 0, 2), "░░");
        assert_eq!(bar(u64::MAX, u64::MAX, 2), "██");
    }
}
