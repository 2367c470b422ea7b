//! The edge-broker program.

fn main() {}
