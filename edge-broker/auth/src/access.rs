//! What listeners ask: who is this, and may it do that.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

use crate::cache::{LoginCache, Token};
use crate::file::AccessFile;
use crate::identity::Identity;
use crate::rule::{Action, Decision, Rule, decide_filter, decide_topic};
use crate::secret::{RANDOM_BYTES, Verifier};
use crate::{NAME_BYTES_MAX, PASSWORD_BYTES_MAX, User};

/// What a client gave to prove who it is.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// User name.
    pub user: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Subject alternative names of a certificate that was checked.
    pub certificate: &'a [String],
    /// What it calls itself.
    pub client_id: &'a str,
    /// It connects from this machine.
    pub is_local: bool,
}

/// Who may connect without a user name or a certificate. What it may do then is up to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anonymous {
    /// Clients on this machine.
    Loopback,
    /// Everybody.
    Always,
    /// Nobody.
    Never,
}

/// The answer to a login.
#[derive(Debug)]
pub enum Login {
    /// Let it in.
    Granted(Identity),
    /// A hash has to be computed first: on another thread, few at a time.
    Check(PendingCheck),
    /// Not with these credentials. The reason is for the log; the client is told nothing more.
    Refused {
        /// Why.
        reason: &'static str,
    },
}

/// A hash that has to be computed. Runs anywhere.
pub struct PendingCheck {
    identity: Identity,
    verifier: Verifier,
    password: Vec<u8>,
    token: Option<Token>,
}

/// Users and rules in force, and the logins that were right of late. A new file makes a new [`Access`].
pub struct Access {
    users: HashMap<String, User>,
    rules: Vec<Rule>,
    anonymous: Anonymous,
    boot_key: [u8; RANDOM_BYTES],
    logins: Mutex<LoginCache>,
    /// What an unknown user is checked against, so that it takes as long as a known one.
    decoy: Verifier,
}

impl Access {
    /// Puts a file in force. `boot_key` is made once per process.
    #[must_use]
    pub fn new(file: AccessFile, anonymous: Anonymous, boot_key: [u8; RANDOM_BYTES]) -> Self {
        let (users, rules) = file.into_parts();
        let users = users.into_iter().map(|user| (user.name.clone(), user)).collect();
        Self {
            users,
            rules,
            anonymous,
            boot_key,
            logins: Mutex::default(),
            decoy: Verifier::Argon2id {
                memory_kib: 7 * 1024,
                passes: 5,
                salt: boot_key[..16].to_vec(),
                hash: vec![0; 32],
            },
        }
    }

    /// Whether there is anybody to tell apart: without users and rules, this machine's own clients may do everything.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.users.is_empty() && self.rules.is_empty()
    }

    /// Who proved who it is may do what rules say, also before there are any.
    fn is_open_to(&self, identity: &Identity) -> bool {
        self.is_open() && identity.is_anonymous()
    }

    /// Who this is.
    #[must_use]
    pub fn login(&self, given: &Credentials<'_>) -> Login {
        let mut identity = Identity {
            user: None,
            certificate: Arc::from(given.certificate),
            client_id: Arc::from(given.client_id),
        };
        let Some(name) = given.user else {
            // A password without a user name names nobody (MQTT 5 allows it).
            return match (identity.is_anonymous(), given.password) {
                (false, None) => Login::Granted(identity),
                (true, None) if self.admits_anonymous(given.is_local) => Login::Granted(identity),
                (true, None) => {
                    Login::Refused { reason: "anonymous clients are not let in from there" }
                }
                (_, Some(_)) => Login::Refused { reason: "a password without a user name" },
            };
        };
        let password = given.password.unwrap_or_default();
        if name.len() > NAME_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            return Login::Refused { reason: "a user name or password that is too long" };
        }
        let Some(user) = self.users.get(name) else {
            if self.is_open() && self.admits_anonymous(given.is_local) {
                // Nobody is told apart yet: clients that were set up with some user name work as before.
                return Login::Granted(identity);
            }
            let check = PendingCheck {
                identity,
                verifier: self.decoy.clone(),
                password: password.to_vec(),
                token: None,
            };
            return Login::Check(check);
        };
        identity.user = Some(Arc::from(name));
        if user.secret.is_cheap() {
            return match user.secret.check(password) {
                true => Login::Granted(identity),
                false => Login::Refused { reason: "wrong password" },
            };
        }
        let token = LoginCache::token(&self.boot_key, name, password, &user.secret);
        if self.logins.lock().unwrap_or_else(PoisonError::into_inner).contains(&token) {
            return Login::Granted(identity);
        }
        Login::Check(PendingCheck {
            identity,
            verifier: user.secret.clone(),
            password: password.to_vec(),
            token: Some(token),
        })
    }

    /// Takes the result of a [`PendingCheck`]: who it is, if the password was right.
    pub fn finish(&self, check: PendingCheck, is_right: bool) -> Option<Identity> {
        let token = check.token.filter(|_| is_right)?;
        // The password may have been changed, or the user removed, while this was computed.
        let user = check.identity.user.as_deref().and_then(|name| self.users.get(name));
        if user.map(|user| &user.secret) != Some(&check.verifier) {
            return None;
        }
        self.logins.lock().unwrap_or_else(PoisonError::into_inner).insert(token);
        Some(check.identity)
    }

    /// Whether somebody who is connected may stay: the user still exists, or it needs none.
    #[must_use]
    pub fn still_knows(&self, identity: &Identity, is_local: bool) -> bool {
        match &identity.user {
            Some(user) => self.users.contains_key(&**user),
            None => !identity.certificate.is_empty() || self.admits_anonymous(is_local),
        }
    }

    fn admits_anonymous(&self, is_local: bool) -> bool {
        match self.anonymous {
            Anonymous::Loopback => is_local,
            Anonymous::Always => true,
            Anonymous::Never => false,
        }
    }

    /// Whether somebody may publish to a topic, or be delivered one.
    #[must_use]
    pub fn topic(&self, identity: &Identity, action: Action, topic: &str) -> Decision<'_> {
        if self.is_open_to(identity) {
            return Decision::Open;
        }
        decide_topic(&self.rules, identity, action, topic)
    }

    /// Whether somebody may subscribe to a filter (without `$share/group/`).
    #[must_use]
    pub fn filter(&self, identity: &Identity, filter: &str) -> Decision<'_> {
        if self.is_open_to(identity) {
            return Decision::Open;
        }
        decide_filter(&self.rules, identity, filter)
    }

    /// SCRAM verifiers of a user.
    #[must_use]
    pub fn scram(&self, user: &str) -> &[crate::scram::ScramVerifier] {
        self.users.get(user).map_or(&[], |user| &user.scram)
    }
}

impl PendingCheck {
    /// Computes the hash: milliseconds and [`crate::secret::ARGON2_MEMORY_BYTES`].
    #[must_use]
    pub fn run(&self) -> bool {
        self.verifier.check(&self.password)
    }
}

impl std::fmt::Debug for PendingCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingCheck").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("users", &self.users.len())
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Who};

    const KEY: [u8; 32] = [5; 32];

    fn access(rules: &[(&str, Effect, Action, &str)]) -> Access {
        let mut file = AccessFile::default();
        let password = Verifier::of_password(b"pw", &[1; 32]).unwrap();
        let generated = Verifier::of_generated("token", &[2; 32]);
        for (name, secret) in [("anna", password), ("m7", generated)] {
            file.add_user(User { name: name.into(), secret, scram: Vec::new() }).unwrap();
        }
        for (who, effect, action, filter) in rules {
            let who: Who = who.parse().unwrap();
            file.add_rule(Rule::new(who, *effect, *action, filter).unwrap()).unwrap();
        }
        Access::new(file, Anonymous::Loopback, KEY)
    }

    fn given<'a>(user: &'a str, password: &'a [u8]) -> Credentials<'a> {
        Credentials {
            user: Some(user),
            password: Some(password),
            client_id: "c",
            is_local: true,
            ..Credentials::default()
        }
    }

    #[test]
    fn a_password_is_hashed_once_and_then_remembered() {
        let access = access(&[]);
        let Login::Check(check) = access.login(&given("anna", b"pw")) else { panic!("hashed") };
        let is_right = check.run();
        assert!(access.finish(check, is_right).is_some());
        assert!(matches!(access.login(&given("anna", b"pw")), Login::Granted(_)));
        let Login::Check(wrong) = access.login(&given("anna", b"no")) else { panic!("hashed") };
        let is_right = wrong.run();
        assert!(access.finish(wrong, is_right).is_none());
    }

    #[test]
    fn a_generated_secret_is_checked_at_once() {
        let access = access(&[]);
        assert!(matches!(access.login(&given("m7", b"token")), Login::Granted(_)));
        assert!(matches!(access.login(&given("m7", b"other")), Login::Refused { .. }));
    }

    #[test]
    fn an_unknown_user_takes_as_long_as_a_known_one_and_is_refused() {
        let access = access(&[]);
        let Login::Check(check) = access.login(&given("nobody", b"pw")) else { panic!("hashed") };
        let is_right = check.run();
        assert!(!is_right && access.finish(check, true).is_none());
    }

    #[test]
    fn with_the_first_user_anonymous_may_nothing_unless_a_rule_says_so() {
        let anonymous = Who::Anonymous.identity();
        let open = Access::new(AccessFile::default(), Anonymous::Loopback, KEY);
        assert!(open.topic(&anonymous, Action::Publish, "a").is_allowed());
        let closed = access(&[("anonymous", Effect::Allow, Action::Publish, "public/#")]);
        assert!(!closed.topic(&anonymous, Action::Publish, "a").is_allowed());
        assert!(closed.topic(&anonymous, Action::Publish, "public/a").is_allowed());
        assert!(!closed.filter(&anonymous, "public/#").is_allowed());
        let anna = Who::User("anna".into()).identity();
        assert!(!closed.topic(&anna, Action::Publish, "a").is_allowed(), "a user without rules");
    }

    #[test]
    fn anonymous_comes_from_this_machine_only_unless_told_otherwise() {
        let access = access(&[]);
        let mut nobody = Credentials { client_id: "c", is_local: true, ..Credentials::default() };
        assert!(matches!(access.login(&nobody), Login::Granted(_)));
        nobody.is_local = false;
        assert!(matches!(access.login(&nobody), Login::Refused { .. }));
        let always = Access::new(AccessFile::default(), Anonymous::Always, KEY);
        assert!(matches!(always.login(&nobody), Login::Granted(_)));
        let names = ["gw7".to_owned()];
        nobody.certificate = &names;
        let Login::Granted(known) = access.login(&nobody) else { panic!("a certificate is proof") };
        let open = Access::new(AccessFile::default(), Anonymous::Loopback, KEY);
        assert!(open.topic(&Identity::default(), Action::Publish, "a").is_allowed());
        assert!(!open.topic(&known, Action::Publish, "a").is_allowed(), "known, without rules");
    }

    #[test]
    fn a_changed_password_is_not_known_from_before() {
        let before = access(&[]);
        let Login::Check(check) = before.login(&given("anna", b"pw")) else { panic!("hashed") };
        let is_right = check.run();
        before.finish(check, is_right);
        let after = access(&[]);
        assert!(matches!(after.login(&given("anna", b"pw")), Login::Check(_)));
        let Login::Check(old) = before.login(&given("anna", b"no")) else { panic!("hashed") };
        let mut file = AccessFile::default();
        let secret = Verifier::of_password(b"new", &[9; 32]).unwrap();
        file.add_user(User { name: "anna".into(), secret, scram: Vec::new() }).unwrap();
        let changed = Access::new(file, Anonymous::Loopback, KEY);
        assert!(changed.finish(old, true).is_none(), "a check of the old password");
        assert!(after.still_knows(&Who::User("anna".into()).identity(), false));
        assert!(!after.still_knows(&Who::User("gone".into()).identity(), true));
    }
}
