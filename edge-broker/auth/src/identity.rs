//! Who somebody is, and whom a rule is about.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::NAME_BYTES_MAX;

/// Who a connection is, as far as it was proven. The client id is claimed, not proven.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user whose secret was given.
    pub user: Option<Arc<str>>,
    /// The subject alternative names of a certificate that our client CA signed.
    pub certificate: Arc<[String]>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
}

impl Identity {
    /// Neither a user nor a certificate.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.user.is_none() && self.certificate.is_empty()
    }

    /// To whom what it leaves behind belongs: the user, or all names of the certificate in a form that no user's name
    /// has. None: to anybody without either.
    #[must_use]
    pub fn owner(&self) -> Option<Arc<str>> {
        let of_certificate = || format!("\0cert:{}", self.certificate.join("\0")).into();
        let has_certificate = !self.certificate.is_empty();
        self.user.clone().or_else(|| has_certificate.then(of_certificate))
    }
}

/// Whom a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// A user: `user:NAME`, or the bare name.
    User(String),
    /// A client id: `client:ID`.
    Client(String),
    /// An exact subject alternative name of a client certificate: `cert:NAME`.
    Certificate(String),
    /// Whoever gave neither a user nor a certificate: `anonymous`.
    Anonymous,
    /// Everybody: `all`.
    All,
}

/// Why a word names nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhoError {
    /// Nothing stands where the name should.
    #[error("a name is missing: user:NAME, client:ID, cert:NAME, anonymous or all")]
    Empty,
    /// It is too long.
    #[error("a name of {found} bytes; at most {NAME_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length, bytes.
        found: usize,
    },
    /// It holds characters that would break lines of a log or a table.
    #[error("a name must not contain control characters")]
    Control,
}

/// Checks the name of a user, client or certificate.
pub(crate) fn check_name(name: &str) -> Result<(), WhoError> {
    match name.len() {
        0 => Err(WhoError::Empty),
        found if found > NAME_BYTES_MAX => Err(WhoError::TooLong { found }),
        _ if name.chars().any(char::is_control) => Err(WhoError::Control),
        _ => Ok(()),
    }
}

impl Who {
    /// Whether the rule is about this connection.
    #[must_use]
    pub fn is(&self, identity: &Identity) -> bool {
        match self {
            Self::User(name) => identity.user.as_deref() == Some(name),
            Self::Client(id) => *identity.client_id == **id,
            Self::Certificate(name) => identity.certificate.iter().any(|known| known == name),
            Self::Anonymous => identity.is_anonymous(),
            Self::All => true,
        }
    }

    /// Somebody of whom nothing else is known: what `acl test` asks about.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let mut identity = Identity::default();
        match self {
            Self::User(name) => identity.user = Some(Arc::from(name.as_str())),
            Self::Client(id) => identity.client_id = Arc::from(id.as_str()),
            Self::Certificate(name) => identity.certificate = Arc::new([name.clone()]),
            Self::Anonymous | Self::All => {}
        }
        identity
    }
}

impl FromStr for Who {
    type Err = WhoError;

    fn from_str(word: &str) -> Result<Self, WhoError> {
        let (kind, name) = word.split_once(':').unwrap_or(("user", word));
        let who = match (kind, word) {
            (_, "anonymous") => return Ok(Self::Anonymous),
            (_, "all") => return Ok(Self::All),
            ("user", _) => Self::User(name.to_owned()),
            ("client", _) => Self::Client(name.to_owned()),
            ("cert", _) => Self::Certificate(name.to_owned()),
            // A user may have a colon in the name.
            _ => Self::User(word.to_owned()),
        };
        match &who {
            Self::User(name) | Self::Client(name) | Self::Certificate(name) => check_name(name)?,
            Self::Anonymous | Self::All => {}
        }
        Ok(who)
    }
}

impl TryFrom<String> for Who {
    type Error = WhoError;

    fn try_from(word: String) -> Result<Self, WhoError> {
        word.parse()
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user:{name}"),
            Self::Client(id) => write!(f, "client:{id}"),
            Self::Certificate(name) => write!(f, "cert:{name}"),
            Self::Anonymous => f.write_str("anonymous"),
            Self::All => f.write_str("all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_people_and_come_back_as_words() {
        for (word, who) in [
            ("line1", Who::User("line1".into())),
            ("user:line1", Who::User("line1".into())),
            ("a:b", Who::User("a:b".into())),
            ("client:m7", Who::Client("m7".into())),
            ("cert:gw7.plant.example", Who::Certificate("gw7.plant.example".into())),
            ("anonymous", Who::Anonymous),
            ("all", Who::All),
        ] {
            assert_eq!(word.parse(), Ok(who.clone()));
            assert_eq!(who.to_string().parse(), Ok(who));
        }
        assert_eq!("user:".parse::<Who>(), Err(WhoError::Empty));
        assert_eq!("a\nb".parse::<Who>(), Err(WhoError::Control));
        assert_eq!("x".repeat(257).parse::<Who>(), Err(WhoError::TooLong { found: 257 }));
    }

    #[test]
    fn a_certificate_is_matched_by_its_exact_name() {
        let who = Who::Certificate("gw7.plant.example".into());
        let mut identity = who.identity();
        assert!(who.is(&identity));
        identity.certificate = Arc::new(["evil.gw7.plant.example".into(), "gw7".into()]);
        assert!(!who.is(&identity) && !Who::Anonymous.is(&identity));
    }
}
