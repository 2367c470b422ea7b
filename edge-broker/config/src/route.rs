//! A route: what becomes of a PUBLISH.

use std::sync::Arc;

use crate::{KeyTemplate, TimestampSource};

/// MQTT topic filter and what becomes of the topics it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// A legal MQTT topic filter.
    pub filter: String,
    /// Where matching PUBLISHes go.
    pub target: RouteTarget,
}

/// Where the PUBLISHes of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// To live subscribers only (`store = false`).
    LiveOnly,
    /// Into the log as well.
    Store(StoreTarget),
}

/// How the PUBLISHes of a route are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTarget {
    /// The Kafka topic.
    pub topic: Arc<str>,
    /// The topic's lane.
    pub lane: Arc<str>,
    /// The topic's partitions, 1 to 1,024.
    pub partitions: u32,
    /// The record's key.
    pub key: KeyTemplate,
    /// Which headers the record gets.
    pub headers: HeaderSelection,
    /// Where the record's timestamp comes from.
    pub timestamp: TimestampSource,
}

/// Which headers a record gets. All of them are needed to rebuild the PUBLISH exactly as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderSelection {
    /// `mqtt.topic`
    pub topic: bool,
    /// `mqtt.client`
    pub client: bool,
    /// `mqtt.qos`
    pub qos: bool,
    /// `mqtt.retain`
    pub retain: bool,
    /// `mqtt.<property>` of MQTT 5
    pub properties: bool,
    /// The user properties of MQTT 5
    pub user_properties: bool,
}

impl HeaderSelection {
    /// Everything: the default.
    pub const ALL: Self = Self::every(true);
    /// No header at all.
    pub const NONE: Self = Self::every(false);

    /// The names used in the file.
    pub(crate) const NAMES: [&str; 6] = [
        "mqtt.topic",
        "mqtt.client",
        "mqtt.qos",
        "mqtt.retain",
        "mqtt.properties",
        "user-properties",
    ];

    /// Whether a session can be given the PUBLISH from its record.
    #[must_use]
    pub const fn rebuilds(self) -> bool {
        self.topic && self.client && self.qos && self.retain
    }

    const fn every(on: bool) -> Self {
        Self { topic: on, client: on, qos: on, retain: on, properties: on, user_properties: on }
    }

    pub(crate) fn by_name(&mut self, name: &str) -> Option<&mut bool> {
        let index = Self::NAMES.iter().position(|known| *known == name)?;
        Some(match index {
            0 => &mut self.topic,
            1 => &mut self.client,
            2 => &mut self.qos,
            3 => &mut self.retain,
            4 => &mut self.properties,
            _ => &mut self.user_properties,
        })
    }

    /// The names of what is switched on, as used in the file.
    pub fn names(mut self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |name| self.by_name(name).is_some_and(|on| *on))
    }
}

impl Route {
    /// How it is stored, if it is.
    #[must_use]
    pub fn store(&self) -> Option<&StoreTarget> {
        match &self.target {
            RouteTarget::Store(store) => Some(store),
            RouteTarget::LiveOnly => None,
        }
    }
}
