//! Which board this is.

use std::fs::File;
use std::io::Read;

use crate::{Profile, load, names};

/// The running board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detected {
    /// The profile that fits.
    pub profile: Profile,
    /// What the firmware calls the board, if it says so.
    pub model: Option<String>,
}

const MODEL_FILE: &str = "/proc/device-tree/model";
const MODEL_BYTES_MAX: u64 = 256;

/// Finds out which board this is. Never fails: what is not known gets careful values.
#[must_use]
pub fn detect() -> Detected {
    let model = read_model();
    let name = name_for(model.as_deref(), std::env::consts::ARCH);
    Detected { profile: load(name).expect("a test loads every embedded profile"), model }
}

/// The name of the profile for a model text and a processor architecture (Rust's name for it).
#[must_use]
pub fn name_for(model: Option<&str>, arch: &str) -> &'static str {
    let known = model.and_then(|model| {
        names().find(|name| {
            let board = load(name).expect("a test loads every embedded profile");
            board.models.iter().any(|beginning| model.starts_with(beginning.as_str()))
        })
    });
    known.unwrap_or(if arch == "x86_64" { "x86-64-generic" } else { "base" })
}

fn read_model() -> Option<String> {
    let mut bytes = Vec::new();
    File::open(MODEL_FILE).ok()?.take(MODEL_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    // The device tree ends its strings with NUL.
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_end_matches('\0').trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_is_known_by_its_model() {
        let name = |model| name_for(Some(model), "aarch64");
        assert_eq!(name("Raspberry Pi 4 Model B Rev 1.5"), "raspberry-pi-4");
        assert_eq!(name("Raspberry Pi 400 Rev 1.0"), "raspberry-pi-4");
        assert_eq!(name("Raspberry Pi Compute Module 4 Rev 1.1"), "raspberry-pi-4");
        assert_eq!(name("Raspberry Pi Zero 2 W Rev 1.0"), "raspberry-pi-zero-2-w");
    }

    #[test]
    fn an_unknown_board_gets_careful_values() {
        assert_eq!(name_for(Some("Raspberry Pi Zero W Rev 1.1"), "arm"), "base");
        assert_eq!(name_for(None, "aarch64"), "base");
        assert_eq!(name_for(None, "x86_64"), "x86-64-generic");
        assert!(names().any(|name| name == detect().profile.name));
    }
}
