//! A repository that is open: its storage, its key, its configuration.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::blob::{BlobKind, PackedBlob};
use crate::chunker::{Chunker, Polynomial};
use crate::compression::{self, Packing, Unpacking};
use crate::config::Config;
use crate::crypto::{self, KeyCost, KeyFile, MasterKey};
use crate::error::Error;
use crate::hash::sha256;
use crate::holder::Holder;
use crate::id::Id;
use crate::index::{self, Index, IndexBuilder};
use crate::record::BackupRecord;
use crate::storage::{FileKind, Storage, StorageError, StoredFile};
use crate::tree::Tree;

/// Marks a compressed file, before its zstd frame. Plain JSON begins with `{` or `[` instead.
const COMPRESSED: u8 = 2;

/// A record with its name.
pub type NamedRecord = (Id, BackupRecord);

/// A key file with its name, or what is wrong with it.
pub type NamedKey = (Id, Result<KeyFile, Error>);

/// How a new repository shall be.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// Another repository's, so that both cut files alike and copies between them deduplicate.
    pub polynomial: Option<Polynomial>,
    /// What opening it shall cost.
    pub key_cost: KeyCost,
}

/// A repository that is open.
pub struct Repository {
    storage: Arc<dyn Storage>,
    key: MasterKey,
    key_id: Id,
    config: Config,
    polynomial: Polynomial,
}

impl Repository {
    /// Makes a new repository. Its `config` comes last, so that one that was interrupted can be made again.
    pub fn init(
        storage: Arc<dyn Storage>,
        password: &[u8],
        options: &InitOptions,
        holder: &Holder,
    ) -> Result<Repository, Error> {
        match storage.size(&StoredFile::CONFIG) {
            Ok(_) => return Err(Error::AlreadyARepository(storage.location())),
            Err(StorageError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        storage.create()?;
        // Keys without a config: another repository's remains, or somebody else is at it just now.
        if !storage.list(FileKind::Backup)?.is_empty() || !storage.list(FileKind::Pack)?.is_empty() {
            return Err(Error::Refused(format!(
                "{} holds backups or packs, but no config: it is a damaged repository, not an empty place",
                storage.location()
            )));
        }
        let key = MasterKey::random();
        let key_id = write_key(&*storage, &key, password, options.key_cost, holder)?;
        let polynomial = options.polynomial.unwrap_or_else(Polynomial::random);
        let config = Config { version: 2, id: random_id(), chunker_polynomial: polynomial.to_string() };
        let mut sealed = vec![0; crypto::IV_BYTES];
        sealed.extend(serde_json::to_vec(&config).expect("a configuration is always JSON"));
        key.seal_in_place(&mut sealed);
        match storage.write(&StoredFile::CONFIG, &sealed) {
            Err(StorageError::Exists { .. }) => {
                // Two at once: the other one's config counts, and our key does not fit it.
                storage.remove(&StoredFile::new(FileKind::Key, key_id))?;
                Err(Error::AlreadyARepository(storage.location()))
            }
            written => {
                written?;
                Ok(Repository { storage, key, key_id, config, polynomial })
            }
        }
    }

    /// Opens a repository with whichever of its keys the password fits.
    pub fn open(storage: Arc<dyn Storage>, password: &[u8]) -> Result<Repository, Error> {
        let mut sealed_config = Vec::new();
        storage.read(&StoredFile::CONFIG, &mut sealed_config).map_err(|error| match error {
            StorageError::NotFound { .. } => Error::NoRepository(storage.location()),
            error => Error::Storage(error),
        })?;
        let (key, key_id) = open_key(&*storage, password)?;
        let damaged = |reason: String| Error::Damaged { file: StoredFile::CONFIG, reason };
        let plain = key.open_in_place(&mut sealed_config).map_err(|error| damaged(error.to_string()))?;
        let config: Config = serde_json::from_slice(plain).map_err(|error| damaged(error.to_string()))?;
        if !(1..=2).contains(&config.version) {
            return Err(Error::Version { location: storage.location(), version: config.version });
        }
        let polynomial = config.chunker_polynomial.parse::<Polynomial>().map_err(|error| damaged(error.to_string()))?;
        Ok(Repository { storage, key, key_id, config, polynomial })
    }

    /// Where the files lie.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// What seals and opens everything.
    pub fn key(&self) -> &MasterKey {
        &self.key
    }

    /// The key file that the password fitted.
    pub fn key_id(&self) -> Id {
        self.key_id
    }

    /// Version, id and polynomial.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A chunker that cuts as every other client of this repository does.
    pub fn chunker(&self) -> Chunker {
        Chunker::new(self.polynomial)
    }

    /// What cuts files here.
    pub fn polynomial(&self) -> Polynomial {
        self.polynomial
    }

    /// Whether blobs and files may be compressed.
    pub fn compresses(&self) -> bool {
        self.config.version >= 2
    }

    /// Adds a key file for another password.
    pub fn add_key(&self, password: &[u8], holder: &Holder) -> Result<Id, Error> {
        write_key(&*self.storage, &self.key, password, KeyCost::default(), holder)
    }

    /// Reads, verifies, opens and decompresses an index file, a record or a lock.
    pub fn load(&self, file: &StoredFile) -> Result<Vec<u8>, Error> {
        let damaged = |reason: String| Error::Damaged { file: *file, reason };
        let mut sealed = Vec::new();
        self.storage.read(file, &mut sealed)?;
        if file.kind != FileKind::Config && sha256(&sealed) != file.id {
            return Err(damaged("its bytes do not have the hash it is named by".to_owned()));
        }
        let plain = self.key.open_in_place(&mut sealed).map_err(|error| damaged(error.to_string()))?;
        match plain.first() {
            Some(&COMPRESSED) => compression::decompress_file(&plain[1..]).map_err(|error| damaged(error.to_string())),
            Some(b'{' | b'[') => Ok(plain.to_vec()),
            _ => Err(damaged("it is neither compressed nor JSON".to_owned())),
        }
    }

    /// Compresses, seals and stores an index file, a record or a lock. Gives its name.
    pub fn save(&self, kind: FileKind, plain: &[u8]) -> Result<Id, Error> {
        let mut packing = Packing::new();
        let mut marked;
        let (sealed, _) = if self.compresses() {
            marked = vec![0; crypto::IV_BYTES];
            marked.push(COMPRESSED);
            marked.extend(zstd::bulk::compress(plain, 3).expect("zstd compresses whatever fits into memory"));
            (&mut marked, 0)
        } else {
            packing.pack(plain, false)
        };
        self.key.seal_in_place(sealed);
        let id = sha256(sealed);
        self.storage.write(&StoredFile::new(kind, id), sealed)?;
        Ok(id)
    }

    /// Loads all index files, on all cores.
    pub fn load_index(&self) -> Result<Index, Error> {
        let files = self.storage.list(FileKind::Index)?;
        let builder = Mutex::new(IndexBuilder::default());
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(files.len().max(1));
        let load_some = || -> Result<(), Error> {
            while let Some((id, _)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let packs = self.load_index_file(*id)?;
                let mut builder = builder.lock().expect("no panic while the index is held");
                for (pack, blobs) in &packs {
                    builder.add(*pack, blobs);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..threads).map(|_| scope.spawn(load_some)).collect();
            let mut result = load_some();
            for thread in threads {
                result = result.and(thread.join().expect("loading an index does not panic"));
            }
            result
        })?;
        Ok(builder.into_inner().expect("no panic while the index is held").build())
    }

    /// Loads one index file: packs with their blobs.
    pub fn load_index_file(&self, id: Id) -> Result<Vec<(Id, Vec<PackedBlob>)>, Error> {
        let file = StoredFile::new(FileKind::Index, id);
        let plain = self.load(&file)?;
        index::file::decode(&plain)
            .map_err(|error| Error::Damaged { file, reason: format!("it is not an index: {error}") })
    }

    /// Loads one record.
    pub fn load_record(&self, id: Id) -> Result<BackupRecord, Error> {
        let file = StoredFile::new(FileKind::Backup, id);
        let plain = self.load(&file)?;
        serde_json::from_slice(&plain)
            .map_err(|error| Error::Damaged { file, reason: format!("it is not a backup record: {error}") })
    }

    /// Stores a record, the last step of a backup.
    pub fn save_record(&self, record: &BackupRecord) -> Result<Id, Error> {
        self.save(FileKind::Backup, &serde_json::to_vec(record).expect("a record is always JSON"))
    }

    /// All records that can be read, oldest first, and what is wrong with the others.
    pub fn backups(&self) -> Result<(Vec<NamedRecord>, Vec<Error>), Error> {
        let mut records = Vec::new();
        let mut damaged = Vec::new();
        for (id, _) in self.storage.list(FileKind::Backup)? {
            match self.load_record(id) {
                Ok(record) => records.push((id, record)),
                // Forgotten since the listing.
                Err(Error::Storage(StorageError::NotFound { .. })) => {}
                Err(error) => damaged.push(error),
            }
        }
        records.sort_by_key(|(id, record)| (record.time, *id));
        Ok((records, damaged))
    }

    /// A reader of blobs. One for each thread.
    pub fn reader<'a>(&'a self, index: &'a Index) -> BlobReader<'a> {
        BlobReader { repository: self, index, unpacking: Unpacking::new(), sealed: Vec::new() }
    }

    /// Opens, decompresses and verifies a sealed blob.
    pub fn open_blob(
        &self,
        pack: Id,
        blob: &PackedBlob,
        sealed: &mut [u8],
        unpacking: &mut Unpacking,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.open_blob_unhashed(pack, blob, sealed, unpacking, into)?;
        if sha256(into) == blob.id { Ok(()) } else { Err(wrong_hash(pack, blob)) }
    }

    /// As [`Repository::open_blob`], without comparing the plaintext's hash, for callers that hash many at once.
    pub fn open_blob_unhashed(
        &self,
        pack: Id,
        blob: &PackedBlob,
        sealed: &mut [u8],
        unpacking: &mut Unpacking,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let damaged = |reason: String| Error::DamagedBlob { kind: blob.kind, id: blob.id, pack, reason };
        let plain = self.key.open_in_place(sealed).map_err(|error| damaged(error.to_string()))?;
        if blob.uncompressed_length == 0 {
            into.clear();
            into.extend_from_slice(plain);
        } else {
            let length = u64::from(blob.uncompressed_length);
            unpacking.unpack(plain, length, into).map_err(|error| damaged(error.to_string()))?;
        }
        Ok(())
    }
}

/// The error for a blob whose plaintext has another hash.
pub fn wrong_hash(pack: Id, blob: &PackedBlob) -> Error {
    let reason = "its plaintext does not have the hash it is named by".to_owned();
    Error::DamagedBlob { kind: blob.kind, id: blob.id, pack, reason }
}

/// Reads single blobs, with the buffers that takes.
pub struct BlobReader<'a> {
    repository: &'a Repository,
    index: &'a Index,
    unpacking: Unpacking,
    sealed: Vec<u8>,
}

impl BlobReader<'_> {
    /// Replaces what `into` holds by a blob's plaintext, verified. Where it lies in several packs, damage to one
    /// does not matter.
    pub fn load(&mut self, kind: BlobKind, id: &Id, into: &mut Vec<u8>) -> Result<(), Error> {
        let mut first_error = None;
        for location in self.index.locations(kind, id) {
            let file = StoredFile::new(FileKind::Pack, location.pack);
            let (offset, length) = (u64::from(location.blob.offset), u64::from(location.blob.length));
            let read = self.repository.storage.read_range(&file, offset, length, &mut self.sealed);
            let opened = read.map_err(Error::Storage).and_then(|()| {
                let (blob, pack) = (&location.blob, location.pack);
                self.repository.open_blob(pack, blob, &mut self.sealed, &mut self.unpacking, into)
            });
            match opened {
                Ok(()) => return Ok(()),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or(Error::MissingBlob { kind, id: *id }))
    }

    /// Loads a directory.
    pub fn load_tree(&mut self, id: &Id) -> Result<Tree, Error> {
        let mut plain = Vec::new();
        self.load(BlobKind::Tree, id, &mut plain)?;
        Tree::decode(&plain).map_err(|error| Error::Tree { id: *id, reason: error.to_string() })
    }
}

fn random_id() -> Id {
    let mut id = [0; 32];
    crypto::fill_random(&mut id);
    Id(id)
}

fn write_key(
    storage: &dyn Storage,
    key: &MasterKey,
    password: &[u8],
    cost: KeyCost,
    holder: &Holder,
) -> Result<Id, Error> {
    let created = (holder.now)().to_string();
    let file = KeyFile::create(password, key, cost, &created, &holder.username, &holder.hostname);
    let bytes = serde_json::to_vec(&file).expect("a key file is always JSON");
    let id = sha256(&bytes);
    storage.write(&StoredFile::new(FileKind::Key, id), &bytes)?;
    Ok(id)
}

/// Every key file with its name, without opening it.
pub fn list_keys(storage: &dyn Storage) -> Result<Vec<NamedKey>, Error> {
    let mut keys = Vec::new();
    for (id, _) in storage.list(FileKind::Key)? {
        let file = StoredFile::new(FileKind::Key, id);
        let mut bytes = Vec::new();
        storage.read(&file, &mut bytes)?;
        let parsed = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Damaged { file, reason: format!("it is not a key: {error}") });
        keys.push((id, parsed));
    }
    Ok(keys)
}

fn open_key(storage: &dyn Storage, password: &[u8]) -> Result<(MasterKey, Id), Error> {
    let keys = list_keys(storage)?;
    if keys.is_empty() {
        return Err(Error::NoKey(storage.location()));
    }
    // A damaged key must not hide a good one; but if none fits, the damage is the likelier reason.
    let mut damage = None;
    for (id, key) in keys {
        match key {
            Err(error) => damage = Some(error),
            Ok(file) => match file.open(password) {
                Ok(key) => return Ok((key, id)),
                Err(crypto::Error::WrongPassword) => {}
                Err(error) => {
                    let file = StoredFile::new(FileKind::Key, id);
                    damage = Some(Error::Damaged { file, reason: error.to_string() });
                }
            },
        }
    }
    Err(damage.unwrap_or_else(|| Error::WrongPassword(storage.location())))
}
