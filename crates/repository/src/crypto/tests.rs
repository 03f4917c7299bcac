use std::fs;
use std::path::Path;
use std::process::Command;

use super::*;

const WHEN: &str = "2026-01-02T03:04:05.678901234+01:00";

fn sealed(key: &MasterKey, plaintext: &[u8]) -> Vec<u8> {
    let mut buf = vec![0; IV_BYTES];
    buf.extend_from_slice(plaintext);
    key.seal_in_place(&mut buf);
    buf
}

#[test]
fn what_was_sealed_opens() {
    let key = MasterKey::random();
    for length in [0, 1, 15, 16, 17, 1000, 100_000] {
        let plaintext: Vec<u8> = (0..length).map(|n| n as u8).collect();
        let mut buf = sealed(&key, &plaintext);
        assert_eq!(buf.len(), length + OVERHEAD);
        assert_eq!(key.open_in_place(&mut buf).unwrap(), plaintext);
    }
}

#[test]
fn what_was_sealed_with_vector_instructions_opens_without_and_the_reverse() {
    let with = MasterKey::random();
    let without = MasterKey::from_json(&with.to_json()).unwrap().portable();
    for length in [0, 16, 100, 1000, 100_000] {
        let plaintext = vec![7; length];
        assert_eq!(without.open_in_place(&mut sealed(&with, &plaintext)).unwrap(), plaintext);
        assert_eq!(with.open_in_place(&mut sealed(&without, &plaintext)).unwrap(), plaintext);
    }
}

#[test]
fn a_flipped_bit_anywhere_is_refused_and_nothing_is_decrypted() {
    let key = MasterKey::random();
    let buf = sealed(&key, b"forty bytes of plaintext, more or less..");
    for place in 0..buf.len() * 8 {
        let mut flipped = buf.clone();
        flipped[place / 8] ^= 1 << (place % 8);
        let before = flipped.clone();
        assert!(matches!(key.open_in_place(&mut flipped), Err(Error::Mac)), "bit {place}");
        assert_eq!(flipped, before);
    }
}

#[test]
fn another_key_does_not_open() {
    let mut buf = sealed(&MasterKey::random(), b"plaintext");
    assert!(matches!(MasterKey::random().open_in_place(&mut buf), Err(Error::Mac)));
}

#[test]
fn input_that_is_too_short_or_has_a_zero_iv_is_refused() {
    let key = MasterKey::random();
    for length in 0..OVERHEAD {
        let mut buf = vec![1; length];
        assert!(matches!(key.open_in_place(&mut buf), Err(Error::TooShort(n)) if n == length));
    }
    let mut buf = sealed(&key, b"plaintext");
    buf[..IV_BYTES].fill(0);
    assert!(matches!(key.open_in_place(&mut buf), Err(Error::ZeroIv)));
}

#[test]
fn equal_plaintexts_are_sealed_differently() {
    let key = MasterKey::random();
    assert_ne!(sealed(&key, b"plaintext"), sealed(&key, b"plaintext"));
}

#[test]
fn a_master_key_is_not_shown() {
    let key = MasterKey::random();
    assert_eq!(format!("{key:?}"), "MasterKey(secret)");
}

#[test]
fn a_master_key_survives_being_written_and_read() {
    let key = MasterKey::random();
    let read = MasterKey::from_json(&key.to_json()).unwrap();
    assert_eq!(read.open_in_place(&mut sealed(&key, b"plaintext")).unwrap(), b"plaintext");
    assert_eq!(read.to_json(), key.to_json());
}

#[test]
fn what_is_no_master_key_is_refused() {
    let zeros = format!(r#"{{"mac":{{"k":"{0}==","r":"{0}=="}},"encrypt":"{1}="}}"#, "A".repeat(22), "A".repeat(43));
    assert!(matches!(MasterKey::from_json(zeros.as_bytes()), Err(Error::EmptyMasterKey)));
    let short = zeros.replace(&"A".repeat(43), &"A".repeat(39));
    for json in [short.as_str(), "", "{}", "null", r#"{"mac":{"k":"?","r":""},"encrypt":""}"#] {
        assert!(matches!(MasterKey::from_json(json.as_bytes()), Err(Error::NoMasterKey)), "{json}");
    }
}

#[test]
fn a_key_file_opens_with_its_password_only() {
    let master = MasterKey::random();
    let file = KeyFile::create(b"correct horse", &master, KeyCost::default(), WHEN, "user", "host");
    let json = serde_json::to_string(&file).unwrap();
    assert!(json.starts_with(&format!(
        r#"{{"created":"{WHEN}","username":"user","hostname":"host","kdf":"scrypt","N":32768,"r":8,"p":3,"salt":""#
    )));
    let read: KeyFile = serde_json::from_str(&json).unwrap();
    assert_eq!(read.open(b"correct horse").unwrap().to_json(), master.to_json());
    assert!(matches!(read.open(b"correct horse "), Err(Error::WrongPassword)));
}

#[test]
fn hostile_key_files_are_refused_at_once() {
    let good = KeyFile {
        created: WHEN.into(),
        username: String::new(),
        hostname: String::new(),
        kdf: "scrypt".into(),
        n: 1 << 15,
        r: 8,
        p: 3,
        salt: vec![1; 64],
        data: vec![1; 200],
    };
    let (most, over) = (1 << 20, 1 << 21);
    for (n, r, p) in [
        (0, 8, 1),
        (1, 8, 1),
        (32767, 8, 1),
        (over, 8, 1),
        (most, 9, 1),
        (most, 8, 2),
        (1 << 15, 8, 33),
        (1 << 63, 8, 1),
        (2, 0, 1),
        (2, u32::MAX, 1),
        (2, 8, 0),
        (2, 8, u32::MAX),
    ] {
        let refused = KeyFile { n, r, p, ..good.clone() }.open(b"");
        assert!(matches!(refused, Err(Error::KdfParameters { .. })), "N={n}, r={r}, p={p}");
    }
    let unknown = KeyFile { kdf: "argon2".into(), ..good.clone() };
    assert!(matches!(unknown.open(b""), Err(Error::UnknownKdf(kdf)) if kdf == "argon2"));
    let short_salt = KeyFile { salt: vec![1; 63], ..good.clone() };
    assert!(matches!(short_salt.open(b""), Err(Error::Salt(63))));
    let short_data = KeyFile { data: vec![1; 31], n: 2, ..good };
    assert!(matches!(short_data.open(b""), Err(Error::TooShort(31))));
}

fn restic(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new("restic")
        .args(["--no-cache", "--quiet", "--repo"])
        .arg(repository)
        .args(arguments)
        .env("RESTIC_PASSWORD", "correct horse")
        .output()
        .expect("restic is installed (Debian's package restic)");
    assert!(output.status.success(), "restic {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn only_key_file(repository: &Path) -> std::path::PathBuf {
    let mut entries = fs::read_dir(repository.join("keys")).unwrap();
    let path = entries.next().expect("one key").unwrap().path();
    assert!(entries.next().is_none(), "one key only");
    path
}

#[test]
fn restics_key_file_opens_its_config_and_ours_opens_it_for_restic() {
    let directory = tempfile::tempdir().unwrap();
    let repository = directory.path().join("repository");
    restic(&repository, &["init"]);
    let path = only_key_file(&repository);
    let file: KeyFile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(matches!(file.open(b"wrong"), Err(Error::WrongPassword)));
    let master = file.open(b"correct horse").unwrap();

    let mut config = fs::read(repository.join("config")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(master.open_in_place(&mut config).unwrap()).unwrap();
    let polynomial = config["chunker_polynomial"].as_str().unwrap();
    assert_eq!(polynomial.parse::<crate::chunker::Polynomial>().unwrap().to_string(), polynomial);

    // restic reads the master key, and the config sealed again, from our key file in place of its own.
    let ours = KeyFile::create(b"correct horse", &master, KeyCost::default(), WHEN, "user", "host");
    let json = serde_json::to_vec(&ours).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(path.with_file_name(crate::hash::sha256(&json).to_string()), json).unwrap();
    let config_path = repository.join("config");
    fs::remove_file(&config_path).unwrap();
    fs::write(config_path, sealed(&master, config.to_string().as_bytes())).unwrap();
    assert!(restic(&repository, &["cat", "config"]).contains(polynomial));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&restic(&repository, &["cat", "config"])).unwrap(), config);
}
