//! What the next start of the system will mount: `/etc/fstab` and the kernel's command line.
//!
//! A rollback gives the new tree the old one's name, not its number. What asks for the number goes on to get the old
//! tree, and everybody would believe that they were rolled back, until the next start.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::mounts::unescape;

/// Refused if one of the mounts is made by the number of the subvolume.
pub(crate) fn refuse_by_number(points: &[PathBuf], subvolume: u64) -> Result<(), Error> {
    // Neither has to be there: in a container, for example.
    let text = |path: &str| std::fs::read(path).unwrap_or_default();
    let asks = [
        ("/etc/fstab", by_fstab(&text("/etc/fstab"), points, subvolume)),
        ("the kernel's command line", by_command_line(&text("/proc/cmdline"), points, subvolume)),
    ];
    for (whose, point) in asks {
        if let Some(point) = point {
            let point = point.display();
            return Err(Error::refused(format!(
                "{whose} mounts {point} with subvolid={subvolume}: the next start would show the old tree again"
            ))
            .or(format!("name the subvolume for {point} in {whose} with subvol= instead")));
        }
    }
    Ok(())
}

fn by_fstab(text: &[u8], points: &[PathBuf], subvolume: u64) -> Option<PathBuf> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let (source, point, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let point = unescape(point);
        let is_meant = !source.starts_with(b"#") && kind == b"btrfs" && points.contains(&point);
        (is_meant && asks_for(options, subvolume)).then_some(point)
    })
}

fn by_command_line(text: &[u8], points: &[PathBuf], subvolume: u64) -> Option<PathBuf> {
    let root = points.iter().find(|point| *point == Path::new("/"))?;
    let mut words = text.split(u8::is_ascii_whitespace);
    words
        .any(|word| word.strip_prefix(b"rootflags=").is_some_and(|options| asks_for(options, subvolume)))
        .then(|| root.clone())
}

fn asks_for(options: &[u8], subvolume: u64) -> bool {
    let number = subvolume.to_string();
    options.split(|byte| *byte == b',').any(|option| option.strip_prefix(b"subvolid=") == Some(number.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_by_number_are_found() {
        let fstab = b"# /dev/sda1 /srv btrfs subvolid=257 0 0\n\
            UUID=1-2  /\tbtrfs  defaults,subvol=/@ 0 0\n\
            UUID=1-2  /srv/the\\040shop btrfs noatime,subvolid=257 0 0\n\
            /dev/sdb1 /data xfs defaults 0 0\n";
        let points = [PathBuf::from("/"), PathBuf::from("/srv/the shop"), PathBuf::from("/srv")];
        assert_eq!(by_fstab(fstab, &points, 257).as_deref(), Some(Path::new("/srv/the shop")));
        assert_eq!(by_fstab(fstab, &points[..1], 257), None);
        assert_eq!(by_fstab(fstab, &points, 25), None);
        let line = b"quiet root=UUID=1-2 rootflags=compress=zstd,subvolid=256 ro\n";
        assert_eq!(by_command_line(line, &points, 256).as_deref(), Some(Path::new("/")));
        assert_eq!(by_command_line(line, &points[1..], 256), None);
    }
}
