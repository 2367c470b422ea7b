//! Per connection: what an MQTT topic turned out to mean, kept ready for the next publish.
//!
//! An entry holds the stream, the envelopes (key and headers, by QoS and retain flag) and the
//! recipients. Publishing to a known topic allocates nothing and takes no lock.
//!
//! Limits: [`ENTRIES_ALWAYS`] per connection, more as long as all connections together stay below
//! [`route_cache_entries_max`](crate::MqttOptions::route_cache_entries_max). At the limit a
//! connection forgets all of its own: cheap to do, cheap to repair.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edge_config::RouteIndex;
use edge_wire::StreamId;
use edge_wire::envelope::Envelope;
use hashbrown::HashMap;

use crate::registry::Recipients;
use crate::targets::Target;

/// Entries that a connection may keep whatever the others do.
const ENTRIES_ALWAYS: usize = 16;

/// What is known of one MQTT topic.
pub(crate) struct Entry {
    topic: Box<str>,
    /// This client may not publish to it.
    pub(crate) is_denied: bool,
    /// `None`: the route stores nothing.
    pub(crate) stored: Option<Stored>,
    pub(crate) recipients: Recipients,
    /// Generation of subscriptions that `recipients` belongs to.
    pub(crate) recipients_of: u64,
}

/// How publishes to one MQTT topic are stored.
pub(crate) struct Stored {
    pub(crate) route: RouteIndex,
    pub(crate) target: Arc<Target>,
    /// `None`: no key; the stream changes with every batch.
    pub(crate) stream: Option<StreamId>,
    pub(crate) key: Option<Box<[u8]>>,
    /// Without MQTT 5 properties, by QoS and retain flag.
    pub(crate) plain: [Option<Ready>; 4],
    /// The last with MQTT 5 properties: clients mostly send the same ones again.
    pub(crate) special: Option<(Box<[u8]>, usize, Ready)>,
}

/// An envelope, and where it is in the chunk that is being filled.
pub(crate) struct Ready {
    pub(crate) envelope: Arc<Envelope>,
    /// Sequence of the chunk that has it, and its index there.
    pub(crate) in_chunk: (u64, u32),
}

pub(crate) struct RouteCache {
    entries: Vec<Entry>,
    by_topic: HashMap<Box<str>, usize>,
    last: usize,
    /// Entries of all connections.
    total: Arc<AtomicUsize>,
    total_max: usize,
}

impl RouteCache {
    pub(crate) fn new(total: Arc<AtomicUsize>, total_max: usize) -> Self {
        Self { entries: Vec::new(), by_topic: HashMap::new(), last: 0, total, total_max }
    }

    /// Index of the entry of `topic`.
    #[inline]
    pub(crate) fn find(&mut self, topic: &str) -> Option<usize> {
        // A sensor publishes to one topic again and again: no hash for that.
        if self.entries.get(self.last).is_some_and(|entry| *entry.topic == *topic) {
            return Some(self.last);
        }
        let found = self.by_topic.get(topic).copied();
        if let Some(index) = found {
            self.last = index;
        }
        found
    }

    /// An entry by the index that [`find`](Self::find) or [`insert`](Self::insert) just returned.
    #[inline]
    pub(crate) fn entry(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)
    }

    pub(crate) fn insert(&mut self, topic: &str, stored: Option<Stored>) -> usize {
        let full = self.total.load(Ordering::Relaxed) >= self.total_max;
        if full && self.entries.len() >= ENTRIES_ALWAYS {
            self.clear();
        }
        let index = self.entries.len();
        self.entries.push(Entry {
            topic: topic.into(),
            is_denied: false,
            stored,
            recipients: Recipients::default(),
            recipients_of: 0,
        });
        self.by_topic.insert(topic.into(), index);
        self.last = index;
        self.total.fetch_add(1, Ordering::Relaxed);
        index
    }

    pub(crate) fn clear(&mut self) {
        self.total.fetch_sub(self.entries.len(), Ordering::Relaxed);
        self.entries = Vec::new();
        self.by_topic = HashMap::new();
    }
}

impl Drop for RouteCache {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_a_connection_forgets_its_own_and_keeps_a_few() {
        let total = Arc::new(AtomicUsize::new(0));
        let mut first = RouteCache::new(total.clone(), 20);
        for topic in 0..20 {
            first.insert(&topic.to_string(), None);
        }
        let mut second = RouteCache::new(total.clone(), 20);
        for topic in 0..100 {
            let index = second.insert(&topic.to_string(), None);
            assert_eq!(second.find(&topic.to_string()), Some(index));
            assert!(total.load(Ordering::Relaxed) <= 20 + ENTRIES_ALWAYS);
        }
        assert!(first.find("3").is_some());
        drop((first, second));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
