//! The journal: the bytes of a lane on disk.

pub(crate) mod format;
