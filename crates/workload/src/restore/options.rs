//! How to restore, and what came of it.

/// How to restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Restore under this name, and leave the database of the old name as it is. A name that is taken is refused.
    pub name: Option<String>,
    /// Only these tables, `table` or `schema.table`; empty for all. They come into a database of their own, so `name` is
    /// needed with them.
    pub tables: Vec<String>,
    /// Tells the databases of this restore from those of another, and is a part of their names: a point in time such as
    /// `20261123T130000`.
    pub mark: String,
    /// Replace a file of SQLite although programs have it open: they go on with the old one until they are started anew.
    pub even_if_open: bool,
}

/// What was restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The database in which the content is now; `None` of a part that belongs to the server.
    pub database: Option<String>,
    /// The name under which what was there before is kept.
    pub kept: Option<String>,
    /// What is not as it was, and harmless: an owner who is missing.
    pub warnings: Vec<String>,
}
