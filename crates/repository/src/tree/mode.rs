//! Go's `FileMode`, which trees store, and the kernel's `st_mode`.
//!
//! The permissions are the same low nine bits in both; type, setuid, setgid and sticky lie elsewhere (Go's `io/fs`, inode(7)).

pub(super) const DIR: u32 = 1 << 31;
pub(super) const SYMLINK: u32 = 1 << 27;
pub(super) const DEVICE: u32 = 1 << 26;
pub(super) const NAMED_PIPE: u32 = 1 << 25;
pub(super) const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
pub(super) const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
pub(super) const IRREGULAR: u32 = 1 << 19;
/// The bits that tell what an entry is; none of them: a regular file.
pub(super) const TYPE: u32 = DIR | SYMLINK | NAMED_PIPE | SOCKET | DEVICE | CHAR_DEVICE | IRREGULAR;
const PERMISSIONS: u32 = 0o777;

const S_IFMT: u32 = 0o170_000;
const TYPES: [(u32, u32); 7] = [
    (0o100_000, 0),
    (0o040_000, DIR),
    (0o120_000, SYMLINK),
    (0o060_000, DEVICE),
    (0o020_000, DEVICE | CHAR_DEVICE),
    (0o010_000, NAMED_PIPE),
    (0o140_000, SOCKET),
];
const SPECIAL: [(u32, u32); 3] = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];

/// Go's mode for an `st_mode`. A type that the kernel does not define is no type bit at all, as in Go.
pub fn file_mode_from_st_mode(st_mode: u32) -> u32 {
    let kind = TYPES.iter().find(|(st, _)| *st == st_mode & S_IFMT).map_or(0, |(_, go)| *go);
    let special: u32 = SPECIAL.iter().filter(|(st, _)| st_mode & st != 0).map(|(_, go)| go).sum();
    kind | special | st_mode & PERMISSIONS
}

/// The `st_mode` for Go's mode, with its type bits; an irregular file's are 0.
pub fn st_mode_from_file_mode(file_mode: u32) -> u32 {
    let kind = TYPES.iter().find(|(_, go)| *go == file_mode & TYPE).map_or(0, |(st, _)| *st);
    let special: u32 = SPECIAL.iter().filter(|(_, go)| file_mode & go != 0).map(|(st, _)| st).sum();
    kind | special | file_mode & PERMISSIONS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_the_ones_restic_writes() {
        for (st_mode, file_mode) in [
            (0o100_644, 0o644),
            (0o104_755, 0o755 | SETUID),
            (0o040_755, 2_147_484_141),
            (0o041_777, DIR | STICKY | 0o777),
            (0o042_775, DIR | SETGID | 0o775),
            (0o120_777, 134_218_239),
            (0o060_660, DEVICE | 0o660),
            (0o020_666, DEVICE | CHAR_DEVICE | 0o666),
            (0o010_600, NAMED_PIPE | 0o600),
            (0o140_755, SOCKET | 0o755),
        ] {
            assert_eq!(file_mode_from_st_mode(st_mode), file_mode, "{st_mode:o}");
            assert_eq!(st_mode_from_file_mode(file_mode), st_mode, "{file_mode:#x}");
        }
    }

    #[test]
    fn types_nobody_knows_do_not_become_another_type() {
        assert_eq!(st_mode_from_file_mode(IRREGULAR | 0o600), 0o600);
        assert_eq!(st_mode_from_file_mode(DIR | SYMLINK | 0o600), 0o600);
        assert_eq!(file_mode_from_st_mode(0o600), 0o600);
    }
}
