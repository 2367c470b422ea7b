//! Who may do what: users, secrets, access rules. One seam for all listeners.
//!
//! - [`AccessFile`] is the file people and commands write; [`Access`] is what listeners ask. Nothing here does I/O,
//!   knows the time or makes random numbers: salts and keys come in.
//! - A login is answered at once where that is cheap ([`Login::Granted`], [`Login::Refused`]), and otherwise with a
//!   [`Login::Check`] that the caller runs on a thread of its own: argon2id takes milliseconds and
//!   [`secret::ARGON2_MEMORY_BYTES`].
//! - Deny beats allow; what no rule allows is denied; a rule with `%u` or `%c` never matches a name that contains
//!   `+`, `#` or `/`.
//!
//! Limits: [`USERS_MAX`] users, [`RULES_MAX`] rules, names of [`NAME_BYTES_MAX`] bytes, passwords of
//! [`PASSWORD_BYTES_MAX`] bytes.

mod access;
mod cache;
mod file;
mod identity;
mod live;
mod lockout;
mod rule;
pub mod scram;
pub mod secret;

pub use access::{Access, Anonymous, Credentials, Login, PendingCheck};
pub use file::{AccessFile, AccessFileError, User};
pub use identity::{Identity, Who, WhoError};
pub use live::LiveAccess;
pub use lockout::Lockout;
pub use rule::{Action, Decision, Effect, Rule, RuleError};

/// Most users of a gateway.
pub const USERS_MAX: usize = 4_096;
/// Most access rules of a gateway.
pub const RULES_MAX: usize = 16_384;
/// Longest name of a user, a client or a certificate, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest password, in bytes. More is refused before it is hashed.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
