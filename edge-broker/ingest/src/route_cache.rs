//! Per connection: what an MQTT topic turned out to mean, kept ready for the next publish.
//!
//! An entry holds the stream, the envelopes (key and headers, by QoS and retain flag) and the
//! recipients. Publishing to a known topic allocates nothing and takes no lock. Topics mostly come in the order in
//! which they came before, so each entry remembers which was next: with hundreds of topics on a connection that
//! spares the hash, and the processor fetches ahead what lies side by side.
//!
//! Limits: [`ENTRIES_ALWAYS`] per connection, more as long as all connections together stay below
//! [`route_cache_entries_max`](crate::MqttOptions::route_cache_entries_max). At the limit a
//! connection forgets all of its own: cheap to do, cheap to repair.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use edge_config::RouteIndex;
use edge_wire::{Envelope, EnvelopeId, EnvelopeView, StreamId};
use hashbrown::{DefaultHashBuilder, HashTable};

use crate::registry::Recipients;
use crate::targets::Target;

/// Entries that a connection may keep whatever the others do.
const ENTRIES_ALWAYS: usize = 16;

/// What is known of one MQTT topic.
pub(crate) struct Entry {
    /// Where its topic is in [`Bytes`].
    topic_start: u32,
    topic_end: u32,
    /// What was published to after it the last time.
    next: usize,
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
    pub(crate) plain: [Option<Ready>; 6],
    /// The last with MQTT 5 properties: clients mostly send the same ones again.
    pub(crate) special: Option<Box<Special>>,
}

/// The envelope of a publish with MQTT 5 properties.
pub(crate) struct Special {
    pub(crate) properties: Box<[u8]>,
    /// Its QoS and retain flag.
    pub(crate) variant: usize,
    pub(crate) envelope: Envelope,
    /// As in [`Ready`].
    pub(crate) in_chunk: (u64, u32),
}

/// An envelope, and where it is in the chunk that is being filled.
pub(crate) struct Ready {
    id: EnvelopeId,
    /// Where it is in [`Bytes`].
    start: u32,
    end: u32,
    /// Sequence of the chunk that has it, and its index there.
    pub(crate) in_chunk: (u64, u32),
}

/// Topics and the envelopes of publishes to them, one behind the other: what is used one after the other lies side by
/// side.
#[derive(Default)]
pub(crate) struct Bytes(Vec<u8>);

impl Bytes {
    fn push(&mut self, bytes: &[u8]) -> (u32, u32) {
        let place = |at| u32::try_from(at).unwrap_or(u32::MAX);
        let start = place(self.0.len());
        self.0.extend_from_slice(bytes);
        (start, place(self.0.len()))
    }

    fn get(&self, start: u32, end: u32) -> &[u8] {
        self.0.get(start as usize..end as usize).unwrap_or_default()
    }

    fn topic(&self, entry: &Entry) -> &[u8] {
        self.get(entry.topic_start, entry.topic_end)
    }

    /// Keeps an envelope until the cache is cleared.
    pub(crate) fn keep(&mut self, envelope: &Envelope) -> Ready {
        let (start, end) = self.push(envelope.as_bytes());
        Ready { id: envelope.id(), start, end, in_chunk: (0, 0) }
    }

    pub(crate) fn envelope(&self, ready: &Ready) -> EnvelopeView<'_> {
        EnvelopeView::new(ready.id, self.get(ready.start, ready.end))
    }
}

pub(crate) struct RouteCache {
    entries: Vec<Entry>,
    bytes: Bytes,
    /// Indexes of entries, by the hash of their topic.
    by_topic: HashTable<u32>,
    hasher: DefaultHashBuilder,
    last: usize,
    /// Entries of all connections.
    total: Arc<AtomicUsize>,
    total_max: usize,
}

impl RouteCache {
    pub(crate) fn new(total: Arc<AtomicUsize>, total_max: usize) -> Self {
        Self {
            entries: Vec::new(),
            bytes: Bytes::default(),
            by_topic: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            last: 0,
            total,
            total_max,
        }
    }

    /// Index of the entry of `topic`.
    #[inline]
    pub(crate) fn find(&mut self, topic: &str) -> Option<usize> {
        // A sensor publishes to one topic again and again: no hash for that.
        let last = self.entries.get(self.last)?;
        let topic = topic.as_bytes();
        if self.bytes.topic(last) == topic {
            return Some(self.last);
        }
        let next = last.next;
        if self.entries.get(next).is_some_and(|next| self.bytes.topic(next) == topic) {
            self.last = next;
            return Some(next);
        }
        self.look_up(topic)
    }

    fn look_up(&mut self, topic: &[u8]) -> Option<usize> {
        let Self { entries, bytes, by_topic, hasher, last, .. } = self;
        let is_it = |index: &u32| {
            entries.get(*index as usize).is_some_and(|entry| bytes.topic(entry) == topic)
        };
        let found = *by_topic.find(hasher.hash_one(topic), is_it)? as usize;
        if let Some(last) = entries.get_mut(*last) {
            last.next = found;
        }
        *last = found;
        Some(found)
    }

    /// An entry by the index that [`find`](Self::find) or [`insert`](Self::insert) just returned, and the bytes of its
    /// envelopes.
    #[inline]
    pub(crate) fn entry(&mut self, index: usize) -> Option<(&mut Entry, &mut Bytes)> {
        Some((self.entries.get_mut(index)?, &mut self.bytes))
    }

    pub(crate) fn insert(&mut self, topic: &str, stored: Option<Stored>) -> usize {
        let full = self.total.load(Ordering::Relaxed) >= self.total_max;
        if full && self.entries.len() >= ENTRIES_ALWAYS {
            self.clear();
        }
        let index = self.entries.len();
        if let Some(last) = self.entries.get_mut(self.last) {
            last.next = index;
        }
        let (topic_start, topic_end) = self.bytes.push(topic.as_bytes());
        self.entries.push(Entry {
            topic_start,
            topic_end,
            // Perhaps they go round.
            next: 0,
            is_denied: false,
            stored,
            recipients: Recipients::default(),
            recipients_of: 0,
        });
        let Self { entries, bytes, by_topic, hasher, .. } = self;
        let hash_of = |index: &u32| {
            let entry = entries.get(*index as usize);
            hasher.hash_one(entry.map(|entry| bytes.topic(entry)).unwrap_or_default())
        };
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        by_topic.insert_unique(hasher.hash_one(topic.as_bytes()), number, hash_of);
        self.last = index;
        self.total.fetch_add(1, Ordering::Relaxed);
        index
    }

    pub(crate) fn clear(&mut self) {
        self.total.fetch_sub(self.entries.len(), Ordering::Relaxed);
        self.entries = Vec::new();
        self.bytes = Bytes::default();
        self.by_topic = HashTable::new();
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
        // In order, backwards, and what is not there.
        for topic in (0..20).chain((0..20).rev()).chain([7, 7, 3, 19, 0]) {
            assert_eq!(first.find(&topic.to_string()), Some(topic), "{topic}");
        }
        assert_eq!(first.find("20"), None);
        assert_eq!(first.find(""), None);
        drop((first, second));
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }
}
