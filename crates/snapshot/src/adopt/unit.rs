//! The mount at boot: a mount unit, systemd.mount(5).
//!
//! Wanted by `local-fs.target`, not required: a server whose volume cannot be mounted starts all the same, so that
//! somebody can log in and see why. Ordered before that target as every local mount is, so that services start after
//! the mount was tried. What they would find without it is the old directory, which is
//! [closed](super::step::Step::CloseOld): they fail visibly, instead of going on with what was there before.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::runner::{self, Runner};

/// Name of the unit that mounts upon a directory, as `systemd-escape --path --suffix=mount` gives it.
pub fn name(directory: &Path) -> String {
    let parts: Vec<_> =
        directory.as_os_str().as_bytes().split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    let mut name = String::new();
    for (index, byte) in parts.join(&b'/').iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("\\x2e"),
            byte if byte.is_ascii_alphanumeric() || b":_.".contains(byte) => name.push(char::from(*byte)),
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if name.is_empty() { "-.mount".to_owned() } else { format!("{name}.mount") }
}

/// The unit's text. `%` and, in values that are split into words, the backslash mean something to systemd.
pub(super) fn text(directory: &Path, image: &Path) -> String {
    let escaped = |path: &Path| path.to_string_lossy().replace('\\', "\\\\").replace('%', "%%");
    let (place, image) = (escaped(directory), escaped(image));
    format!(
        "# Made by snapback adopt; snapback adopt --undo removes it.\n\
         [Unit]\nDescription=Volume of {place}\n\n\
         [Mount]\nWhat={image}\nWhere={place}\nType=btrfs\nOptions=loop,{}\n\n\
         [Install]\nWantedBy=local-fs.target\n",
        super::OPTIONS
    )
}

/// The line of fstab(5) that does the same, for systems without systemd.
pub fn fstab_line(directory: &Path, image: &Path) -> String {
    let escaped =
        |path: &Path| path.to_string_lossy().replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
    format!("{} {} btrfs loop,{},nofail 0 0", escaped(image), escaped(directory), super::OPTIONS)
}

/// Whether systemd is what runs this system, sd_booted(3).
pub fn is_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

pub(super) fn enable(runner: &dyn Runner, units: &Path, directory: &Path, image: &Path) -> Result<(), Error> {
    let path = units.join(name(directory));
    let unfinished = units.join(format!(".{}.tmp", name(directory)));
    std::fs::write(&unfinished, text(directory, image)).map_err(Error::io("write", &unfinished))?;
    let synced = std::fs::File::open(&unfinished).and_then(|file| file.sync_all());
    synced.map_err(Error::io("sync", &unfinished))?;
    std::fs::rename(&unfinished, &path).map_err(Error::io("rename", &unfinished))?;
    sync(units)?;
    if is_systemd() {
        runner::run(runner, "systemctl", &["daemon-reload"])?;
        // By its path: it may lie where systemd does not look.
        runner::run(runner, "systemctl", &["enable".as_ref(), "--".as_ref(), path.as_os_str()])?;
    }
    Ok(())
}

pub(super) fn disable(runner: &dyn Runner, units: &Path, directory: &Path) -> Result<(), Error> {
    let path = units.join(name(directory));
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    if is_systemd() {
        runner::run(runner, "systemctl", &["disable", "--", &name(directory)])?;
    }
    std::fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    sync(units)?;
    if is_systemd() {
        runner::run(runner, "systemctl", &["daemon-reload"])?;
    }
    Ok(())
}

fn sync(directory: &Path) -> Result<(), Error> {
    std::fs::File::open(directory).and_then(|opened| opened.sync_all()).map_err(Error::io("sync", directory))
}

/// Where administrators' units lie.
pub fn usual_directory() -> PathBuf {
    PathBuf::from("/etc/systemd/system")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units_are_those_of_systemd_escape() {
        for (path, wanted) in [
            ("/srv/shop", "srv-shop.mount"),
            ("/srv/my-shop/", "srv-my\\x2dshop.mount"),
            ("/.hidden/a b", "\\x2ehidden-a\\x20b.mount"),
            ("/srv/k\u{e4}se.d", "srv-k\\xc3\\xa4se.d.mount"),
            ("/", "-.mount"),
        ] {
            assert_eq!(name(Path::new(path)), wanted);
            let real = std::process::Command::new("systemd-escape").args(["--path", "--suffix=mount", path]).output();
            let real = String::from_utf8(real.expect("systemd-escape is there").stdout).unwrap();
            assert_eq!(real.trim_end(), wanted);
        }
    }

    #[test]
    fn the_line_of_fstab_has_no_spaces_within_its_fields() {
        let line = fstab_line(Path::new("/srv/the shop"), Path::new("/var/lib/a b.btrfs"));
        assert_eq!(line, "/var/lib/a\\040b.btrfs /srv/the\\040shop btrfs loop,subvol=live,nodiscard,nofail 0 0");
    }
}
