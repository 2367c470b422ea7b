//! Who gets a message: a tree of topic filters, one node per level.
//!
//! Limits: [`SubscriptionLimits`] per subscriber and in all; depth by
//! [`TOPIC_LEVELS_MAX`](crate::topic_filter::TOPIC_LEVELS_MAX). Matching visits at most
//! `2^wildcard levels` nodes that really exist, never more nodes than the tree has.
//!
//! A subscriber whose filters overlap gets one copy with the highest QoS and all identifiers of the
//! filters that matched (MQTT 5.0 section 3.3.4 leaves the choice). [`Subscriptions::generation`]
//! changes with every change of the tree, so that results can be cached.
//!
//! A shared subscription (`$share/NAME/FILTER`, MQTT 5.0 section 4.8.2) is a group at the node of its filter: each
//! message goes to one of the members, whoever publishes it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hashbrown::HashMap;

use crate::publish::Qos;
use crate::topic_filter::split_share;
use crate::violation::ReasonCode;

/// One connection that may subscribe. Given out by the listener, never reused while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriberId(pub u64);

/// Options of one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Highest QoS of deliveries.
    pub qos: Qos,
    /// Own publishes are not delivered.
    pub no_local: bool,
    /// The retain flag is forwarded as it was published.
    pub retain_as_published: bool,
    /// 0, 1 or 2 as on the wire. Kept for retained messages.
    pub retain_handling: u8,
    /// Goes into every delivery (MQTT 5).
    pub subscription_id: Option<NonZeroU32>,
}

/// How much may be subscribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionLimits {
    /// Filters of one subscriber.
    pub per_subscriber_max: usize,
    /// Filters of all subscribers together.
    pub total_max: usize,
}

impl Default for SubscriptionLimits {
    fn default() -> Self {
        Self { per_subscriber_max: 256, total_max: 16_384 }
    }
}

/// One subscriber that gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Who.
    pub subscriber: SubscriberId,
    /// Highest QoS granted by the filters that matched.
    pub qos: Qos,
    /// Whether one of them forwards the retain flag.
    pub retain_as_published: bool,
    /// Their identifiers.
    pub subscription_ids: Vec<NonZeroU32>,
}

/// A shared subscription that gets a message, through one of its members.
#[derive(Clone, Debug)]
pub struct Share {
    /// All of it, `$share/` included.
    pub filter: Arc<str>,
    /// In the order of their identifiers, at least one.
    pub members: Vec<Match>,
    /// Counts messages, those of all publishers together: whose turn it is.
    pub turn: Arc<AtomicUsize>,
}

/// All subscriptions of a listener.
#[derive(Debug)]
pub struct Subscriptions {
    limits: SubscriptionLimits,
    root: Node,
    by_subscriber: HashMap<SubscriberId, Vec<Box<str>>>,
    total: usize,
    generation: u64,
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    /// Filters that end at this node.
    here: BTreeMap<SubscriberId, SubscriptionOptions>,
    /// Shared subscriptions whose filter ends at this node. None is without members.
    shares: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    filter: Arc<str>,
    members: BTreeMap<SubscriberId, SubscriptionOptions>,
    turn: Arc<AtomicUsize>,
}

impl Group {
    fn share(&self) -> Share {
        let member = |(&subscriber, options): (&SubscriberId, &SubscriptionOptions)| Match {
            subscriber,
            qos: options.qos,
            retain_as_published: options.retain_as_published,
            subscription_ids: options.subscription_id.into_iter().collect(),
        };
        Share {
            filter: self.filter.clone(),
            members: self.members.iter().map(member).collect(),
            turn: self.turn.clone(),
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.here.is_empty() && self.shares.is_empty()
    }

    fn remove(&mut self, subscriber: SubscriberId, filter: &str) {
        if split_share(filter).is_none() {
            self.here.remove(&subscriber);
            return;
        }
        self.shares.retain_mut(|group| {
            if *group.filter == *filter {
                group.members.remove(&subscriber);
            }
            !group.members.is_empty()
        });
    }
}

impl Subscriptions {
    /// No subscriptions.
    #[must_use]
    pub fn new(limits: SubscriptionLimits) -> Self {
        Self {
            limits,
            root: Node::default(),
            by_subscriber: HashMap::new(),
            total: 0,
            generation: 0,
        }
    }

    /// Number of filters of all subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total
    }

    /// Whether nobody subscribes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Changes whenever a match may come out differently.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds a subscription, or replaces the options of the same filter of the same subscriber.
    /// `filter` is a valid topic filter, shared or not. True when it is new.
    ///
    /// # Errors
    /// [`ReasonCode::QuotaExceeded`] at the limits.
    pub fn subscribe(
        &mut self,
        subscriber: SubscriberId,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<bool, ReasonCode> {
        let filters = self.by_subscriber.entry(subscriber).or_default();
        let is_new = !filters.iter().any(|known| **known == *filter);
        if is_new {
            if filters.len() >= self.limits.per_subscriber_max
                || self.total >= self.limits.total_max
            {
                if filters.is_empty() {
                    self.by_subscriber.remove(&subscriber);
                }
                return Err(ReasonCode::QuotaExceeded);
            }
            filters.push(filter.into());
            self.total += 1;
        }
        let mut node = &mut self.root;
        for level in levels_of(filter) {
            node = node.children.entry(level.into()).or_default();
        }
        if split_share(filter).is_none() {
            node.here.insert(subscriber, options);
        } else if let Some(group) = node.shares.iter_mut().find(|group| *group.filter == *filter) {
            group.members.insert(subscriber, options);
        } else {
            let members = BTreeMap::from([(subscriber, options)]);
            node.shares.push(Group { filter: filter.into(), members, turn: Arc::default() });
        }
        self.generation += 1;
        Ok(is_new)
    }

    /// Removes a subscription; false when there was none.
    pub fn unsubscribe(&mut self, subscriber: SubscriberId, filter: &str) -> bool {
        let Some(filters) = self.by_subscriber.get_mut(&subscriber) else { return false };
        let Some(index) = filters.iter().position(|known| **known == *filter) else {
            return false;
        };
        filters.swap_remove(index);
        if filters.is_empty() {
            self.by_subscriber.remove(&subscriber);
        }
        self.forget(subscriber, filter);
        true
    }

    /// Removes everything of a subscriber.
    pub fn remove(&mut self, subscriber: SubscriberId) {
        for filter in self.by_subscriber.remove(&subscriber).unwrap_or_default() {
            self.forget(subscriber, &filter);
        }
    }

    fn forget(&mut self, subscriber: SubscriberId, filter: &str) {
        let mut remove = |node: &mut Node| node.remove(subscriber, filter);
        prune(&mut self.root, &mut levels_of(filter), &mut remove);
        self.total -= 1;
        self.generation += 1;
    }

    /// Everybody who gets a message on `topic` published by `publisher`, each once. Shared subscriptions are not
    /// among them ([`Self::matching_shares`]).
    pub fn matches(&self, topic: &str, publisher: Option<SubscriberId>) -> Vec<Match> {
        let mut found = BTreeMap::new();
        let mut collect = |node: &Node| {
            for (&subscriber, options) in &node.here {
                if options.no_local && publisher == Some(subscriber) {
                    continue;
                }
                let entry = found.entry(subscriber).or_insert_with(|| Match {
                    subscriber,
                    qos: options.qos,
                    retain_as_published: false,
                    subscription_ids: Vec::new(),
                });
                entry.qos = entry.qos.max(options.qos);
                entry.retain_as_published |= options.retain_as_published;
                entry.subscription_ids.extend(options.subscription_id);
            }
        };
        let wildcards = !topic.starts_with('$');
        descend(&self.root, Some(topic), wildcards, &mut collect);
        found.into_values().collect()
    }

    /// The shared subscriptions that get a message on `topic`.
    #[must_use]
    pub fn matching_shares(&self, topic: &str) -> Vec<Share> {
        let mut found = Vec::new();
        let mut collect = |node: &Node| found.extend(node.shares.iter().map(Group::share));
        descend(&self.root, Some(topic), !topic.starts_with('$'), &mut collect);
        found
    }

    /// The shared subscription `filter` (`$share/NAME/FILTER`), if it has members.
    #[must_use]
    pub fn share(&self, filter: &str) -> Option<Share> {
        let mut node = &self.root;
        for level in levels_of(filter) {
            node = node.children.get(level)?;
        }
        node.shares.iter().find(|group| *group.filter == *filter).map(Group::share)
    }
}

/// The levels of what a filter matches.
fn levels_of(filter: &str) -> std::str::Split<'_, char> {
    split_share(filter).map_or(filter, |(_, filter)| filter).split('/')
}

/// Removes the filter and the nodes that only it needed. Depth is bounded by the levels of a filter.
fn prune<'a>(
    node: &mut Node,
    levels: &mut impl Iterator<Item = &'a str>,
    remove: &mut impl FnMut(&mut Node),
) {
    let Some(level) = levels.next() else {
        remove(node);
        return;
    };
    if let Some(child) = node.children.get_mut(level) {
        prune(child, levels, remove);
        if child.is_empty() {
            node.children.remove(level);
        }
    }
}

/// `rest` is what of the topic lies below `node`; `None` at its end.
fn descend(node: &Node, rest: Option<&str>, wildcards: bool, collect: &mut impl FnMut(&Node)) {
    // `a/#` matches `a` as well.
    if wildcards && let Some(child) = node.children.get("#") {
        collect(child);
    }
    let Some(rest) = rest else {
        collect(node);
        return;
    };
    let (level, rest) = match rest.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    };
    if let Some(child) = node.children.get(level) {
        descend(child, rest, true, collect);
    }
    if wildcards && let Some(child) = node.children.get("+") {
        descend(child, rest, true, collect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic_filter;

    const A: SubscriberId = SubscriberId(1);
    const B: SubscriberId = SubscriberId(2);

    fn options(qos: Qos) -> SubscriptionOptions {
        SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
            subscription_id: None,
        }
    }

    fn who(subscriptions: &Subscriptions, topic: &str) -> Vec<SubscriberId> {
        subscriptions.matches(topic, None).into_iter().map(|found| found.subscriber).collect()
    }

    #[test]
    fn the_tree_agrees_with_the_filter_matcher() {
        let levels = ["a", "b", "ü", "", "$x"];
        let filter_levels = ["a", "ü", "", "+", "#", "$x"];
        let mut topics = Vec::new();
        let mut filters = Vec::new();
        for first in levels {
            topics.push(first.to_owned());
            for second in levels {
                topics.push(format!("{first}/{second}"));
                topics.push(format!("{first}/{second}/b"));
            }
        }
        for first in filter_levels {
            filters.push(first.to_owned());
            for second in filter_levels {
                filters.push(format!("{first}/{second}"));
                filters.push(format!("{first}/{second}/b"));
                filters.push(format!("{first}/{second}/#"));
            }
        }
        filters.retain(|filter| topic_filter::validate_filter(filter).is_ok());
        let mut all = Subscriptions::new(SubscriptionLimits::default());
        for (index, filter) in filters.iter().enumerate() {
            let id = SubscriberId(u64::try_from(index).expect("small"));
            all.subscribe(id, filter, options(Qos::AtMostOnce)).expect("room");
        }
        for topic in topics.iter().filter(|topic| !topic.is_empty()) {
            let expected: Vec<_> = filters
                .iter()
                .enumerate()
                .filter(|(_, filter)| topic_filter::matches(filter, topic))
                .map(|(index, _)| SubscriberId(u64::try_from(index).expect("small")))
                .collect();
            assert_eq!(who(&all, topic), expected, "{topic}");
        }
    }

    #[test]
    fn overlapping_filters_deliver_once_with_the_highest_qos() {
        let mut all = Subscriptions::new(SubscriptionLimits::default());
        let id = |number| NonZeroU32::new(number);
        let with =
            |qos, number| SubscriptionOptions { subscription_id: id(number), ..options(qos) };
        all.subscribe(A, "a/#", with(Qos::AtMostOnce, 1)).expect("room");
        all.subscribe(A, "a/+", with(Qos::AtLeastOnce, 2)).expect("room");
        let found = all.matches("a/b", None);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].qos, Qos::AtLeastOnce);
        assert_eq!(found[0].subscription_ids.len(), 2);
    }

    #[test]
    fn no_local_keeps_own_messages_away() {
        let mut all = Subscriptions::new(SubscriptionLimits::default());
        let mine = SubscriptionOptions { no_local: true, ..options(Qos::AtMostOnce) };
        all.subscribe(A, "#", mine).expect("room");
        all.subscribe(B, "#", options(Qos::AtMostOnce)).expect("room");
        let found = all.matches("t", Some(A));
        assert_eq!(found.iter().map(|found| found.subscriber).collect::<Vec<_>>(), [B]);
        assert_eq!(all.matches("t", Some(B)).len(), 2);
    }

    #[test]
    fn removal_leaves_nothing_behind() {
        let mut all = Subscriptions::new(SubscriptionLimits::default());
        for filter in ["a/b/c", "a/+", "#", "a"] {
            all.subscribe(A, filter, options(Qos::AtMostOnce)).expect("room");
        }
        let before = all.generation();
        assert!(all.unsubscribe(A, "a/+"));
        assert!(!all.unsubscribe(A, "a/+"));
        assert!(!all.unsubscribe(B, "a"));
        assert!(all.generation() > before);
        all.remove(A);
        assert!(all.is_empty() && all.root.is_empty() && all.by_subscriber.is_empty());
        assert!(who(&all, "a/b/c").is_empty());
    }

    #[test]
    fn mqtt5_4_8_2_a_share_is_one_per_name_and_filter() {
        let mut all = Subscriptions::new(SubscriptionLimits::default());
        for (subscriber, filter) in
            [(A, "$share/g/a/+"), (B, "$share/g/a/+"), (A, "$share/h/a/+"), (A, "$share/g/#")]
        {
            assert_eq!(all.subscribe(subscriber, filter, options(Qos::AtLeastOnce)), Ok(true));
        }
        assert!(all.matches("a/b", None).is_empty());
        let members = |all: &Subscriptions, topic| -> Vec<(String, usize)> {
            let found = all.matching_shares(topic).into_iter();
            let mut found: Vec<_> =
                found.map(|share| (share.filter.to_string(), share.members.len())).collect();
            found.sort();
            found
        };
        let expected = [("$share/g/#", 1), ("$share/g/a/+", 2), ("$share/h/a/+", 1)];
        assert_eq!(members(&all, "a/b"), expected.map(|(name, count)| (name.to_owned(), count)));
        assert!(members(&all, "$SYS/a").is_empty());
        assert_eq!(all.share("$share/g/a/+").map(|share| share.members.len()), Some(2));
        assert!(all.unsubscribe(B, "$share/g/a/+"));
        assert!(!all.unsubscribe(B, "$share/g/a/+") && !all.unsubscribe(A, "a/+"));
        assert_eq!(members(&all, "a/b")[1].1, 1);
        all.remove(A);
        assert!(all.is_empty() && all.root.is_empty() && all.share("$share/g/a/+").is_none());
    }

    #[test]
    fn the_limits_hold() {
        let limits = SubscriptionLimits { per_subscriber_max: 2, total_max: 3 };
        let mut all = Subscriptions::new(limits);
        all.subscribe(A, "1", options(Qos::AtMostOnce)).expect("room");
        all.subscribe(A, "2", options(Qos::AtMostOnce)).expect("room");
        let refused = all.subscribe(A, "3", options(Qos::AtMostOnce));
        assert_eq!(refused, Err(ReasonCode::QuotaExceeded));
        // The same filter again replaces, also at the limit.
        all.subscribe(A, "2", options(Qos::AtLeastOnce)).expect("replaced");
        assert_eq!(all.matches("2", None)[0].qos, Qos::AtLeastOnce);
        all.subscribe(B, "1", options(Qos::AtMostOnce)).expect("room");
        let refused = all.subscribe(B, "2", options(Qos::AtMostOnce));
        assert_eq!(refused, Err(ReasonCode::QuotaExceeded));
        assert_eq!(all.len(), 3);
    }
}
