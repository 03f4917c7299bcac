//! From a repository in the configuration to an open one: its storage, its limits, its password.
//!
//! Secrets come from where the configuration says and go into the repository's key; no error has them, and no program
//! gets them as an argument. Reads no environment: whoever calls does.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use repository::Repository;
use repository::storage::limited::{IsCancelled, Limited, Limits};
use repository::storage::{Local, Storage, StorageError, StoredFile};
use zeroize::Zeroizing;

use crate::config::{self, PasswordSource};

/// A password's bytes, wiped when dropped.
pub type Password = Zeroizing<Vec<u8>>;

/// What opening a repository needs of the world.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The value of an environment variable.
    pub variable: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// Whether to end: nobody waits for a rate limit then.
    pub is_cancelled: &'a IsCancelled,
}

/// Why there is no way to a repository.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The address is of a kind that is not known.
    #[error("{url}: repositories at {scheme}: are not supported yet")]
    Scheme {
        /// The address.
        url: String,
        /// What it begins with.
        scheme: String,
    },
    /// The address is a scheme alone.
    #[error("{0}: a path is missing")]
    NoPath(String),
    /// The password's file cannot be read.
    #[error("cannot read the password file {}: {source}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The password's program failed.
    #[error("the password command {program:?} {how}")]
    PasswordCommand {
        /// The program, without its arguments.
        program: String,
        /// "ended with exit status: 1".
        how: String,
    },
    /// The variable is not set.
    #[error("the variable {0}, which should hold the password, is not set")]
    PasswordVariable(String),
    /// Nothing says where credentials are.
    #[error("there is no credential {0}: $CREDENTIALS_DIRECTORY is not set")]
    NoCredentials(String),
    /// The repository said no.
    #[error(transparent)]
    Repository(#[from] repository::Error),
}

impl AccessError {
    /// The way out, if there is one to tell.
    pub fn hint(&self) -> Option<String> {
        match self {
            AccessError::Scheme { url, .. } => Some(format!("a directory; if {url:?} is one, write local:{url}")),
            AccessError::PasswordFile { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as the user whose file it is".to_owned())
            }
            AccessError::NoCredentials(name) => {
                Some(format!("LoadCredential={name}:FILE in the unit, or password-file in the configuration"))
            }
            _ => None,
        }
    }
}

/// The storage of an address: a path, or `local:` and a path.
pub fn storage(url: &str) -> Result<Arc<dyn Storage>, AccessError> {
    let path = match url.split_once(':') {
        Some(("local", path)) => path,
        // `a/b:c` is a path; so is a directory that is there.
        Some((scheme, _)) if is_scheme(scheme) && !Path::new(url).exists() => {
            return Err(AccessError::Scheme { url: url.to_owned(), scheme: scheme.to_owned() });
        }
        _ => url,
    };
    match path {
        "" => Err(AccessError::NoPath(url.to_owned())),
        path => Ok(Arc::new(Local::new(path))),
    }
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The directory of a repository that lies in one.
pub fn local_directory(url: &str) -> Option<&Path> {
    let path = match url.split_once(':') {
        Some(("local", path)) => path,
        Some((scheme, _)) if is_scheme(scheme) && !Path::new(url).exists() => return None,
        _ => url,
    };
    Some(Path::new(path)).filter(|path| path.is_absolute())
}

/// Opens a repository, with the limits that it has. One that is not there is told before its password is asked for.
pub fn open(repository: &config::Repository, world: World<'_>) -> Result<Arc<Repository>, AccessError> {
    let storage = storage(&repository.url)?;
    match storage.size(&StoredFile::CONFIG) {
        Err(StorageError::NotFound { .. }) => {
            return Err(repository::Error::NoRepository(storage.location()).into());
        }
        found => drop(found.map_err(repository::Error::from)?),
    }
    let limits = Limits {
        upload: repository.limit_upload.map(|rate| rate.bytes_per_sec),
        download: repository.limit_download.map(|rate| rate.bytes_per_sec),
    };
    let storage: Arc<dyn Storage> = match limits {
        Limits { upload: None, download: None } => storage,
        limits => Arc::new(Limited::new(storage, limits, Arc::clone(world.is_cancelled))),
    };
    let password = password(&repository.password, world)?;
    Ok(Arc::new(Repository::open(storage, &password)?))
}

/// The password from where the configuration says.
pub fn password(source: &PasswordSource, world: World<'_>) -> Result<Password, AccessError> {
    match source {
        PasswordSource::File(path) => password_in_file(path),
        PasswordSource::Command(words) => password_of_command(words),
        PasswordSource::Environment(name) => match (world.variable)(name) {
            Some(value) => Ok(Zeroizing::new(value.into_vec())),
            None => Err(AccessError::PasswordVariable(name.clone())),
        },
        PasswordSource::Credential(name) => match (world.variable)("CREDENTIALS_DIRECTORY") {
            Some(directory) => password_in_file(&Path::new(&directory).join(name)),
            None => Err(AccessError::NoCredentials(name.clone())),
        },
    }
}

/// The password in a file, without the end of its line.
pub fn password_in_file(path: &Path) -> Result<Password, AccessError> {
    let read = || -> io::Result<Password> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
        // A wrong name should not fill the memory.
        File::open(path)?.take(64 << 10).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| AccessError::PasswordFile { path: path.to_owned(), source })?;
    Ok(without_newline(bytes))
}

/// The password that a program prints, without the end of its line. Its prompts and complaints are for the user.
pub fn password_of_command(words: &[String]) -> Result<Password, AccessError> {
    let (program, arguments) = words.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let failed = |how: String| AccessError::PasswordCommand { program: program.to_owned(), how };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed(format!("cannot be run: {error}")))?;
    let bytes = Zeroizing::new(output.stdout);
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    Ok(without_newline(bytes))
}

fn without_newline(mut bytes: Password) -> Password {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_path_or_has_a_known_scheme() {
        for (url, path) in [("/srv/b", "/srv/b"), ("local:/srv/b", "/srv/b"), ("./a:b", "./a:b"), ("/x:y/z", "/x:y/z")]
        {
            assert_eq!(storage(url).unwrap().location(), path);
        }
        for url in ["sftp:user@host:/b", "s3:host/b", "rest:http://host/", "locale:/x", "local:"] {
            assert!(storage(url).is_err(), "{url}");
        }
        assert_eq!(local_directory("local:/srv/b"), Some(Path::new("/srv/b")));
        assert_eq!(local_directory("sftp:user@host:/b"), None);
    }

    #[test]
    fn only_one_newline_at_the_end_is_not_part_of_the_password() {
        let trimmed = |text: &str| without_newline(Zeroizing::new(text.into())).to_vec();
        assert_eq!(trimmed("a b \n"), b"a b ");
        assert_eq!(trimmed("a\r\n"), b"a");
        assert_eq!(trimmed("a\n\n"), b"a\n");
        assert_eq!(trimmed(""), b"");
    }

    #[test]
    fn a_password_comes_from_where_the_configuration_says_without_the_end_of_its_line() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("secret"), "correct horse\r\n").unwrap();
        let credentials = directory.path().to_owned();
        let variable = move |name: &str| match name {
            "WORD" => Some("correct horse".into()),
            "CREDENTIALS_DIRECTORY" => Some(credentials.clone().into_os_string()),
            _ => None,
        };
        let is_cancelled: IsCancelled = Arc::new(|| false);
        let world = World { variable: &variable, is_cancelled: &is_cancelled };
        let words = ["echo", "correct horse"].map(str::to_owned).to_vec();
        for source in [
            PasswordSource::File(directory.path().join("secret")),
            PasswordSource::Command(words),
            PasswordSource::Environment("WORD".to_owned()),
            PasswordSource::Credential("secret".to_owned()),
        ] {
            assert_eq!(password(&source, world).unwrap().as_slice(), b"correct horse", "{source:?}");
        }
        let none = PasswordSource::Environment("NONE".to_owned());
        assert!(password(&none, world).unwrap_err().to_string().contains("NONE"));
        let failing = PasswordSource::Command(vec!["false".to_owned()]);
        assert!(password(&failing, world).unwrap_err().to_string().contains("exit status: 1"));
    }
}
