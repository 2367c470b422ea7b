//! The file with users and rules: TOML, made by commands, readable by people.
//!
//! ```toml
//! version = 1
//!
//! [[user]]
//! name = "line1"
//! secret = "$argon2id$v=19$m=7168,t=5,p=1$...$..."
//! scram = ["SCRAM-SHA-256$8192:...$...:..."]     # only with --scram
//!
//! [[rule]]
//! who = "user:line1"
//! effect = "allow"
//! action = "publish"
//! filter = "plant/line1/#"
//! ```
//!
//! A file that cannot be read as a whole is not used in part: the rules in force stay.

use serde::{Deserialize, Serialize};

use crate::identity::{WhoError, check_name};
use crate::rule::{Rule, RuleError};
use crate::scram::ScramVerifier;
use crate::secret::Verifier;
use crate::{RULES_MAX, USERS_MAX};

const VERSION: u32 = 1;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// What is kept of its secret.
    pub secret: Verifier,
    /// For the Kafka side, where asked for.
    pub scram: Vec<ScramVerifier>,
}

/// Users and rules, as they stand in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessFile {
    users: Vec<User>,
    rules: Vec<Rule>,
}

/// Why the file cannot be used, or not be changed so.
#[derive(Debug, thiserror::Error)]
pub enum AccessFileError {
    /// It is not the TOML we write. The line itself is not told: it may hold a secret.
    #[error("line {line}: {problem}")]
    Toml {
        /// From 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// A newer program wrote it.
    #[error("version {found} of the file; this program knows version {VERSION}")]
    Version {
        /// What the file says.
        found: u32,
    },
    /// A user's name.
    #[error("user `{name}`: {source}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        source: WhoError,
    },
    /// A user's secret.
    #[error("user `{name}`: the {field} {problem}")]
    Secret {
        /// The user.
        name: String,
        /// `secret` or `scram`.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A rule.
    #[error("rule {number}: {source}")]
    Rule {
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        source: RuleError,
    },
    /// Two users with one name.
    #[error("there is a user `{0}` already")]
    UserExists(String),
    /// Too many of something.
    #[error("more than {max} {what}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    user: Vec<RawUser>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rule: Vec<Rule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUser {
    name: String,
    secret: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    scram: Vec<String>,
}

impl AccessFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`AccessFileError`]; never a part of the file.
    pub fn parse(text: &str) -> Result<Self, AccessFileError> {
        let raw: Raw = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            AccessFileError::Toml {
                line: before.matches('\n').count() + 1,
                problem: error.message().to_owned(),
            }
        })?;
        if raw.version != VERSION {
            return Err(AccessFileError::Version { found: raw.version });
        }
        let mut file = Self::default();
        for user in raw.user {
            let secret = Verifier::decode(&user.secret).map_err(|error| {
                let (name, problem) = (user.name.clone(), error.to_string());
                AccessFileError::Secret { name, field: "secret", problem }
            })?;
            let scram = user.scram.iter().map(|text| ScramVerifier::decode(text));
            let scram = scram.collect::<Result<Vec<_>, _>>().map_err(|error| {
                let (name, problem) = (user.name.clone(), error.to_string());
                AccessFileError::Secret { name, field: "scram", problem }
            })?;
            file.add_user(User { name: user.name, secret, scram })?;
        }
        for (index, rule) in raw.rule.into_iter().enumerate() {
            let rule = Rule::new(rule.who, rule.effect, rule.action, &rule.filter)
                .map_err(|source| AccessFileError::Rule { number: index + 1, source })?;
            file.add_rule(rule)?;
        }
        Ok(file)
    }

    /// The text to write.
    #[must_use]
    pub fn render(&self) -> String {
        let user = |user: &User| RawUser {
            name: user.name.clone(),
            secret: user.secret.encode(),
            scram: user.scram.iter().map(ScramVerifier::encode).collect(),
        };
        let raw = Raw {
            version: VERSION,
            user: self.users.iter().map(user).collect(),
            rule: self.rules.clone(),
        };
        let body = toml::to_string(&raw).expect("plain strings and numbers are always TOML");
        format!(
            "# Users and access rules. `edge-broker user` and `edge-broker acl` write this file.\n{body}"
        )
    }

    /// All users, in the order they were added.
    #[must_use]
    pub fn users(&self) -> &[User] {
        &self.users
    }

    /// All rules, in the order they were added.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// All users and all rules.
    pub(crate) fn into_parts(self) -> (Vec<User>, Vec<Rule>) {
        (self.users, self.rules)
    }

    /// Adds a user.
    ///
    /// # Errors
    /// The name is taken, too long or empty; there are too many.
    pub fn add_user(&mut self, user: User) -> Result<(), AccessFileError> {
        check_name(&user.name)
            .map_err(|source| AccessFileError::Name { name: user.name.clone(), source })?;
        if self.users.iter().any(|known| known.name == user.name) {
            return Err(AccessFileError::UserExists(user.name));
        }
        if self.users.len() == USERS_MAX {
            return Err(AccessFileError::TooMany { what: "users", max: USERS_MAX });
        }
        self.users.push(user);
        Ok(())
    }

    /// Gives a user a new secret, or adds it; its rules stay.
    ///
    /// # Errors
    /// As [`add_user`](Self::add_user).
    pub fn replace_user(&mut self, user: User) -> Result<(), AccessFileError> {
        match self.users.iter_mut().find(|known| known.name == user.name) {
            Some(known) => *known = user,
            None => self.add_user(user)?,
        }
        Ok(())
    }

    /// Removes a user and the rules about it. Returns how many rules went; `None` if there is no such user.
    pub fn remove_user(&mut self, name: &str) -> Option<usize> {
        let at = self.users.iter().position(|user| user.name == name)?;
        self.users.remove(at);
        let before = self.rules.len();
        self.rules.retain(|rule| rule.who != crate::Who::User(name.to_owned()));
        Some(before - self.rules.len())
    }

    /// Adds a rule; one that is there already is there once.
    ///
    /// # Errors
    /// There are too many.
    pub fn add_rule(&mut self, rule: Rule) -> Result<(), AccessFileError> {
        if self.rules.contains(&rule) {
            return Ok(());
        }
        if self.rules.len() == RULES_MAX {
            return Err(AccessFileError::TooMany { what: "rules", max: RULES_MAX });
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Removes exactly this rule. Returns whether it was there.
    pub fn remove_rule(&mut self, rule: &Rule) -> bool {
        let before = self.rules.len();
        self.rules.retain(|known| known != rule);
        self.rules.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Effect};

    fn file() -> AccessFile {
        let mut file = AccessFile::default();
        let secret = Verifier::of_generated("s3cret", &[1; 32]);
        let scram =
            vec![ScramVerifier::of_password(crate::scram::ScramHash::Sha256, b"p", &[2; 16])];
        file.add_user(User { name: "line1".into(), secret: secret.clone(), scram }).unwrap();
        file.add_user(User { name: "a \"b\"".into(), secret, scram: Vec::new() }).unwrap();
        let rule = |who: &str, filter| {
            Rule::new(who.parse().unwrap(), Effect::Allow, Action::Publish, filter).unwrap()
        };
        file.add_rule(rule("line1", "plant/%u/#")).unwrap();
        file.add_rule(rule("all", "x")).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read() {
        let file = file();
        assert_eq!(AccessFile::parse(&file.render()).unwrap(), file);
        assert_eq!(AccessFile::parse("version = 1").unwrap(), AccessFile::default());
    }

    #[test]
    fn a_user_goes_with_its_rules() {
        let mut file = file();
        assert_eq!(file.remove_user("line1"), Some(1));
        assert_eq!(file.remove_user("line1"), None);
        assert_eq!((file.users().len(), file.rules().len()), (1, 1));
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_taken_in_part() {
        for (text, told) in [
            ("version = 2", "version 2 of the file"),
            ("version = 1\nusers = 1", "unknown field"),
            ("version = 1\n[[user]]\nname = \"\"\nsecret = \"x\"", "user ``: the secret is not"),
            (
                "version = 1\n[[user]]\nname = \"m\"\nsecret = \"plain\"",
                "user `m`: the secret is not",
            ),
            (
                "version = 1\n[[rule]]\nwho = \"all\"\neffect = \"allow\"\naction = \"publish\"\nfilter = \"a#\"",
                "rule 1: the filter `a#`",
            ),
            (
                "version = 1\n[[rule]]\nwho = \"all\"\neffect = \"permit\"\naction = \"publish\"\nfilter = \"a\"",
                "permit",
            ),
        ] {
            let error = AccessFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_mistake_is_told_by_its_line_without_what_stands_there() {
        let text = "version = 1\n[[user]]\nname = \"m\"\nsecret = \"k1$verysecret\n";
        let error = AccessFile::parse(text).unwrap_err().to_string();
        assert!(error.starts_with("line 4: "), "{error}");
        assert!(!error.contains("verysecret"), "{error}");
    }
}
