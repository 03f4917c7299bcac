//! The steps of a move, onto a volume or back, as the journal has them.

use serde::{Deserialize, Serialize};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Allocates the image file.
    Allocate,
    /// Makes a btrfs in it.
    MakeFileSystem,
    /// Mounts it aside.
    MountTop,
    /// Makes the subvolume that will be the directory.
    MakeSubvolume,
    /// Makes what lies below the volume's mount reachable.
    MountBelow,
    /// Lets the old directory be changed again.
    OpenOld,
    /// Copies, compares byte by byte, and copies what differs.
    Copy,
    /// Stops the units that were named.
    StopUnits,
    /// Makes the directory read-only for all who are not writing yet.
    Freeze,
    /// Copies what changed since, until nothing does.
    CopyRest,
    /// Lets the volume be mounted at boot.
    EnableUnit,
    /// Lets the volume not be mounted at boot any more.
    DisableUnit,
    /// Mounts the volume in the directory's place.
    Switch,
    /// Unmounts the volume.
    SwitchBack,
    /// Closes the old directory, so that nobody works in it should the volume not be mounted one day.
    CloseOld,
    /// Starts the units that were stopped.
    StartUnits,
    /// Removes what the old directory holds.
    RemoveOld,
    /// Unmounts what was mounted aside.
    UnmountTop,
    /// Unmounts what made the old directory reachable.
    UnmountBelow,
    /// Removes the image.
    Discard,
}

impl Step {
    /// What it does, for people.
    pub fn name(self) -> &'static str {
        match self {
            Step::Allocate => "allocate the image",
            Step::MakeFileSystem => "make a btrfs in it",
            Step::MountTop => "mount it aside",
            Step::MakeSubvolume => "make a subvolume",
            Step::MountBelow => "reach the directory below the volume",
            Step::OpenOld => "open the old directory again",
            Step::Copy => "copy everything and compare it",
            Step::StopUnits => "stop the units",
            Step::Freeze => "make the directory read-only",
            Step::CopyRest => "copy what changed meanwhile",
            Step::EnableUnit => "mount the volume at boot",
            Step::DisableUnit => "mount the volume no more at boot",
            Step::Switch => "mount the volume in the directory's place",
            Step::SwitchBack => "unmount the volume",
            Step::CloseOld => "close the old directory",
            Step::StartUnits => "start the units",
            Step::RemoveOld => "remove what the old directory holds",
            Step::UnmountTop => "unmount what was mounted aside",
            Step::UnmountBelow => "leave the directory below the volume",
            Step::Discard => "remove the image",
        }
    }
}
