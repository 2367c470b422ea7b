//! What arbitrary bytes may do to the MQTT core, written as functions that panic when a promise breaks.
//!
//! Each [`Target`] takes any input. The fuzzer (`fuzz/`, `cargo xtask fuzz`) looks for inputs that reach
//! new code; `cargo test` replays the corpus and some thousand random inputs. The expectations are
//! written from the standard, not from the code: an oracle here is slow and plain.
//!
//! Limits: one execution may hold [`HELD_BYTES_MAX`] at once, and nothing after it.

pub mod filters;
pub mod frames;
pub mod input;
pub mod packets;
pub mod random;
pub mod sessions;
pub mod wire;

/// What one execution may allocate, on top of what was there before: twice the largest packet that
/// is accepted, and room for the harness.
pub const HELD_BYTES_MAX: usize = 2 * 256 * 1024 + 1024 * 1024;

/// Something to be proven about arbitrary input.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Names the folder of its corpus.
    pub name: &'static str,
    /// Panics when the promise is broken.
    pub run: fn(&[u8]),
    /// Its part of all executions, in percent.
    pub share: u64,
    /// Longest input that is worth trying.
    pub input_bytes_max: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frames", run: frames::run, share: 30, input_bytes_max: 512 },
    Target { name: "packets", run: packets::run, share: 50, input_bytes_max: 1_024 },
    Target { name: "sessions", run: sessions::run, share: 15, input_bytes_max: 1_024 },
    Target { name: "filters", run: filters::run, share: 5, input_bytes_max: 128 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
