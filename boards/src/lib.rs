//! Hardware profiles as data, and the detection of the running board.
//!
//! A profile says how much memory, flash and how many connections the broker may use on one kind of board. The TOML
//! files beside this crate are part of the binary: nothing is read from disk but `/proc/device-tree/model`.

mod catalogue;
mod detect;
mod profile;
pub mod units;

pub use catalogue::{LoadError, load, names};
pub use detect::{Detected, detect, name_for};
pub use profile::{
    Compression, Flash, FlashShare, Hardware, Limits, Memory, Profile, Threads, Watchdog,
};
