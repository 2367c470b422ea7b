//! The file with users and access rules: read whole, changed by one command at a time, replaced in one step.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use edge_auth::{AccessFile, AccessFileError, Anonymous};
use edge_config::Config;
use rustix::fs::{FlockOperation, flock};

/// A file larger than this is another file: 4,096 users and 16,384 rules take less.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Where the file is.
#[derive(Clone, Debug)]
pub(crate) struct AccessStore {
    path: PathBuf,
}

/// Users and rules cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccessStoreError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// There is no place for it.
    #[error("{dir}: {what}")]
    NoPlace {
        /// The directory.
        dir: String,
        /// What is wrong, and the remedy.
        what: &'static str,
    },
    /// It holds something else.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: String,
        /// What is wrong.
        source: AccessFileError,
    },
}

impl AccessStore {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// For commands: the file of a gateway that is there. One that has never run yet has an empty directory.
    pub(crate) fn of_gateway(config: &Config) -> Result<Self, AccessStoreError> {
        let store = Self::new(&config.auth.file);
        let in_data_dir = config.auth.file.parent() == Some(config.data_dir.as_path());
        let dir = config.auth.file.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        let no_place = |what| AccessStoreError::NoPlace { dir: dir.display().to_string(), what };
        if !dir.is_dir() {
            return Err(no_place(if in_data_dir {
                "there is no data directory; name the gateway's with --data-dir or --config, or make it"
            } else {
                "there is no such directory; make it, or correct [auth] file"
            }));
        }
        if in_data_dir && !dir.join("lanes").is_dir() && has_strangers(dir) {
            return Err(no_place(
                "no gateway has written here; name its data directory with --data-dir or --config",
            ));
        }
        Ok(store)
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Users and rules; none if there is no file.
    pub(crate) fn load(&self) -> Result<AccessFile, AccessStoreError> {
        match self.load_existing() {
            Err(AccessStoreError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(AccessFile::default())
            }
            loaded => loaded,
        }
    }

    /// Whether there was a file once: commands leave their lock beside it.
    pub(crate) fn was_there(&self) -> bool {
        self.beside("lock").exists()
    }

    /// Users and rules of a file that has to be there.
    pub(crate) fn load_existing(&self) -> Result<AccessFile, AccessStoreError> {
        let mut text = String::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => AccessFile::parse(&text)
                .map_err(|source| AccessStoreError::Content { path: self.name(), source }),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Changes the file: what is on disk afterwards is the old or the new one, whatever happens meanwhile.
    pub(crate) fn change<T, E: From<AccessStoreError>>(
        &self,
        change: impl FnOnce(&mut AccessFile) -> Result<T, E>,
    ) -> Result<T, E> {
        let _lock = self.lock().map_err(|error| self.io(error))?;
        let mut file = self.load()?;
        let before = file.clone();
        let result = change(&mut file)?;
        if file != before {
            self.replace(&file.render()).map_err(|error| self.io(error))?;
        }
        Ok(result)
    }

    fn lock(&self) -> io::Result<File> {
        let lock = owners_only().create(true).truncate(false).open(self.beside("lock"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(lock)
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let new = self.beside("new");
        let written = owners_only().create(true).truncate(true).open(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        if let Err(error) = written.and_then(|()| std::fs::rename(&new, &self.path)) {
            // Half a file is of no use, and on a full disk it is in the way.
            let _ = std::fs::remove_file(&new);
            return Err(error);
        }
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty());
        File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn beside(&self, what: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(what);
        name.into()
    }

    fn io(&self, source: io::Error) -> AccessStoreError {
        AccessStoreError::Io { path: self.name(), source }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Who may connect without a name.
pub(crate) fn anonymous_of(config: &Config) -> Anonymous {
    match config.auth.anonymous {
        edge_config::Anonymous::Loopback => Anonymous::Loopback,
        edge_config::Anonymous::Always => Anonymous::Always,
        edge_config::Anonymous::Never => Anonymous::Never,
    }
}

/// Whether there are files that are not users and rules.
fn has_strangers(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        // What a file system puts into a fresh volume.
        !name.starts_with("auth.toml") && name != "lost+found"
    })
}

/// Nobody else has to read what passwords were made into.
fn owners_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use edge_auth::secret::Verifier;
    use edge_auth::{Action, Effect, Rule, User, Who};

    use super::*;

    #[test]
    fn what_one_command_changes_the_next_one_sees() {
        let dir = tempfile::tempdir().unwrap();
        let store = AccessStore::new(&dir.path().join("auth.toml"));
        assert_eq!(store.load().unwrap(), AccessFile::default());
        let secret = Verifier::of_generated("x", &[1; 32]);
        let user = User { name: "m7".into(), secret, scram: Vec::new() };
        store
            .change(|file| {
                file.add_user(user.clone()).unwrap();
                let rule = Rule::new(Who::All, Effect::Allow, Action::Publish, "a/#").unwrap();
                file.add_rule(rule).unwrap();
                Ok::<_, AccessStoreError>(())
            })
            .unwrap();
        assert_eq!(store.load().unwrap().users(), [user]);
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("auth.toml")).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn users_are_put_only_where_a_gateway_is_or_will_be() {
        let dir = tempfile::tempdir().unwrap();
        let of = |data_dir: &Path, text: &str| {
            let overrides = edge_config::Overrides {
                data_dir: Some(data_dir.to_owned()),
                ..Default::default()
            };
            let config = Config::parse(text, "c.toml", &overrides, &crate::cli::host::ThisMachine);
            AccessStore::of_gateway(&config.unwrap()).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(of(dir.path(), ""), Ok(()), "one that has never run");
        std::fs::write(dir.path().join("auth.toml"), "version = 1").unwrap();
        assert_eq!(of(dir.path(), ""), Ok(()));
        std::fs::write(dir.path().join("holiday.jpg"), "").unwrap();
        assert!(of(dir.path(), "").unwrap_err().contains("no gateway has written here"));
        std::fs::create_dir(dir.path().join("lanes")).unwrap();
        assert_eq!(of(dir.path(), ""), Ok(()));
        let missing = dir.path().join("dta");
        let refused = of(&missing, "").unwrap_err();
        assert!(refused.contains("dta: there is no data directory"), "{refused}");
        let elsewhere = format!("[auth]\nfile = \"{}/nowhere/auth.toml\"", dir.path().display());
        let refused = of(dir.path(), &elsewhere).unwrap_err();
        assert!(refused.contains("nowhere: there is no such directory"), "{refused}");
    }

    #[test]
    fn a_change_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.toml");
        std::fs::write(&path, "version = 9").unwrap();
        let store = AccessStore::new(&path);
        let changed = store.change(|_| Ok::<_, AccessStoreError>(()));
        assert!(changed.unwrap_err().to_string().contains("version 9"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "version = 9");
    }
}
