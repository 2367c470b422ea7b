//! Power cuts for the real binary.
//!
//! The gateway runs on a FUSE file system of ours, which keeps what was synced apart from what was only written.
//! At a cut the file system answers nothing any more, the process is killed, and of what was not synced there
//! survives what a seed says: nothing, a part, a part in another order, garbage, lengths without data; of names
//! that were not synced, likewise. Then the gateway starts on what is left, and everything that it had
//! acknowledged is read back through its Kafka listener and compared with books kept outside of the file system.
//!
//! The disk ([`disk`]) is plain memory and knows nothing of FUSE; [`fuse`] speaks the kernel's protocol, without
//! libfuse; [`books`] knows what was promised; [`cycle`] puts it together.
//!
//! Limits: Linux, root (mounting), little-endian, 1 GiB a disk. What a seed decides is the same on every run; where
//! in the load a cut falls is not, since a real process runs there.

pub mod books;
pub mod campaign;
pub mod cycle;
pub mod disk;
pub mod follower;
pub mod fuse;
pub mod kafka;
pub mod load;
pub mod process;
pub mod report;
pub mod variation;
