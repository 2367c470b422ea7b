//! Users and rules under which nobody may do anything: legal, and hardly ever meant.

use std::fmt;

use crate::{AccessFile, Anonymous, Effect, Who};

/// Why nobody may do anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockout {
    /// There are rules, and nobody whom one allows anything could connect.
    NoUsers,
    /// There are users, and no rule allows any of them anything.
    NoRules,
}

impl fmt::Display for Lockout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUsers => {
                "nobody may publish or subscribe: there are rules, but no user that one of them allows anything; add \
                 users with edge-broker user add, or allow others with edge-broker acl add"
            }
            Self::NoRules => {
                "nobody may publish or subscribe: there are users, but no rule that allows anything; add rules with \
                 edge-broker acl add"
            }
        })
    }
}

impl AccessFile {
    /// Why nobody may do anything, if so. A file without users and rules allows everything.
    #[must_use]
    pub fn lockout(&self, anonymous: Anonymous) -> Option<Lockout> {
        if self.users().is_empty() && self.rules().is_empty() {
            return None;
        }
        let anonymous = anonymous != Anonymous::Never;
        let connects = |who: &Who| match who {
            Who::User(name) => self.users().iter().any(|user| user.name == *name),
            Who::Anonymous => anonymous,
            Who::Client(_) | Who::All => anonymous || !self.users().is_empty(),
            // Certificates are not among the users here.
            Who::Certificate(_) => true,
        };
        let mut allowing = self.rules().iter().filter(|rule| rule.effect == Effect::Allow);
        if allowing.any(|rule| connects(&rule.who)) {
            return None;
        }
        Some(if self.users().is_empty() { Lockout::NoUsers } else { Lockout::NoRules })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Verifier;
    use crate::{Action, Rule, User};

    fn file(users: &[&str], rules: &[(&str, Effect)]) -> AccessFile {
        let mut file = AccessFile::default();
        for name in users {
            let secret = Verifier::of_generated("x", &[1; 32]);
            let user = User { name: (*name).to_owned(), secret, scram: Vec::new() };
            file.add_user(user).expect("a legal user");
        }
        for (who, effect) in rules {
            let who: Who = who.parse().expect("legal");
            let rule = Rule::new(who, *effect, Action::Publish, "a/#").expect("a legal rule");
            file.add_rule(rule).expect("room for a rule");
        }
        file
    }

    #[test]
    fn who_shuts_everybody_out_is_told() {
        use Effect::{Allow, Deny};
        let of = |users: &[&str], rules: &[(&str, Effect)]| {
            file(users, rules).lockout(Anonymous::Loopback)
        };
        assert_eq!(of(&[], &[]), None, "everything is allowed");
        assert_eq!(of(&[], &[("m7", Allow)]), Some(Lockout::NoUsers));
        assert_eq!(of(&[], &[("all", Deny)]), Some(Lockout::NoUsers));
        assert_eq!(of(&["m7"], &[]), Some(Lockout::NoRules));
        assert_eq!(of(&["m7"], &[("m7", Deny)]), Some(Lockout::NoRules));
        assert_eq!(of(&["m7"], &[("m8", Allow)]), Some(Lockout::NoRules));
        assert_eq!(of(&["m7"], &[("m7", Allow)]), None);
        for who in ["all", "anonymous", "client:c1"] {
            assert_eq!(of(&[], &[(who, Allow)]), None, "{who}");
            let never = file(&[], &[(who, Allow)]).lockout(Anonymous::Never);
            assert_eq!(never, Some(Lockout::NoUsers), "{who}");
        }
        assert_eq!(file(&["m7"], &[("all", Allow)]).lockout(Anonymous::Never), None);
    }
}
