//! What is too old to be of use goes, so that the catalog does not grow for ever.

use rusqlite::{Connection, params};

const DAY: i64 = 24 * 3600 * 1000;
/// A year, and what it takes to compare with the year before.
const REMEMBERED: i64 = 400 * DAY;
/// As long, every size of a repository is kept; before, one of each day.
const EVERY_SIZE: i64 = 30 * DAY;

/// Removes what is older than can be of use, seen from the newest job: a clock that is wrong for a moment must not cost
/// the whole past. Of each task the last success stays, however old.
pub(super) fn tidy(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let newest: Option<i64> = connection.query_row("SELECT max(started) FROM jobs", [], |row| row.get(0))?;
    let now = newest.map_or(now, |newest| newest.min(now));
    let old = now.saturating_sub(REMEMBERED);
    // With max(), the other columns are those of the row it is in (sqlite.org/lang_select.html, "bare columns").
    let jobs = "DELETE FROM jobs WHERE started < ?1 AND outcome IS NOT NULL AND id NOT IN (SELECT id FROM \
                (SELECT id, max(started) FROM jobs WHERE outcome IN ('succeeded', 'incomplete') \
                GROUP BY kind, project, repository))";
    connection.execute(jobs, [old])?;
    connection.execute("DELETE FROM events WHERE at < ?1", [old])?;
    connection.execute("DELETE FROM guards WHERE started < ?1", [old])?;
    let sizes = "DELETE FROM sizes WHERE at < ?1 OR (at < ?2 AND EXISTS (SELECT 1 FROM sizes AS later WHERE \
                 later.repository = sizes.repository AND later.at > sizes.at AND later.at / ?3 = sizes.at / ?3))";
    connection.execute(sizes, params![old, now.saturating_sub(EVERY_SIZE), DAY])?;
    Ok(())
}
