//! The stream that `BTRFS_IOC_SEND` writes: commands that make one tree out of another, as in the kernel's
//! `fs/btrfs/send.h`. What they would write is of no interest here, only which names they name.
//!
//! ```text
//! "btrfs-stream\0"  version: u32
//! length: u32  command: u16  checksum: u32     the length is that of the attributes
//!   attribute: u16  length: u16  value
//! ```

use std::ffi::OsStr;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What a command does to names. Paths are those of the moment: what was done before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// Content, attributes or times of a path change, or it is made.
    Touch(&'a Path),
    /// A path gets another name, with all that is below it.
    Rename { from: &'a Path, to: &'a Path },
    /// A file gets one name more.
    Link { new: &'a Path, existing: &'a Path },
    /// A name goes: of a file, or of a directory that is empty by then.
    Remove(&'a Path),
}

const MAGIC: &[u8] = b"btrfs-stream\0";
/// Attributes of one command are at most 64 KiB long in version 1.
const LONGEST: usize = 1 << 20;

/// Reads a stream to its end, or until the function it shows each command to has enough. An error if any of it is not
/// understood, or if it is cut off.
pub(crate) fn read(
    stream: &mut impl Read,
    found: &mut dyn FnMut(Command) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut header = [0; 17];
    stream.read_exact(&mut header)?;
    if !header.starts_with(MAGIC) || header[13..] != 1_u32.to_le_bytes() {
        return Err(strange("the beginning"));
    }
    let mut attributes = Vec::new();
    loop {
        let mut head = [0; 10];
        stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let command = u16::from_le_bytes([head[4], head[5]]);
        if length > LONGEST {
            return Err(strange("the length of a command"));
        }
        attributes.resize(length, 0);
        stream.read_exact(&mut attributes)?;
        if command == END {
            return Ok(ControlFlow::Continue(()));
        }
        if let Some(command) = understand(command, &attributes)?
            && found(command).is_break()
        {
            return Ok(ControlFlow::Break(()));
        }
    }
}

/// BTRFS_SEND_C_END.
const END: u16 = 21;

fn understand(command: u16, attributes: &[u8]) -> io::Result<Option<Command<'_>>> {
    const PATH: u16 = 15;
    const PATH_TO: u16 = 16;
    const PATH_LINK: u16 = 17;
    let path = |which| attribute(attributes, which);
    Ok(Some(match command {
        // SUBVOL and SNAPSHOT name the subvolume itself.
        1 | 2 => return Ok(None),
        // MKFILE, MKDIR, MKNOD, MKFIFO, MKSOCK, SYMLINK.
        3..=8 => Command::Touch(path(PATH)?),
        9 => Command::Rename { from: path(PATH)?, to: path(PATH_TO)? },
        10 => Command::Link { new: path(PATH)?, existing: path(PATH_LINK)? },
        // UNLINK, RMDIR.
        11 | 12 => Command::Remove(path(PATH)?),
        // SET_XATTR, REMOVE_XATTR, WRITE, CLONE, TRUNCATE, CHMOD, CHOWN, UTIMES.
        13..=20 => Command::Touch(path(PATH)?),
        // UPDATE_EXTENT, and of later versions FALLOCATE, FILEATTR, ENCODED_WRITE, ENABLE_VERITY.
        22..=26 => Command::Touch(path(PATH)?),
        _ => return Err(strange("a command")),
    }))
}

fn attribute(mut attributes: &[u8], which: u16) -> io::Result<&Path> {
    while let Some((head, rest)) = attributes.split_at_checked(4) {
        let length = u16::from_le_bytes([head[2], head[3]]);
        let (value, rest) =
            rest.split_at_checked(length.into()).ok_or_else(|| strange("the length of an attribute"))?;
        if u16::from_le_bytes([head[0], head[1]]) == which {
            let path = Path::new(OsStr::from_bytes(value));
            let is_plain = path.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            return if is_plain && !value.contains(&0) { Ok(path) } else { Err(strange("a path")) };
        }
        attributes = rest;
    }
    Err(strange("the attributes of a command"))
}

fn strange(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} of a btrfs stream cannot be understood"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A stream of commands with their paths: PATH first, then PATH_TO or PATH_LINK.
    pub(crate) fn stream(commands: &[(u16, &[&str])]) -> Vec<u8> {
        let mut stream = [MAGIC, &1_u32.to_le_bytes()].concat();
        for (command, paths) in commands {
            let mut attributes = Vec::new();
            for (number, path) in paths.iter().enumerate() {
                let kind: u16 = match (number, command) {
                    (0, _) => 15,
                    (_, 10) => 17,
                    _ => 16,
                };
                attributes.extend(kind.to_le_bytes());
                attributes.extend((path.len() as u16).to_le_bytes());
                attributes.extend(path.as_bytes());
            }
            stream.extend((attributes.len() as u32).to_le_bytes());
            stream.extend(command.to_le_bytes());
            stream.extend([0; 4]);
            stream.extend(attributes);
        }
        stream
    }

    #[test]
    fn commands_are_shown_in_their_order() {
        let stream = stream(&[
            (2, &["tree"]),
            (4, &["o257-8-0"]),
            (9, &["o257-8-0", "new"]),
            (10, &["b", "a"]),
            (11, &["a"]),
            (20, &[""]),
            (END, &[]),
        ]);
        let mut found = Vec::new();
        let told = read(&mut &stream[..], &mut |command| {
            found.push(format!("{command:?}"));
            ControlFlow::Continue(())
        });
        assert_eq!(told.unwrap(), ControlFlow::Continue(()));
        let expected = [
            r#"Touch("o257-8-0")"#,
            r#"Rename { from: "o257-8-0", to: "new" }"#,
            r#"Link { new: "b", existing: "a" }"#,
            r#"Remove("a")"#,
            r#"Touch("")"#,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn whoever_has_enough_is_shown_no_more() {
        let stream = stream(&[(11, &["a"]), (11, &["b"])]);
        let mut found = 0;
        let enough = &mut |_: Command<'_>| {
            found += 1;
            ControlFlow::Break(())
        };
        assert_eq!(read(&mut &stream[..], enough).unwrap(), ControlFlow::Break(()));
        assert_eq!(found, 1);
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        let whole = stream(&[(9, &["a", "b"]), (END, &[])]);
        for length in 0..whole.len() {
            read(&mut &whole[..length], &mut |_| ControlFlow::Continue(())).expect_err("it is cut off");
        }
        for wrong in [(77, &["a"][..]), (9, &["a"]), (11, &["../a"]), (11, &["/a"]), (11, &["a\0"])] {
            read(&mut &stream(&[wrong, (END, &[])])[..], &mut |_| ControlFlow::Continue(()))
                .expect_err("it cannot be understood");
        }
    }
}
