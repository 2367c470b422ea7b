//! The journal: the bytes of a lane on disk. docs/FORMAT.md IS THE MAP.

pub(crate) mod batches;
pub(crate) mod checkpoint;
pub(crate) mod directory;
#[cfg(test)]
mod document;
pub(crate) mod entry;
pub(crate) mod envelope_arena;
pub(crate) mod envelopes;
pub(crate) mod format;
pub(crate) mod frame;
pub(crate) mod scan;
pub(crate) mod segment;
pub(crate) mod stamps;
pub(crate) mod trailer;
pub(crate) mod unpack;
