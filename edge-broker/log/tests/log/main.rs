//! The log against its promises, in one binary: a mutant of the crate costs one link and one run.
//! A new file of tests is a module here.

mod broken;
mod cleaning;
mod clock;
mod common;
mod copied_times;
mod crash;
mod faults;
mod golden;
mod golden_lane;
mod inspect;
mod model;
mod overtaken;
mod proofs;
mod read_many;
mod ring;
mod rot;
mod scrub;
mod viewed;
