//! Records of backups.
#![no_main]

use libfuzzer_sys::fuzz_target;
use repository::record::BackupRecord;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut record) = serde_json::from_slice::<BackupRecord>(bytes) else { return };
    let summary = record.summary();
    let again = serde_json::to_vec(&record).expect("a record is always JSON");
    serde_json::from_slice::<BackupRecord>(&again).expect("what we write, we read");
    if let Some(summary) = summary {
        record.set_summary(&summary);
        assert!(record.summary().is_some());
    }
});
