//! Single tables out of a dump. A table needs types, functions and sequences that its entry does not name, so the whole
//! structure comes along, and of the content what was asked for.

use super::archive::Archive;
use crate::error::Error;

/// What of a dump is restored.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// The entries, for `pg_restore --use-list`; `None` for all.
    pub(super) list: Option<String>,
    pub(super) warnings: Vec<String>,
}

/// Chooses tables; none for all.
pub(super) fn of(archive: &Archive<'_>, tables: &[String]) -> Result<Selection, Error> {
    if tables.is_empty() { Ok(Selection::default()) } else { chosen(archive.entries(), tables) }
}

fn chosen<'a>(entries: impl Iterator<Item = &'a str>, tables: &[String]) -> Result<Selection, Error> {
    let mut missing: Vec<&String> = tables.iter().collect();
    let mut keys = Vec::new();
    let mut list = String::new();
    for entry in entries {
        // `3348; 0 16390 TABLE DATA public t postgres`
        let kind = entry.splitn(4, ' ').nth(3).unwrap_or_default();
        let takes = if let Some(of) = kind.strip_prefix("TABLE DATA ") {
            missing.retain(|table| !is(of, table));
            tables.iter().any(|table| is(of, table))
        } else if let Some(of) = kind.strip_prefix("FK CONSTRAINT ") {
            // What it refers to may be empty here.
            let own = tables.iter().any(|table| is(of, table));
            keys.extend(own.then(|| of.rsplit(' ').nth(1).unwrap_or(of).to_owned()));
            !own
        } else {
            !["MATERIALIZED VIEW DATA ", "BLOB", "DATABASE "].iter().any(|begin| kind.starts_with(begin))
        };
        if takes {
            list += entry;
            list.push('\n');
        }
    }
    if !missing.is_empty() {
        let names: Vec<&str> = missing.into_iter().map(String::as_str).collect();
        let names = names.join(", ");
        return Err(Error::Refused(format!("the dump has no rows of a table {names}; a partition is named by itself")));
    }
    let mut warnings = vec!["the other tables are there, too, but empty".to_owned()];
    if !keys.is_empty() {
        warnings.push(format!("foreign keys were left out: {}", keys.join(", ")));
    }
    Ok(Selection { list: Some(list), warnings })
}

/// Whether `public t postgres` (schema, table, and more) is of `t`, or `public.t`.
fn is(of: &str, table: &str) -> bool {
    let own = |schema: &str, name: &str| of.starts_with(&format!("{schema} {name} "));
    let (schema, rest) = of.split_once(' ').unwrap_or((of, ""));
    rest.starts_with(&format!("{table} "))
        || table.split_once('.').is_some_and(|(schema, name)| own(schema, name))
        || own(schema, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: [&str; 6] = [
        "215; 1259 16390 TABLE public t postgres",
        "3348; 0 16390 TABLE DATA public t postgres",
        "3349; 0 16396 TABLE DATA other t2 postgres",
        "3203; 2606 16395 CONSTRAINT public t t_pkey postgres",
        "3204; 2606 16399 FK CONSTRAINT other t2 t2_fkey postgres",
        "3205; 0 0 BLOBS - BLOBS ",
    ];

    #[test]
    fn of_chosen_tables_the_content_and_of_all_the_structure() {
        let chosen_of = |tables: &[&str]| {
            let tables: Vec<String> = tables.iter().map(|&table| table.to_owned()).collect();
            chosen(ENTRIES.into_iter(), &tables)
        };
        let list = |tables: &[&str]| {
            let list = chosen_of(tables).unwrap().list.unwrap();
            list.lines().map(|line| ENTRIES.iter().position(|entry| *entry == line).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(list(&["t"]), [0, 1, 3, 4]);
        assert_eq!(list(&["other.t2"]), [0, 2, 3]);
        assert_eq!(list(&["t", "t2"]), [0, 1, 2, 3]);
        assert!(chosen_of(&["t2"]).unwrap().warnings[1].ends_with("t2_fkey"));
        assert!(chosen_of(&["t", "public.t2"]).unwrap_err().to_string().contains("public.t2"));
    }
}
