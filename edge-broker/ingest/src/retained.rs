//! Retained messages: the last one of each topic that was published with the retain flag.
//!
//! Limits: [`retained_bytes_max`](crate::MqttOptions::retained_bytes_max) and
//! [`retained_max`](crate::MqttOptions::retained_max); what does not fit is delivered, counted and not kept. In memory
//! only, so far.
//!
//! Topics are in the order of their bytes, so that a filter is looked up below what stands in front of its first
//! wildcard, and a subscriber takes what it gets one at a time, from where it was.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use edge_mqtt::{Message, matches};

/// How long it is remembered that a message was deleted: what was published before it and becomes durable after it
/// must not come back.
const DELETED_FOR: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Retained {
    table: RwLock<Table>,
    last: AtomicU64,
    bytes_max: usize,
    messages_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_topic: BTreeMap<Box<str>, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    /// When it was published, among all that are retained.
    order: u64,
    message: Result<Message, Deleted>,
}

#[derive(Debug)]
struct Deleted(Instant);

impl Entry {
    fn cost_bytes(&self) -> usize {
        self.message.as_ref().map_or(0, Message::cost_bytes)
    }
}

impl Retained {
    pub(crate) fn new(bytes_max: usize, messages_max: usize) -> Self {
        let (table, last) = (RwLock::default(), AtomicU64::new(0));
        Self { table, last, bytes_max, messages_max }
    }

    /// A message was published: its place in the order.
    pub(crate) fn next_order(&self) -> u64 {
        1 + self.last.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a message in place of the one before; one without payload deletes it. False when there is no room.
    pub(crate) fn apply(&self, order: u64, message: &Message, now: Instant) -> bool {
        let Ok(topic) = std::str::from_utf8(message.topic()) else { return false };
        let is_deletion = message.payload().is_empty();
        let cost = if is_deletion { 0 } else { message.cost_bytes() };
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let before = table.by_topic.get(topic);
        if before.is_some_and(|before| before.order > order) {
            return true;
        }
        let freed = before.map_or(0, Entry::cost_bytes);
        let is_new = before.is_none();
        let is_full = is_new && table.by_topic.len() >= self.messages_max;
        if is_full || table.bytes - freed + cost > self.bytes_max {
            // What was there is not the last message any more.
            if let Some(gone) = table.by_topic.remove(topic) {
                table.bytes -= gone.cost_bytes();
            }
            return is_deletion;
        }
        table.bytes = table.bytes - freed + cost;
        let message = if is_deletion { Err(Deleted(now)) } else { Ok(message.compact()) };
        table.by_topic.insert(topic.into(), Entry { order, message });
        true
    }

    /// The next message that `filter` matches, behind the topic `after`, which moves on. `None`: there is none.
    pub(crate) fn next(
        &self,
        filter: &str,
        after: &mut Option<Box<str>>,
        now: Instant,
    ) -> Option<Message> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let wildcard = filter.find(['+', '#']);
        // `a/#` matches `a`, too.
        let prefix = &filter[..wildcard.unwrap_or(filter.len())];
        let prefix = prefix.strip_suffix('/').filter(|_| wildcard.is_some()).unwrap_or(prefix);
        let from = match after.as_deref() {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix),
        };
        let (topic, message) = table
            .by_topic
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(topic, _)| topic.starts_with(prefix))
            .filter(|(topic, _)| matches(filter, topic))
            .filter_map(|(topic, entry)| Some((topic, entry.message.as_ref().ok()?)))
            .find(|(_, message)| !message.is_expired(now))?;
        *after = Some(topic.clone());
        Some(message.clone())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.by_topic.values().filter(|entry| entry.message.is_ok()).count()
    }

    /// Forgets what has expired.
    pub(crate) fn expire(&self, now: Instant) {
        let is_over = |entry: &Entry| match &entry.message {
            Ok(message) => message.is_expired(now),
            Err(Deleted(at)) => now.saturating_duration_since(*at) > DELETED_FOR,
        };
        let any_over = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            table.by_topic.values().any(is_over)
        };
        if any_over {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            let table = &mut *table;
            table.by_topic.retain(|_, entry| {
                let stays = !is_over(entry);
                if !stays {
                    table.bytes -= entry.cost_bytes();
                }
                stays
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use edge_mqtt::{Publish, Qos};

    use super::*;

    fn message(topic: &str, payload: &str, expiry_s: Option<u32>, now: Instant) -> Message {
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: true,
            topic,
            packet_id: None,
            properties_raw: &[],
            topic_alias: None,
            expiry_s,
            payload: payload.as_bytes(),
        };
        Message::copy(&publish, now, &mut BytesMut::new())
    }

    fn found(retained: &Retained, filter: &str, now: Instant) -> Vec<String> {
        let mut after = None;
        std::iter::from_fn(|| retained.next(filter, &mut after, now))
            .map(|message| String::from_utf8_lossy(message.topic()).into_owned())
            .collect()
    }

    #[test]
    fn a_filter_finds_what_it_matches() {
        let (retained, now) = (Retained::new(10_000, 100), Instant::now());
        for topic in ["a", "a/b", "a/c/d", "a-b", "b/b", "$SYS/x", "ü/b"] {
            retained.apply(retained.next_order(), &message(topic, "x", None, now), now);
        }
        assert_eq!(found(&retained, "#", now), ["a", "a-b", "a/b", "a/c/d", "b/b", "ü/b"]);
        assert_eq!(found(&retained, "a/#", now), ["a", "a/b", "a/c/d"]);
        assert_eq!(found(&retained, "+/b", now), ["a/b", "b/b", "ü/b"]);
        assert_eq!(found(&retained, "a/b", now), ["a/b"]);
        assert_eq!(found(&retained, "$SYS/#", now), ["$SYS/x"]);
        assert!(found(&retained, "c/#", now).is_empty());
    }

    #[test]
    fn mqtt_3_3_1_6_an_empty_payload_deletes_and_the_order_of_publishing_decides() {
        let (retained, now) = (Retained::new(10_000, 100), Instant::now());
        let (first, second) = (retained.next_order(), retained.next_order());
        retained.apply(second, &message("a", "", None, now), now);
        retained.apply(first, &message("a", "late", None, now), now);
        assert!(found(&retained, "a", now).is_empty());
        retained.apply(retained.next_order(), &message("a", "new", None, now), now);
        assert_eq!(found(&retained, "a", now), ["a"]);
    }

    #[test]
    fn mqtt_3_3_2_3_3_what_has_expired_is_gone() {
        let (retained, now) = (Retained::new(10_000, 100), Instant::now());
        retained.apply(retained.next_order(), &message("a", "x", Some(5), now), now);
        let later = now + Duration::from_secs(5);
        assert_eq!(found(&retained, "a", now + Duration::from_secs(4)), ["a"]);
        assert!(found(&retained, "a", later).is_empty());
        retained.expire(later);
        assert_eq!(retained.table.read().expect("no panic").bytes, 0);
    }

    #[test]
    fn bytes_and_number_are_bounded() {
        let (retained, now) = (Retained::new(200, 2), Instant::now());
        let put = |topic, payload: &str| {
            retained.apply(retained.next_order(), &message(topic, payload, None, now), now)
        };
        assert!(put("a", "x") && put("b", "x") && !put("c", "x"));
        assert!(!put("a", &"x".repeat(200)), "nor is the old one kept");
        assert_eq!(found(&retained, "#", now), ["b"]);
    }
}
