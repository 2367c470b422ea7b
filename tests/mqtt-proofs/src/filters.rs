//! Topic names, filters and the tree of subscriptions, beside a list that is searched from end to end.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use edge_mqtt::{
    Qos, SubscriberId, SubscriptionLimits, SubscriptionOptions, Subscriptions, validate_filter,
    validate_topic,
};

use crate::input::Input;
use crate::wire;

const LIMITS: SubscriptionLimits = SubscriptionLimits { per_subscriber_max: 4, total_max: 12 };

/// Runs one input: a text that is judged, then changes of the tree.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    if input.once_in(4) {
        return judge(&String::from_utf8_lossy(input.rest()));
    }
    let mut tree = Subscriptions::new(LIMITS);
    let mut list: BTreeMap<(u64, String), SubscriptionOptions> = BTreeMap::new();
    while !input.is_empty() {
        let who = u64::from(input.byte() % 4);
        let subscriber = SubscriberId(who);
        let generation = tree.generation();
        let mut changed = false;
        match input.below(8) {
            0..=3 => {
                let filter = wire::any_filter(&mut input);
                let options = any_options(&mut input);
                let known = list.contains_key(&(who, filter.clone()));
                let own = list.keys().filter(|(id, _)| *id == who).count();
                let room = own < LIMITS.per_subscriber_max && list.len() < LIMITS.total_max;
                let granted = tree.subscribe(subscriber, &filter, options).is_ok();
                assert_eq!(granted, known || room, "{filter}");
                if granted {
                    changed = list.insert((who, filter), options) != Some(options);
                }
            }
            4 => {
                let filter = wire::any_filter(&mut input);
                let existed = list.remove(&(who, filter.clone())).is_some();
                assert_eq!(tree.unsubscribe(subscriber, &filter), existed, "{filter}");
                changed = existed;
            }
            5 if input.once_in(4) => {
                tree.remove(subscriber);
                list.retain(|(id, _), _| *id != who);
            }
            _ => {
                let topic = wire::any_topic(&mut input);
                let publisher = input.once_in(2).then_some(who);
                compare(&tree, &list, &topic, publisher);
            }
        }
        assert_eq!((tree.len(), tree.is_empty()), (list.len(), list.is_empty()));
        assert!(!changed || tree.generation() != generation, "a change nobody is told of");
    }
}

fn judge(text: &str) {
    assert_eq!(validate_topic(text).is_ok(), wire::is_topic_name(text), "{text:?}");
    assert_eq!(validate_filter(text).is_ok(), wire::is_topic_filter(text), "{text:?}");
    if let Some((filter, topic)) = text.split_once('\n')
        && wire::is_topic_filter(filter)
        && wire::is_topic_name(topic)
    {
        let expected = wire::matches(filter, topic);
        assert_eq!(edge_mqtt::matches(filter, topic), expected, "{filter:?} on {topic:?}");
    }
}

fn any_options(input: &mut Input<'_>) -> SubscriptionOptions {
    let bits = input.byte();
    SubscriptionOptions {
        qos: if bits & 1 != 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce },
        no_local: bits & 4 != 0,
        retain_as_published: bits & 8 != 0,
        retain_handling: 0,
        subscription_id: NonZeroU32::new(u32::from(bits >> 5)),
    }
}

fn compare(
    tree: &Subscriptions,
    list: &BTreeMap<(u64, String), SubscriptionOptions>,
    topic: &str,
    publisher: Option<u64>,
) {
    let mut expected: BTreeMap<u64, (Qos, bool, Vec<u32>)> = BTreeMap::new();
    for ((who, filter), options) in list {
        if !wire::matches(filter, topic) || (options.no_local && publisher == Some(*who)) {
            continue;
        }
        let entry = expected.entry(*who).or_insert((options.qos, false, Vec::new()));
        entry.0 = entry.0.max(options.qos);
        entry.1 |= options.retain_as_published;
        entry.2.extend(options.subscription_id.map(NonZeroU32::get));
        entry.2.sort_unstable();
    }
    let found: BTreeMap<u64, (Qos, bool, Vec<u32>)> = tree
        .matches(topic, publisher.map(SubscriberId))
        .into_iter()
        .map(|found| {
            let mut ids: Vec<u32> = found.subscription_ids.iter().map(|id| id.get()).collect();
            ids.sort_unstable();
            (found.subscriber.0, (found.qos, found.retain_as_published, ids))
        })
        .collect();
    assert_eq!(found, expected, "{topic:?}");
}
