//! Users and rules while the gateway runs: read at the start, and again when the file changes.
//!
//! A file that cannot be read leaves in force what was read before: a mistake never opens anything. One that has to be
//! there and is not at the start lets nobody in until it is back; log and uplink go on.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_auth::secret::RANDOM_BYTES;
use edge_auth::{Access, AccessFile, Anonymous, LiveAccess};
use edge_config::Config;

use crate::access_store::{AccessStore, AccessStoreError, anonymous_of};

/// How often the file is looked at. With the listener's own pause, changes are in force within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows the file.
pub(crate) struct AccessWatch {
    store: AccessStore,
    anonymous: Anonymous,
    boot_key: [u8; RANDOM_BYTES],
    live: Arc<LiveAccess>,
    seen: Option<Version>,
}

/// Easily done by the first command, and a gateway that refuses everybody looks broken.
fn warn_of_lockout(store: &AccessStore, file: &AccessFile, anonymous: Anonymous) {
    if let Some(why) = file.lockout(anonymous) {
        tracing::warn!(path = %store.path().display(), "{why}");
    }
}

/// What changes when a file is replaced or written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl AccessWatch {
    /// Reads the file. None is no users, unless the configuration names it or commands have written it: then nobody
    /// may do anything.
    pub(crate) fn open(
        config: &Config,
        boot_key: [u8; RANDOM_BYTES],
    ) -> Result<Self, AccessStoreError> {
        let store = AccessStore::new(&config.auth.file);
        let anonymous = anonymous_of(config);
        let seen = version(store.path()).ok();
        let file = store.load()?;
        let is_named = config.auth.file.parent() != Some(config.data_dir.as_path());
        let is_gone = !store.path().exists() && (is_named || store.was_there());
        let now = if is_gone {
            tracing::error!(
                path = %store.path().display(),
                "the file with users and rules is gone: nobody may connect until it is back, or `user add` makes a new one"
            );
            Anonymous::Never
        } else {
            warn_of_lockout(&store, &file, anonymous);
            anonymous
        };
        let live = Arc::new(LiveAccess::new(Access::new(file, now, boot_key)));
        Ok(Self { store, anonymous, boot_key, live, seen })
    }

    /// What listeners ask.
    pub(crate) fn live(&self) -> Arc<LiveAccess> {
        self.live.clone()
    }

    /// Follows the file until it is dropped.
    pub(crate) async fn run(mut self) {
        let mut pause = tokio::time::interval(LOOK_EVERY);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pause.tick().await;
            self.look();
        }
    }

    fn look(&mut self) {
        let now = version(self.store.path());
        let now = match now {
            Ok(version) => Some(version),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // No free file descriptor, say: nothing is known, nothing changes.
            Err(_) => return,
        };
        if now == self.seen {
            return;
        }
        if now.is_none() {
            self.seen = now;
            let path = self.store.path().display();
            tracing::error!(%path, "the file with users and rules is gone; those that were read stay in force until the next start");
            return;
        }
        match self.store.load_existing() {
            Ok(file) => {
                self.seen = now;
                let (users, rules) = (file.users().len(), file.rules().len());
                warn_of_lockout(&self.store, &file, self.anonymous);
                self.live.replace(Access::new(file, self.anonymous, self.boot_key));
                tracing::info!(users, rules, "users and rules were read again");
            }
            Err(error @ AccessStoreError::Content { .. }) => {
                self.seen = now;
                tracing::error!(%error, "users and rules stay as they were");
            }
            // Tried again.
            Err(error) => tracing::warn!(%error, "users and rules cannot be read"),
        }
    }
}

fn version(path: &Path) -> io::Result<Version> {
    let metadata = std::fs::metadata(path)?;
    Ok(Version {
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use edge_auth::{Credentials, Login};

    use super::*;

    #[test]
    fn a_file_that_is_gone_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let open = |text: &str| {
            let overrides = edge_config::Overrides {
                data_dir: Some(dir.path().to_owned()),
                ..Default::default()
            };
            let config = Config::parse(text, "c.toml", &overrides, &crate::cli::host::ThisMachine);
            AccessWatch::open(&config.unwrap(), [7; RANDOM_BYTES]).unwrap()
        };
        let lets_in = |watch: &AccessWatch| {
            let anybody = Credentials {
                user: None,
                password: None,
                certificate: &[],
                client_id: "c",
                is_local: true,
            };
            matches!(watch.live().get().login(&anybody), Login::Granted(_))
        };
        assert!(lets_in(&open("")), "there never was one");
        let named = format!("[auth]\nfile = \"{}/users/auth.toml\"", dir.path().display());
        assert!(!lets_in(&open(&named)), "the configuration names it");

        let store = AccessStore::new(&dir.path().join("auth.toml"));
        store.change(|_| Ok::<_, AccessStoreError>(())).unwrap();
        let mut watch = open("");
        assert!(!lets_in(&watch), "a command has written it");
        // It is back, with nobody in it.
        std::fs::write(dir.path().join("auth.toml"), AccessFile::default().render()).unwrap();
        watch.look();
        assert!(lets_in(&watch));
    }
}
