//! The volumes of a group: `lvs --reportformat json`, lvmreport(7).

use serde::Deserialize;

use crate::error::Error;
use crate::id::Id;
use crate::lvm::FileSystem;
use crate::lvm::command::Command;

/// Above it nothing new is made: a pool without free blocks fails the writes of every volume in it.
const DATA_LIMIT_PERCENT: f64 = 95.0;
/// Metadata cannot be freed by deleting files, and a pool without is damaged.
const METADATA_LIMIT_PERCENT: f64 = 90.0;

/// Tags carry what a name cannot: lvm(8) allows letters, digits and `_+.-/=!:#&`.
const ID_TAG: &str = "snapback:id=";
const OF_TAG: &str = "snapback:of=";
const ON_TAG: &str = "snapback:on=";
const NEXT_TAG: &str = "snapback:next=";

/// What a snapshot, and a tree that was left, is called.
pub(super) fn snapshot_name(id: Id) -> String {
    format!("snapback-{id}")
}

/// What the copy is called until it takes the volume's place.
pub(super) fn next_name(old: Id) -> String {
    format!("snapback-next-{old}")
}

/// The tags of a snapshot: its id, what it is of, and the file system on it.
pub(super) fn tags(id: Id, of: &str, on: FileSystem) -> [String; 3] {
    [format!("{ID_TAG}{id}"), format!("{OF_TAG}{of}"), format!("{ON_TAG}{}", on.name())]
}

/// The tag of a copy made by the switch that left a tree.
pub(super) fn next_tag(old: Id) -> String {
    format!("{NEXT_TAG}{old}")
}

/// A logical volume.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Volume {
    pub(super) name: String,
    pub(super) uuid: String,
    pub(super) tags: Vec<String>,
    /// The pool, if it is thin.
    pub(super) pool: Option<String>,
    /// Its number in the pool.
    pub(super) thin_id: Option<u64>,
    pub(super) is_read_only: bool,
    /// Not activated at boot.
    pub(super) is_skipped: bool,
    /// Major and minor, if it is active.
    pub(super) device: Option<(u32, u32)>,
    /// How full it is, if it is a pool.
    pub(super) data_percent: Option<f64>,
    pub(super) metadata_percent: Option<f64>,
}

impl Volume {
    /// The id, if we made it, and it was not given another name since.
    pub(super) fn id(&self) -> Option<Id> {
        let id = self.tag(ID_TAG)?.parse().ok()?;
        (self.name == snapshot_name(id)).then_some(id)
    }

    /// What it is a snapshot of.
    pub(super) fn of(&self) -> Option<&str> {
        self.tag(OF_TAG)
    }

    /// The file system on it.
    pub(super) fn file_system(&self) -> Option<FileSystem> {
        let name = self.tag(ON_TAG)?;
        [FileSystem::Ext4, FileSystem::Xfs].into_iter().find(|file_system| file_system.name() == name)
    }

    /// Whether it is the copy that the switch made that left a tree.
    pub(super) fn is_next(&self, old: Id) -> bool {
        self.tag(NEXT_TAG).is_some_and(|tag| tag == old.to_string())
    }

    /// Tags that are not ours.
    pub(super) fn foreign_tags(&self) -> impl Iterator<Item = &String> {
        let ours = [ID_TAG, OF_TAG, ON_TAG, NEXT_TAG];
        self.tags.iter().filter(move |tag| !ours.iter().any(|prefix| tag.starts_with(prefix)))
    }

    fn tag(&self, prefix: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
    }
}

/// All volumes of a group.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Volumes {
    pub(super) all: Vec<Volume>,
}

/// As reported: every value is a string, and empty where it does not apply.
#[derive(Deserialize)]
struct Row {
    lv_name: String,
    lv_uuid: String,
    lv_tags: String,
    pool_lv: String,
    thin_id: String,
    lv_permissions: String,
    lv_skip_activation: String,
    lv_kernel_major: String,
    lv_kernel_minor: String,
    data_percent: String,
    metadata_percent: String,
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Rows>,
}

#[derive(Deserialize)]
struct Rows {
    lv: Vec<Row>,
}

const FIELDS: &str = "lv_name,lv_uuid,lv_tags,pool_lv,thin_id,lv_permissions,lv_skip_activation,lv_kernel_major,\
    lv_kernel_minor,data_percent,metadata_percent";

impl Volumes {
    /// Asks for them.
    pub(super) fn read(command: &Command, group: &str) -> Result<Volumes, Error> {
        let arguments = ["--reportformat", "json", "--options", FIELDS, group];
        let answer = command.run("lvs", &arguments)?;
        Volumes::parse(&answer).map_err(|error| Error::Answer {
            command: format!("lvs {}", arguments.join(" ")),
            reason: error.to_string(),
        })
    }

    fn parse(answer: &str) -> Result<Volumes, serde_json::Error> {
        let report: Report = serde_json::from_str(answer)?;
        let rows = report.report.into_iter().flat_map(|rows| rows.lv);
        let all = rows.map(|row| Volume {
            name: row.lv_name,
            uuid: row.lv_uuid,
            tags: row.lv_tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            pool: Some(row.pool_lv).filter(|pool| !pool.is_empty()),
            thin_id: row.thin_id.parse().ok(),
            // Shown of an active volume that LVM says is writable while the device is not: "read-only-override".
            is_read_only: row.lv_permissions == "read-only",
            is_skipped: !row.lv_skip_activation.is_empty(),
            // An inactive volume has the number -1.
            device: row.lv_kernel_major.parse().ok().zip(row.lv_kernel_minor.parse().ok()),
            data_percent: row.data_percent.parse().ok(),
            metadata_percent: row.metadata_percent.parse().ok(),
        });
        Ok(Volumes { all: all.collect() })
    }

    /// The volume of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Volume> {
        self.all.iter().find(|volume| volume.name == name)
    }

    /// Refuses to make anything new in the pool of a volume if that is nearly full.
    pub(super) fn check_room(&self, group: &str, volume: &str) -> Result<(), Error> {
        let Some(of) = self.named(volume) else {
            return Err(Error::refused(format!("there is no volume {group}/{volume}")));
        };
        let Some(pool) = of.pool.as_deref().and_then(|pool| self.named(pool)) else {
            return Err(Error::refused(format!("{group}/{volume} is not a thin volume")));
        };
        let full = format!("{group}/{}", pool.name);
        for (what, percent, limit) in [
            ("data", pool.data_percent, DATA_LIMIT_PERCENT),
            ("metadata", pool.metadata_percent, METADATA_LIMIT_PERCENT),
        ] {
            // A pool that does not say is damaged, or not active.
            let Some(percent) = percent else {
                return Err(Error::refused(format!("the thin pool {full} does not say how full it is"))
                    .or(format!("look at it: lvs -a {group}")));
            };
            if percent >= limit {
                let message = format!("the {what} of the thin pool {full} is {percent} % full; the limit is {limit} %");
                let option = if what == "data" { "--size" } else { "--poolmetadatasize" };
                return Err(
                    Error::refused(message).or(format!("delete snapshots, or extend it: lvextend {option} +1G {full}"))
                );
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As LVM 2.03.16 reports it.
    fn report(data: &str, metadata: &str) -> String {
        format!(
            r#"{{"report": [{{"lv": [
                {{"lv_name":"pool", "lv_uuid":"lyGTK9-1", "lv_tags":"", "pool_lv":"", "thin_id":"", "lv_permissions":"writeable", "lv_skip_activation":"",
                  "lv_kernel_major":"254", "lv_kernel_minor":"2", "data_percent":"{data}", "metadata_percent":"{metadata}"}},
                {{"lv_name":"shop", "lv_uuid":"MMTXzL-2", "lv_tags":"important,snapback:next=0123456789ab", "pool_lv":"pool", "thin_id":"1", "lv_permissions":"writeable", "lv_skip_activation":"",
                  "lv_kernel_major":"254", "lv_kernel_minor":"4", "data_percent":"3.25", "metadata_percent":""}},
                {{"lv_name":"snapback-0123456789ab", "lv_uuid":"9nJIUc-3", "lv_tags":"snapback:id=0123456789ab,snapback:of=shop,snapback:on=xfs",
                  "pool_lv":"pool", "thin_id":"2", "lv_permissions":"read-only", "lv_skip_activation":"skip activation", "lv_kernel_major":"-1", "lv_kernel_minor":"-1", "data_percent":"", "metadata_percent":""}}
            ]}}]}}"#
        )
    }

    #[test]
    fn a_report_is_understood() {
        let volumes = Volumes::parse(&report("2.50", "11.04")).unwrap();
        let id: Id = "0123456789ab".parse().unwrap();
        let (shop, snapshot) = (volumes.named("shop").unwrap(), volumes.named("snapback-0123456789ab").unwrap());
        assert_eq!((shop.id(), shop.is_next(id), shop.device, shop.thin_id), (None, true, Some((254, 4)), Some(1)));
        assert_eq!(shop.foreign_tags().collect::<Vec<_>>(), ["important"]);
        assert_eq!((shop.file_system(), snapshot.file_system()), (None, Some(FileSystem::Xfs)));
        assert_eq!((shop.is_read_only, shop.is_skipped), (false, false));
        assert_eq!((snapshot.is_read_only, snapshot.is_skipped), (true, true));
        assert_eq!((snapshot.id(), snapshot.of(), snapshot.device), (Some(id), Some("shop"), None));
        volumes.check_room("vg", "shop").unwrap();
    }

    #[test]
    fn a_pool_that_is_nearly_full_or_does_not_say_is_refused() {
        for (data, metadata, says) in
            [("95.00", "11.04", "data"), ("2.50", "90.10", "metadata"), ("", "11.04", "does not say")]
        {
            let refused = Volumes::parse(&report(data, metadata)).unwrap().check_room("vg", "shop").unwrap_err();
            assert!(refused.to_string().contains(says) && refused.hint().is_some(), "{refused}");
        }
    }
}
