//! TLS of the listeners: one seam for all of them.
//!
//! - [`ServerMaterial`] is what the operator's files hold; [`ServerMaterial::config`] checks all of it at once, so that
//!   what is put in force is whole or nothing.
//! - [`LiveTls`] is what listeners ask for every new connection. Those that are open keep what they began with.
//! - [`certificate_names`] reads who a client is out of a certificate that was verified.
//!
//! TLS 1.2 and 1.3 with `ring`: it builds for every board with the C compiler alone (`aws-lc-rs` wants CMake and adds
//! about as much again to the binary). Resumption is by tickets whose key lives as long as the material: a client CA that
//! is replaced ends what it had granted, and no connection costs memory after it has ended.
//!
//! No I/O here; the time is the caller's ([`Clock`]): a board without a battery-backed clock would refuse every client
//! certificate as not valid yet.

mod live;
mod names;
mod server;

pub use live::LiveTls;
pub use names::{NAME_BYTES_MAX, NAMES_MAX, certificate_names};
pub use rustls::ServerConfig;
pub use server::{Clock, ServerMaterial, TlsError};
