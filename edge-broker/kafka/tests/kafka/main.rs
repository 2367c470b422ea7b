//! The listener over real TCP, an engine on a temporary directory behind it, requests built by hand.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod client;
mod delete_records;
mod fetch;
mod gateway;
mod groups;
mod produce;
mod robustness;
mod settings;
mod topics;
