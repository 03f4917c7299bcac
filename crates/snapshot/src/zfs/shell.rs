//! The end of shells: what a switch set aside is destroyed when the last snapshot in it has been deleted.
//!
//! A shell goes only if it is marked as finished, is not mounted, and nobody's snapshot is in it; never with `-r`.

use crate::zfs::command::Command;
use crate::zfs::family::{Family, Snapshot};

/// After the deletion of a snapshot: a shell without snapshots is destroyed, and one that lost its newest goes back
/// to the one before, so that what only the deleted one held is freed. What fails here is done by the next deletion.
pub(super) fn tidy(command: &Command, before: &Family, deleted: &Snapshot) {
    let Some(shell) = before.shells.iter().find(|shell| shell.name == deleted.dataset) else {
        return tidy_empty(command, before);
    };
    // The head of one that is not finished may hold what no snapshot does.
    let was_newest = before.is_newest(deleted) && shell.is_complete && !shell.is_mounted;
    let newest_left = before.snapshots_of(&shell.name).rev().find(|other| *other != deleted);
    if let (true, Some(newest)) = (was_newest, newest_left) {
        let _ = command.run(&["rollback", &newest.full()]);
    }
    tidy_empty(command, before);
}

/// Destroys the finished shells that hold no snapshot any more.
fn tidy_empty(command: &Command, before: &Family) {
    if before.shells.is_empty() || !before.next.is_empty() {
        return;
    }
    let Some(live) = &before.live else { return };
    let Ok(mut family) = Family::read(command, &live.name) else { return };
    for shell in family.shells.clone() {
        if family.snapshots_of(&shell.name).any(|snapshot| !snapshot.is_doomed)
            || shell.is_mounted
            || !shell.is_complete
        {
            continue;
        }
        // Doomed snapshots that others were cloned from go to them.
        let origins: Vec<String> = family.snapshots_of(&shell.name).rev().map(Snapshot::full).collect();
        for origin in origins {
            let dependent = family.members().find(|member| member.origin.as_deref() == Some(&*origin));
            if let Some(dependent) = dependent {
                let _ = command.run(&["promote", &dependent.name]);
            }
            let Ok(again) = Family::read(command, &live.name) else { return };
            family = again;
        }
        let _ = command.run(&["destroy", &shell.name]);
    }
}
