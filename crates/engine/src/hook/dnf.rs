//! The hooks of dnf: files that its own plugins for actions read, so that nothing of ours is loaded into dnf.
//!
//! Version 5 has them with libdnf5-plugin-actions (libdnf5-actions(8)), version 4 with
//! python3-dnf-plugin-pre-transaction-actions. Both call once for each package: the first call makes the snapshot, the
//! others add their package to its note.

use super::{Installation, command_line};
use snapshot::error::Error;

/// Where version 4 looks for it.
pub const FILE_4: &str = "/etc/dnf/plugins/pre-transaction-actions.d/snapback.action";
/// Where version 5 looks for it.
pub const FILE_5: &str = "/etc/dnf/libdnf5-plugins/actions.d/snapback.actions";

const HEAD: &str = "\
    # Written by `snapback hook install dnf`; `snapback hook uninstall dnf` removes it.\n\
    # A snapshot before each transaction of dnf.\n";

/// The file of version 4, which gives the command to a shell, and goes on whatever comes of it.
pub fn configuration_4(installation: &Installation<'_>) -> Result<String, Error> {
    if installation.is_strict {
        return Err(Error::refused("version 4 of dnf goes on whatever a hook says: it cannot be strict"));
    }
    let run = command_line("dnf", "$PPID", installation)?;
    let program = installation.program.display();
    Ok(format!(
        "{HEAD}*:any:test ! -x {program} || {run} --package '${{name}}-${{ver}}-${{rel}}.${{arch}} ${{state}}'\n"
    ))
}

/// The file of version 5, which takes what a command prints for orders: ours prints elsewhere.
pub fn configuration_5(installation: &Installation<'_>) -> Result<String, Error> {
    let run = command_line("dnf", "${pid}", installation)?;
    let program = installation.program.display();
    let (options, end) = if installation.is_strict { ("raise_error=1", "") } else { ("", " || true") };
    let package = "--package \"${pkg.full_nevra} ${pkg.action}\"";
    Ok(format!("{HEAD}pre_transaction:*::{options}:/bin/sh -c 'test ! -x {program} || {run} {package} >&2{end}'\n"))
}
