//! A database file brought back: written beside the one that is there, checked, and then given its name in one rename.
//!
//! The invariant: at every moment the name leads to the old file or to the whole new one, and no log or journal of the one
//! lies beside the other, which would be played into it. The old one is kept, with all that was committed to it.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, llistxattr};

use super::database::{Database, beside};
use super::switch::{Kept, switch};
use super::unfinished::Unfinished;
use super::users;
use crate::dump::part::{Format, Part};
use crate::error::Error;
use crate::restore::options::{Options, Restored};

pub(crate) fn restore(target: &Path, part: &Part, dump: &mut dyn Read, options: &Options) -> Result<Restored, Error> {
    if part.format != Format::SqliteFile {
        return Err(Error::Refused(format!("{} is no dump of SQLite; name a server to restore it to", part.file)));
    }
    let target = resolved(target)?;
    let place = options.name.as_ref().map_or_else(|| Ok(target.clone()), |name| named(&target, name))?;
    if !options.tables.is_empty() && options.name.is_none() {
        return Err(Error::Refused("single tables come into a database of their own: give it a name".to_owned()));
    }
    // Before the long part, and once more before the switch.
    may_be_replaced(&place, options)?;
    let mut new = Unfinished::beside(&place, &options.mark)?;
    new.fill(dump)?;
    new.check()?;
    if !options.tables.is_empty() {
        keep_only(&new.path, &options.tables)?;
    }
    let mut warnings = like(&target, &new)?;
    new.file.sync_all().map_err(|source| Error::Io { action: "sync", path: new.path.clone(), source })?;
    let users = may_be_replaced(&place, options)?;
    let kept = beside(&place, &format!(".before-{}", options.mark));
    let kept = switch(&new.path, &place, &kept, users.is_empty())?;
    new.done();
    if let (false, Some(Kept { path })) = (users.is_empty(), &kept) {
        let path = path.display();
        let users = users::named(&users);
        warnings.push(format!("{users} had it open, and works on in {path} until it is started anew"));
    }
    let shown = |path: PathBuf| path.to_string_lossy().into_owned();
    Ok(Restored { database: Some(shown(place)), kept: kept.map(|kept| shown(kept.path)), warnings })
}

/// The file itself, where its name is a link; it need not be there.
fn resolved(target: &Path) -> Result<PathBuf, Error> {
    let io = |source| Error::Io { action: "look at", path: target.to_owned(), source };
    match fs::canonicalize(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let above = target.parent().unwrap_or(Path::new("/"));
            let above = fs::canonicalize(above).map_err(io)?;
            Ok(above.join(target.file_name().unwrap_or_default()))
        }
        found => found.map_err(io),
    }
}

/// Beside the target, or where a whole path says.
fn named(target: &Path, name: &str) -> Result<PathBuf, Error> {
    let is_name = !name.is_empty() && name != "." && name != ".." && !name.contains('\0') && !name.ends_with('/');
    if !is_name || (name.contains('/') && !name.starts_with('/')) {
        return Err(Error::Refused(format!("{name:?} is neither a name of a file nor a whole path")));
    }
    resolved(&target.parent().unwrap_or(Path::new("/")).join(name))
}

/// Who has it open, where that may be.
fn may_be_replaced(place: &Path, options: &Options) -> Result<Vec<String>, Error> {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if options.name.is_some() {
        let taken =
            ["", "-wal", "-journal"].into_iter().map(|suffix| beside(place, suffix)).find(|path| is_there(path));
        return match taken {
            Some(taken) => Err(Error::Refused(format!("{} is there already; choose another name", taken.display()))),
            None => Ok(Vec::new()),
        };
    }
    if is_there(place) && !fs::metadata(place).is_ok_and(|found| found.is_file()) {
        return Err(Error::Refused(format!("{} is no file", place.display())));
    }
    let users = users::of(place);
    if !users.is_empty() && !options.even_if_open {
        let users = users::named(&users);
        let reason =
            format!("{} is open in {users}; stop that first, or restore it under another name", place.display());
        return Err(Error::Refused(reason));
    }
    Ok(users)
}

/// Gives the new file owner, mode and attributes of the one that was there; of none, what fits its directory.
fn like(target: &Path, new: &Unfinished) -> Result<Vec<String>, Error> {
    let io = |source| Error::Io { action: "set the owner of", path: new.path.clone(), source };
    let old = fs::metadata(target);
    let above = || fs::metadata(target.parent().unwrap_or(Path::new("/")));
    let mut warnings = Vec::new();
    let model = match &old {
        Ok(old) => old.clone(),
        Err(_) => above().map_err(io)?,
    };
    let mine = new.file.metadata().map_err(io)?;
    if (mine.uid(), mine.gid()) != (model.uid(), model.gid())
        && std::os::unix::fs::fchown(&new.file, Some(model.uid()), Some(model.gid())).is_err()
    {
        warnings.push(format!("its owner is {} instead of {}, which only root can set", mine.uid(), model.uid()));
    }
    if old.is_ok() {
        for name in attributes(target) {
            let mut value = vec![0; 64 << 10];
            // What one cannot set is the system's to set, such as labels.
            if let Ok(length) = fs::File::open(target).and_then(|old| Ok(fgetxattr(old, &*name, &mut value[..])?)) {
                let _ = fsetxattr(&new.file, &*name, &value[..length], XattrFlags::empty());
            }
        }
    } else {
        warnings.push("there was no file before: its owner is that of its directory, its mode 0640".to_owned());
    }
    let mode = if old.is_ok() { model.mode() & 0o7777 } else { 0o640 };
    new.file.set_permissions(fs::Permissions::from_mode(mode)).map_err(io)?;
    Ok(warnings)
}

fn attributes(path: &Path) -> Vec<CString> {
    let mut names = vec![0; 64 << 10];
    let length = llistxattr(path, &mut names[..]).unwrap_or(0);
    names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .filter_map(|name| CString::new(name).ok())
        .collect()
}

/// Removes all other tables, and what is stored of them. Indexes and triggers go and stay with their tables; views go.
fn keep_only(path: &Path, tables: &[String]) -> Result<(), Error> {
    let database = Database::open(path)?;
    let found: Vec<(String, String)> = database.run("reading its tables", |connection| {
        let all =
            "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name";
        let mut statement = connection.prepare(all)?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    })?;
    let plain = |name: &str| name.strip_prefix("main.").unwrap_or(name).to_ascii_lowercase();
    let wanted: Vec<String> = tables.iter().map(|table| plain(table)).collect();
    for (given, wanted) in tables.iter().zip(&wanted) {
        if !found.iter().any(|(name, kind)| kind != "view" && name.to_ascii_lowercase() == *wanted) {
            let names: Vec<&str> = found.iter().filter(|(_, kind)| kind == "table").map(|(name, _)| &**name).collect();
            let reason = format!("the dump has no table {given:?}; there are {}", names.join(", "));
            return Err(Error::Refused(reason));
        }
    }
    database.run("removing its other tables", |connection| {
        connection.pragma_update(None, "foreign_keys", false)?;
        // What belongs to a virtual table goes with it.
        for (name, kind) in found.iter().filter(|(_, kind)| kind != "shadow") {
            if kind == "view" || !wanted.contains(&name.to_ascii_lowercase()) {
                let kind = if kind == "view" { "VIEW" } else { "TABLE" };
                connection.execute_batch(&format!("DROP {kind} IF EXISTS \"{}\"", name.replace('"', "\"\"")))?;
            }
        }
        connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)")
    })
}
