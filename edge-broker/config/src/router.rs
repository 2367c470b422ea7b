//! Which route an MQTT topic takes: the first that matches, in file order.
//!
//! The match depends on the MQTT topic alone, so one topic always ends in one lane. What was found is remembered in a
//! bounded cache, since a match costs a comparison with every filter before it.

use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::{Config, KeyKind, Route};

/// Number of a route in [`Router::routes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteIndex(pub u16);

/// All routes, ready to be asked from any thread.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Route>,
    hasher: DefaultHashBuilder,
    shards: Vec<Mutex<HashMap<Box<str>, RouteIndex>>>,
    shard_entries_max: usize,
}

const SHARDS: usize = 8;
/// Up to this many filters are compared faster than a string is hashed under a lock.
const UNCACHED_ROUTES_MAX: usize = 4;
/// Longer topics are not remembered: bounds the cache in bytes, not only in entries.
const CACHED_TOPIC_BYTES_MAX: usize = 256;

impl Router {
    /// The router of a configuration.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self::with_routes(config.routes.clone(), config.board.memory.route_cache_entries as usize)
    }

    fn with_routes(routes: Vec<Route>, cache_entries: usize) -> Self {
        assert!(
            routes.last().is_some_and(|last| last.filter == "#"),
            "a configuration always ends in a route that takes everything"
        );
        let shards = if routes.len() <= UNCACHED_ROUTES_MAX { 0 } else { SHARDS };
        Self {
            routes,
            hasher: DefaultHashBuilder::default(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            shard_entries_max: (cache_entries / SHARDS).max(1),
        }
    }

    /// The first route that matches `mqtt_topic`. A topic that begins with `$`, which the listener refuses, takes the
    /// last one.
    #[must_use]
    pub fn resolve(&self, mqtt_topic: &str) -> RouteIndex {
        if self.shards.is_empty() || mqtt_topic.len() > CACHED_TOPIC_BYTES_MAX {
            return self.first_match(mqtt_topic);
        }
        let hash = self.hasher.hash_one(mqtt_topic);
        // The map below uses the low bits and the top seven.
        let shard = &self.shards[(hash >> 32) as usize % SHARDS];
        let mut known = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = known.get(mqtt_topic) {
            return *index;
        }
        let index = self.first_match(mqtt_topic);
        if known.len() >= self.shard_entries_max {
            // Forgetting all is cheap to do and cheap to repair; an order of use would cost every hit.
            known.clear();
        }
        known.insert(mqtt_topic.into(), index);
        index
    }

    /// The route with this number.
    ///
    /// # Panics
    /// If the number is of another router.
    #[must_use]
    pub fn route(&self, index: RouteIndex) -> &Route {
        &self.routes[usize::from(index.0)]
    }

    /// All routes in the order they are tried; the last takes everything.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Appends the key of a record that takes this route to `out`. A route that stores nothing is keyless.
    pub fn render_key(
        &self,
        index: RouteIndex,
        mqtt_topic: &str,
        client: &str,
        out: &mut Vec<u8>,
    ) -> KeyKind {
        match self.route(index).store() {
            Some(store) => store.key.render(mqtt_topic, client, out),
            None => KeyKind::Keyless,
        }
    }

    fn first_match(&self, mqtt_topic: &str) -> RouteIndex {
        let matches = |route: &Route| edge_mqtt::topic_filter::matches(&route.filter, mqtt_topic);
        let index = self.routes.iter().position(matches).unwrap_or(self.routes.len() - 1);
        RouteIndex(u16::try_from(index).expect("a configuration has at most 1,024 routes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RouteTarget;

    fn router(filters: &[&str], cache_entries: usize) -> Router {
        let route =
            |filter: &&str| Route { filter: (*filter).to_owned(), target: RouteTarget::LiveOnly };
        Router::with_routes(filters.iter().map(route).collect(), cache_entries)
    }

    const FILTERS: [&str; 6] = ["a/+/c", "a/#", "b", "+/x", "c/d/#", "#"];

    #[test]
    fn the_first_match_in_file_order_wins() {
        let router = router(&FILTERS, 64);
        for (topic, route) in [
            ("a/b/c", 0),
            ("a/b", 1),
            ("a", 1),
            ("a/x", 1),
            ("b", 2),
            ("b/x", 3),
            ("c/d", 4),
            ("c", 5),
            ("ü/1", 5),
            ("$SYS/x", 5),
        ] {
            // Twice: once found, once remembered.
            assert_eq!(router.resolve(topic), RouteIndex(route), "{topic}");
            assert_eq!(router.resolve(topic), RouteIndex(route), "{topic}");
        }
    }

    #[test]
    fn the_cache_is_bounded_and_never_changes_an_answer() {
        let router = router(&FILTERS, 64);
        let long = format!("a/{}", "x".repeat(1_000));
        for round in 0..3 {
            for n in 0..1_000 {
                assert_eq!(router.resolve(&format!("a/{n}/c")), RouteIndex(0), "round {round}");
            }
            assert_eq!(router.resolve(&long), RouteIndex(1));
        }
        let entries: usize = router.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!((1..=64).contains(&entries), "{entries}");
    }

    #[test]
    fn few_routes_need_no_cache() {
        let router = router(&["a", "#"], 64);
        assert!(router.shards.is_empty());
        assert_eq!(router.resolve("a"), RouteIndex(0));
        assert_eq!(router.resolve("b"), RouteIndex(1));
    }
}
