//! Databases that a new project has: looked for, and asked whether they can be dumped.

use std::path::Path;

use engine::discover::{self, FoundServer};
use engine::protect::NewDatabase;
use workload::address::{Address, Login};
use workload::dump;

use crate::output::{Output, printable};

/// Those that can be dumped as things are. Of the others it is said why not, and what to write.
pub(super) fn reached(directory: &Path, output: &Output) -> Vec<NewDatabase> {
    let mut found = Vec::new();
    for server in discover::servers(Path::new("/")) {
        let is_inside = server.directory.as_ref().is_some_and(|data| data.starts_with(directory));
        match is_inside {
            true => found.push(NewDatabase { name: "all".to_owned(), address: server.address, all: true }),
            false if server.is_running => elsewhere(&server, output),
            false => {}
        }
    }
    // Below / lie those of every program, which are none of a project.
    if directory != Path::new("/") {
        let files = discover::sqlite_files(directory);
        let new = |file: &Path| {
            let address = Address::Sqlite(file.to_owned());
            // What an address cannot say is left to its files.
            let is_text = Address::parse(&address.to_string()).is_ok_and(|read| read == address);
            is_text.then(|| NewDatabase { name: discover::stem(file), address, all: false })
        };
        found.extend(files.files.iter().filter_map(|file| new(file)));
        if files.has_more {
            let directory = printable(directory);
            output.message(format_args!("there may be more files of SQLite below {directory} than were looked at"));
        }
    }
    found.retain(|database| is_reached(database, output));
    found
}

fn is_reached(database: &NewDatabase, output: &Output) -> bool {
    let reached = dump::contents(&Login::new(database.address.clone()), database.all);
    match &reached {
        Ok(contents) => {
            let count = contents.parts.iter().filter(|part| part.database.is_some()).count();
            let what = if database.all { format!(" with {count} databases") } else { String::new() };
            output
                .message(format_args!("{}: {}{what}, is dumped into every backup", database.address, contents.server));
        }
        Err(error) => {
            let lines = if database.all { ", all = true" } else { "" };
            output.message(format_args!(
                "not added: {error}\n  once it can be reached: [project.NAME.database.{}] with url = \"{}\"{lines}",
                database.name, database.address
            ));
        }
    }
    reached.is_ok()
}

/// A server whose data lies in another place: whether the project uses it, only its people know.
fn elsewhere(server: &FoundServer, output: &Output) {
    output.message(format_args!(
        "{} runs here: if the project has a database in it, add [project.NAME.database.NAME] with url = \"{}\"",
        server.name,
        server.address.with_database("NAME")
    ));
}
