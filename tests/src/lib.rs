//! The harness of the system tests: the real binary, real peers, and links that break.
//!
//! What it starts it also ends: every process is killed and every directory removed when its
//! handle is dropped, and the kernel kills every process when the test process ends otherwise
//! ([`process::command`]). Nothing here listens on anything but loopback.
//!
//! Environment:
//! - `EDGE_SYSTEM_TESTS=1`: run the tests that need mosquitto, kcat and Java ([`gate`]).
//! - `EDGE_TESTS_FULL=1`: the long form (50 kills, 60 s outage).
//! - `EDGE_BROKER_BIN`: the binary under test; without it the harness builds the dev profile.
//! - `EDGE_BROKER_RUNNER`: a program that runs the binary (an emulator), split at spaces.
//! - `EDGE_TEST_DATA`: a directory with published CSV files to replay besides generated rows.
//!
//! Limits: every wait has a deadline and an error that ends with the tail of the log of the
//! process that was waited for.

pub mod certificates;
pub mod clients;
pub mod compare;
pub mod faulty_link;
pub mod gate;
pub mod gateway;
pub mod kafka;
pub mod ledger;
pub mod load;
pub mod mosquitto;
pub mod mqtt;
pub mod ports;
pub mod process;
pub mod random;
pub mod small_disk;
pub mod telemetry;
pub mod wait;
