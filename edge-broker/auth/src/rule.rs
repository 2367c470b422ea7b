//! Access rules, and what they decide.
//!
//! Deny beats allow, whatever the order; what no rule allows is denied. A subscription is allowed if one rule covers
//! all it asks for; what is delivered is asked again topic by topic, so that a deny below an allowed filter holds.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use edge_mqtt::topic_filter::{self, FilterError};
use serde::{Deserialize, Serialize};

use crate::identity::{Identity, Who};

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Publish to a topic.
    Publish,
    /// Subscribe to a filter, or be delivered a topic.
    Subscribe,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not, whatever others say.
    Deny,
}

/// One access rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whom it is about.
    pub who: Who,
    /// Allow or deny.
    pub effect: Effect,
    /// Publish or subscribe.
    pub action: Action,
    /// MQTT topic filter; `%u` stands for the user's name, `%c` for the client id.
    pub filter: String,
}

/// Why a rule cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The filter breaks a rule of MQTT.
    #[error("the filter `{filter}`: {source}")]
    Filter {
        /// As written.
        filter: String,
        /// Which rule.
        source: FilterError,
    },
    /// Neither `allow` nor `deny`.
    #[error("`{0}` is neither allow nor deny")]
    Effect(String),
    /// Neither `publish` nor `subscribe`.
    #[error("`{0}` is neither publish nor subscribe")]
    Action(String),
}

/// What the rules decided, and which of them did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    /// Allowed by this rule.
    Allowed(&'a Rule),
    /// Allowed because there are no users yet and the client is on this machine, or because anonymous may always.
    Open,
    /// Denied by this rule.
    Denied(&'a Rule),
    /// No rule allows it.
    NoRule,
}

impl Decision<'_> {
    /// Whether it may be done.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_) | Self::Open)
    }
}

impl Rule {
    /// A rule whose filter was checked.
    ///
    /// # Errors
    /// [`RuleError::Filter`].
    pub fn new(who: Who, effect: Effect, action: Action, filter: &str) -> Result<Self, RuleError> {
        topic_filter::validate_filter(filter)
            .map_err(|source| RuleError::Filter { filter: filter.to_owned(), source })?;
        Ok(Self { who, effect, action, filter: filter.to_owned() })
    }

    /// Whether the rule is about this topic name of this client.
    fn matches(&self, identity: &Identity, topic: &str) -> bool {
        self.who.is(identity)
            && self.filter_for(identity).is_some_and(|filter| topic_filter::matches(&filter, topic))
    }

    /// Whether every topic that `asked` matches is one of the rule's.
    fn covers(&self, identity: &Identity, asked: &str) -> bool {
        self.who.is(identity)
            && self.filter_for(identity).is_some_and(|filter| covers(&filter, asked))
    }

    /// The filter with names put in; `None` where a name could widen it, or is missing.
    fn filter_for(&self, identity: &Identity) -> Option<Cow<'_, str>> {
        if !self.filter.contains('%') {
            return Some(Cow::Borrowed(&self.filter));
        }
        let mut out = String::with_capacity(self.filter.len() + 16);
        let mut rest = self.filter.as_str();
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let name = match rest.as_bytes().get(at + 1) {
                Some(b'u') => Some(identity.user.as_deref()?),
                Some(b'c') => Some(&*identity.client_id),
                _ => None,
            };
            match name {
                Some(name) if name.is_empty() || name.contains(['+', '#', '/', '\0']) => {
                    return None;
                }
                Some(name) => {
                    out.push_str(name);
                    rest = &rest[at + 2..];
                }
                None => {
                    out.push('%');
                    rest = &rest[at + 1..];
                }
            }
        }
        out.push_str(rest);
        Some(Cow::Owned(out))
    }
}

/// Decides about one topic name: a publish, or a delivery.
pub(crate) fn decide_topic<'a>(
    rules: &'a [Rule],
    identity: &Identity,
    action: Action,
    topic: &str,
) -> Decision<'a> {
    decide(rules, action, |rule| rule.matches(identity, topic))
}

/// Decides about a subscription.
pub(crate) fn decide_filter<'a>(
    rules: &'a [Rule],
    identity: &Identity,
    asked: &str,
) -> Decision<'a> {
    decide(rules, Action::Subscribe, |rule| rule.covers(identity, asked))
}

fn decide<'a>(rules: &'a [Rule], action: Action, applies: impl Fn(&Rule) -> bool) -> Decision<'a> {
    let mut allowed = Decision::NoRule;
    for rule in rules.iter().filter(|rule| rule.action == action) {
        match rule.effect {
            Effect::Deny if applies(rule) => return Decision::Denied(rule),
            Effect::Allow if allowed == Decision::NoRule && applies(rule) => {
                allowed = Decision::Allowed(rule);
            }
            _ => {}
        }
    }
    allowed
}

/// Whether every topic name that matches `asked` matches `filter`.
fn covers(filter: &str, asked: &str) -> bool {
    // `#` and `+` at the front do not see `$` topics; a filter that begins with `$` is not covered by them.
    if asked.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut asked_levels = asked.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match asked_levels.next() {
            Some("#") | None => return false,
            Some(_) if level == "+" => {}
            Some(asked) if asked == level => {}
            Some(_) => return false,
        }
    }
    asked_levels.next().is_none()
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.who, self.effect, self.action, self.filter)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
        })
    }
}

impl FromStr for Effect {
    type Err = RuleError;

    fn from_str(word: &str) -> Result<Self, RuleError> {
        match word {
            "allow" => Ok(Self::Allow),
            "deny" => Ok(Self::Deny),
            other => Err(RuleError::Effect(other.to_owned())),
        }
    }
}

impl FromStr for Action {
    type Err = RuleError;

    fn from_str(word: &str) -> Result<Self, RuleError> {
        match word {
            "publish" => Ok(Self::Publish),
            "subscribe" => Ok(Self::Subscribe),
            other => Err(RuleError::Action(other.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn rule(who: &str, effect: Effect, action: Action, filter: &str) -> Rule {
        Rule::new(who.parse().unwrap(), effect, action, filter).unwrap()
    }

    fn user(name: &str, client: &str) -> Identity {
        Identity {
            user: Some(Arc::from(name)),
            client_id: Arc::from(client),
            ..Identity::default()
        }
    }

    #[test]
    fn deny_beats_allow_whatever_the_order() {
        let allow = rule("all", Effect::Allow, Action::Publish, "plant/#");
        let deny = rule("m7", Effect::Deny, Action::Publish, "plant/secret/#");
        let m7 = user("m7", "c");
        for rules in [[allow.clone(), deny.clone()], [deny, allow]] {
            let decide = |topic| decide_topic(&rules, &m7, Action::Publish, topic).is_allowed();
            assert!(decide("plant/line1"));
            assert!(!decide("plant/secret/x"));
            assert!(!decide("office"));
            assert!(!decide_topic(&rules, &m7, Action::Subscribe, "plant/line1").is_allowed());
        }
    }

    #[test]
    fn names_that_would_widen_a_filter_never_match() {
        let rules = [
            rule("all", Effect::Allow, Action::Publish, "u/%u/#"),
            rule("all", Effect::Allow, Action::Publish, "c/%c"),
        ];
        let may = |identity: &Identity, topic: &str| {
            decide_topic(&rules, identity, Action::Publish, topic).is_allowed()
        };
        assert!(may(&user("m7", "x"), "u/m7/a"));
        assert!(!may(&user("m7", "x"), "u/m8/a"));
        assert!(may(&user("m7", "x"), "c/x"));
        for evil in ["+", "#", "a/b", "", "m+"] {
            assert!(!may(&user(evil, evil), "u/m8/a"), "{evil}");
            assert!(!may(&user(evil, evil), &format!("c/{evil}")), "{evil}");
        }
        assert!(!may(&Who::Anonymous.identity(), "u//a"));
    }

    #[test]
    fn a_subscription_needs_one_rule_that_covers_all_of_it() {
        let rules = [
            rule("all", Effect::Allow, Action::Subscribe, "plant/+/temp"),
            rule("all", Effect::Allow, Action::Subscribe, "line/#"),
            rule("all", Effect::Deny, Action::Subscribe, "line/secret/#"),
        ];
        let who = user("m7", "c");
        let may = |asked| decide_filter(&rules, &who, asked).is_allowed();
        for asked in ["plant/+/temp", "plant/1/temp", "line/#", "line", "line/+/a", "line/a/#"] {
            assert!(may(asked), "{asked}");
        }
        for asked in ["#", "+/+/temp", "plant/#", "plant/+/+", "line/secret/a", "line/secret/#"] {
            assert!(!may(asked), "{asked}");
        }
        // Below an allowed filter the deny holds at delivery.
        let delivered = |topic| decide_topic(&rules, &who, Action::Subscribe, topic).is_allowed();
        assert!(delivered("line/a") && !delivered("line/secret/a"));
    }

    #[test]
    fn wildcards_do_not_reach_dollar_topics() {
        let who = user("m7", "c");
        let rules = [rule("all", Effect::Allow, Action::Subscribe, "#")];
        assert!(decide_filter(&rules, &who, "#").is_allowed());
        assert!(!decide_filter(&rules, &who, "$SYS/#").is_allowed());
        assert!(!decide_topic(&rules, &who, Action::Subscribe, "$SYS/uptime").is_allowed());
    }
}
