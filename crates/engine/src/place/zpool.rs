//! The members of a ZFS pool, from `zpool status`.

use std::path::PathBuf;

/// Files and devices, as absolute paths; and members that no path is told of. Log, cache and spare devices count as
/// members, too: better one too many than one too few.
pub(super) fn members(status: &str) -> (Vec<PathBuf>, Vec<String>) {
    let (mut paths, mut others) = (Vec::new(), Vec::new());
    let lines = status.lines().skip_while(|line| !is_heading(line)).skip(1);
    let config: Vec<&str> = lines.take_while(|line| !line.trim().is_empty()).collect();
    // The first is the pool itself.
    for (number, line) in config.iter().enumerate().skip(1) {
        let Some(name) = line.split_ascii_whitespace().next() else { continue };
        let depth = indentation(line);
        let has_members = config.get(number + 1).is_some_and(|next| indentation(next) > depth);
        let is_group = depth == indentation(config[0]);
        match name {
            name if name.starts_with('/') => paths.push(PathBuf::from(name)),
            _ if has_members || is_group => {}
            // One that is missing, by its number: `was /dev/sdb1` follows, and there is nothing to share with it.
            _ if line.contains(" was ") => {}
            name => others.push(name.to_owned()),
        }
    }
    (paths, others)
}

fn is_heading(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words.next() == Some("NAME") && words.next() == Some("STATE")
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_from_what_groups_them() {
        let status = "  pool: tank\n state: DEGRADED\n  scan: none requested\nconfig:\n\n\
            \tNAME                      STATE     READ WRITE CKSUM\n\
            \ttank                      DEGRADED     0     0     0\n\
            \t  mirror-0                DEGRADED     0     0     0\n\
            \t    /dev/sda3             ONLINE       0     0     0\n\
            \t    1234567890123456789   UNAVAIL      0     0     0  was /dev/sdb3\n\
            \t  sdc                     ONLINE       0     0     0\n\
            \tlogs\n\
            \t  /dev/nvme0n1p4          ONLINE       0     0     0\n\
            \tspares\n\
            \t  /dev/sdd1               AVAIL\n\nerrors: No known data errors\n";
        let (paths, others) = members(status);
        assert_eq!(paths, ["/dev/sda3", "/dev/nvme0n1p4", "/dev/sdd1"].map(PathBuf::from));
        assert_eq!(others, ["sdc"]);
    }

    #[test]
    fn what_is_no_status_has_no_members() {
        assert_eq!(members("cannot open 'tank': no such pool\n"), (Vec::new(), Vec::new()));
    }
}
