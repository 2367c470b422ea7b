//! Proofs of the log: power cuts, rot and I/O errors, enumerated over the real code on a simulated disk.
//!
//! - [`crash`]: a load is recorded once; for each operation and each way in which unsynced changes may survive a power
//!   cut the disk is made, recovered and checked, and cut again.
//! - [`rot`]: bytes that were synced are damaged.
//! - [`iofault`]: calls fail.
//!
//! Everything derives from a seed; a failure is printed as a case that can be replayed alone. Loads are in
//! `workload.rs`: one that is added there is run by every proof.

pub mod cases;
pub mod crash;
pub mod disk;
pub mod iofault;
pub mod model;
pub mod random;
pub mod rig;
pub mod rot;
pub mod survive;
pub mod verify;
pub mod workload;
