//! What the device mapper says of a block device, below `/sys/dev/block` (Documentation/ABI/testing/sysfs-block-dm).
//! It can be asked by everyone, and without LVM's commands.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Volume group and name, if a device is a thin volume: one that lies upon a pool.
pub(super) fn thin_volume(device: (u32, u32)) -> Result<Option<(String, String)>, Error> {
    if pool_below(device)?.is_none() {
        return Ok(None);
    }
    let name = attribute(&directory(device).join("dm/name"))?.unwrap_or_default();
    Ok(split(&name))
}

/// The name of the pool's device that a volume of LVM lies upon. LVM gives it a UUID that ends so.
pub(super) fn pool_below(device: (u32, u32)) -> Result<Option<String>, Error> {
    let base = directory(device);
    let is_lvm = attribute(&base.join("dm/uuid"))?.is_some_and(|uuid| uuid.starts_with("LVM-"));
    if !is_lvm {
        return Ok(None);
    }
    let below = base.join("slaves");
    for entry in fs::read_dir(&below).map_err(Error::io("list", &below))? {
        let path = entry.map_err(Error::io("list", &below))?.path();
        if attribute(&path.join("dm/uuid"))?.is_some_and(|uuid| uuid.ends_with("-tpool")) {
            return attribute(&path.join("dm/name"));
        }
    }
    Ok(None)
}

fn directory(device: (u32, u32)) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", device.0, device.1))
}

/// The name of a volume's device; one hyphen separates, a hyphen of a name is doubled (lvm(8)).
pub(super) fn device_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}

/// Its path.
pub(super) fn device_path(group: &str, volume: &str) -> String {
    format!("/dev/mapper/{}", device_name(group, volume))
}

fn split(name: &str) -> Option<(String, String)> {
    let unified = name.replace("--", "\0");
    let (group, volume) = unified.split_once('-')?;
    let plain = |part: &str| part.replace('\0', "-");
    // A third part is a layer inside of LVM.
    (!volume.contains('-')).then(|| (plain(group), plain(volume)))
}

fn attribute(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_in_names_are_doubled() {
        for (group, volume) in [("vg", "shop"), ("vg-a", "the-shop-"), ("a--b", "x")] {
            let name = device_name(group, volume);
            assert_eq!(split(&name), Some((group.to_owned(), volume.to_owned())), "{name}");
        }
        assert_eq!(device_name("vg-a", "shop"), "vg--a-shop");
        assert_eq!(split("vg-pool-tpool"), None);
    }
}
