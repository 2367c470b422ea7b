//! Project chores: ci, dist, bench, tidy.

fn main() {}
