//! This machine, as the configuration wants to know it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use edge_config::{Host, Profile};

use crate::data_dir::free_bytes;

/// The machine that the program runs on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThisMachine;

impl Host for ThisMachine {
    fn hostname(&self) -> String {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    }

    fn board(&self) -> Profile {
        boards::detect().profile
    }

    fn available_bytes(&self, data_dir: &Path) -> Option<u64> {
        Some(free_bytes(data_dir)?.saturating_add(held_bytes(data_dir)))
    }
}

/// A data directory has lanes/NAME/FILE.
const DEPTH_MAX: u32 = 4;
const BLOCK_BYTES: u64 = 512;

/// What the files below `directory` take of the disk; what cannot be read counts nothing.
fn held_bytes(directory: &Path) -> u64 {
    fn held(directory: &Path, depth: u32) -> u64 {
        let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
        let mut sum = 0_u64;
        for entry in entries.flatten() {
            // Of a link the link itself: what it points to is not ours.
            let Ok(metadata) = entry.metadata() else { continue };
            sum = sum.saturating_add(if metadata.is_dir() && depth > 1 {
                held(&entry.path(), depth - 1)
            } else {
                metadata.blocks().saturating_mul(BLOCK_BYTES)
            });
        }
        sum
    }
    held(directory, DEPTH_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_data_directory_holds_counts_as_available() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(held_bytes(&root.path().join("not-there")), 0);
        let lane = root.path().join("lanes/normal");
        std::fs::create_dir_all(&lane).unwrap();
        let file = lane.join("0");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        assert!(held_bytes(root.path()) >= 1 << 20);
    }

    #[test]
    fn this_machine_has_a_name_and_a_board() {
        assert!(!ThisMachine.hostname().is_empty());
        assert!(!ThisMachine.board().name.is_empty());
    }
}
