//! How much room a snapshot takes: what the pool's metadata says, read by thin_ls(8) and thin_delta(8) while the pool
//! is in use.

use crate::error::Error;
use crate::lvm::LvmThin;
use crate::lvm::mapper;
use crate::lvm::volumes::{Volume, Volumes};
use crate::provider::Space;

/// A moment of the pool's metadata, held still for reading. There is one at a time for each pool.
struct Still<'a> {
    provider: &'a LvmThin,
    pool: String,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let _ = self.provider.command.run("dmsetup", &["message", &self.pool, "0", "release_metadata_snap"]);
    }
}

/// Room of a snapshot. Neither number is known while somebody else reads the metadata, or without the two commands.
pub(super) fn of(provider: &LvmThin, volumes: &Volumes, snapshot: &Volume) -> Result<Space, Error> {
    let (Some(pool), Some(number)) = (&snapshot.pool, snapshot.thin_id) else { return Ok(Space::default()) };
    // Layers below a volume have names of their own, behind a third hyphen or an underscore.
    let pool_name = mapper::device_name(&provider.group, pool);
    let still = Still { provider, pool: format!("{pool_name}-tpool") };
    let reserved = provider.command.run("dmsetup", &["message", &still.pool, "0", "reserve_metadata_snap"]);
    if let Err(error) = reserved {
        // Not ours to release.
        std::mem::forget(still);
        return if matches!(error, Error::Privilege { .. }) { Err(error) } else { Ok(Space::default()) };
    }
    let metadata = format!("/dev/mapper/{pool_name}_tmeta");
    let options = ["--metadata-snap", "--no-headers", "--format", "DEV,EXCLUSIVE_BYTES", &metadata];
    let exclusive = provider.command.run("thin_ls", &options);
    let reclaimable = exclusive.ok().and_then(|answer| exclusive_bytes(&answer, number));
    let live = volumes.named(&provider.volume).and_then(|volume| volume.thin_id);
    let grown = live.and_then(|live| {
        let (from, to) = (number.to_string(), live.to_string());
        let options = ["--metadata-snap", "--thin1", &from, "--thin2", &to, &metadata];
        written_since(&provider.command.run("thin_delta", &options).ok()?)
    });
    Ok(Space { grown, reclaimable })
}

/// The second column of the line that begins with the number.
fn exclusive_bytes(answer: &str, number: u64) -> Option<u64> {
    let mut lines = answer.lines().map(|line| line.split_whitespace());
    lines.find_map(|mut fields| {
        let is_it = fields.next()?.parse() == Ok(number);
        is_it.then(|| fields.next()?.parse().ok()).flatten()
    })
}

/// What the second of two volumes has that the first has not, or has otherwise, in bytes.
fn written_since(answer: &str) -> Option<u64> {
    let attribute = |line: &str, name: &str| -> Option<u64> {
        let (_, rest) = line.split_once(&format!(" {name}=\""))?;
        rest.split_once('"')?.0.parse().ok()
    };
    // In sectors of 512 bytes.
    let block = answer.lines().find_map(|line| attribute(line, "data_block_size"))? * 512;
    let mut blocks = 0;
    for line in answer.lines().map(str::trim_start) {
        if line.starts_with("<different ") || line.starts_with("<right_only ") {
            blocks += attribute(line, "length")?;
        }
    }
    Some(blocks * block)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of thin-provisioning-tools 0.9.
    #[test]
    fn the_answers_of_both_commands_are_understood() {
        let listed = "  1        10289152 \n  2          327680 \n 12 7\n";
        assert_eq!(exclusive_bytes(listed, 2), Some(327_680));
        assert_eq!(exclusive_bytes(listed, 3), None);
        let delta = "<superblock uuid=\"\" time=\"2\" transaction=\"3\" data_block_size=\"128\" nr_data_blocks=\"0\">\n  \
            <diff left=\"2\" right=\"3\">\n    <different begin=\"0\" length=\"1\"/>\n    <same begin=\"1\" length=\"3\"/>\n    \
            <right_only begin=\"5\" length=\"119\"/>\n    <left_only begin=\"200\" length=\"7\"/>\n  </diff>\n</superblock>\n";
        assert_eq!(written_since(delta), Some(120 * 65_536));
        assert_eq!(written_since(""), None);
    }
}
