//! Topic aliases of one connection, both ways.
//!
//! Limits: [`SessionLimits::topic_aliases_max`](super::SessionLimits::topic_aliases_max) each way.
//!
//! Source: MQTT 5.0 sections 3.3.2.3.4, 3.1.2.11.5 and 3.2.2.3.8.

use crate::frame::PacketType;
use crate::message::Alias;
use crate::property;
use crate::publish::Publish;
use crate::violation::Violation;

/// Topics shorter than this are written out: an alias takes three bytes.
const TOPIC_BYTES_MIN: usize = 4;

/// Aliases that the client has set.
#[derive(Debug, Default)]
pub(super) struct AliasesIn {
    topics: Vec<Option<Box<str>>>,
    /// The properties of the publish at hand, without the alias.
    properties: Vec<u8>,
}

impl AliasesIn {
    /// Puts the topic in place of an alias, or remembers it.
    #[cold]
    pub(super) fn resolve<'a>(
        &'a mut self,
        publish: &Publish<'a>,
        max: u16,
    ) -> Result<Publish<'a>, Violation> {
        let Some(alias) = publish.topic_alias else { return Ok(*publish) };
        let found = alias.get();
        if found > max {
            return Err(Violation::TopicAlias { found });
        }
        let index = usize::from(found) - 1;
        if !publish.topic.is_empty() {
            if self.topics.len() <= index {
                self.topics.resize(index + 1, None);
            }
            if let Some(known) = self.topics.get_mut(index)
                && known.as_deref() != Some(publish.topic)
            {
                *known = Some(publish.topic.into());
            }
        }
        self.properties.clear();
        let allowed = property::IN_PUBLISH;
        property::walk(PacketType::Publish, publish.properties_raw, allowed, |id, value| {
            if id != property::TOPIC_ALIAS {
                property::put(&mut self.properties, id, &value);
            }
            Ok(())
        })?;
        let topic = self.topics.get(index).and_then(Option::as_deref);
        let topic = topic.ok_or(Violation::TopicAliasUnknown { found })?;
        Ok(Publish { topic, properties_raw: &self.properties, topic_alias: None, ..*publish })
    }
}

/// Aliases that we have set: the first topics get one; when all are taken, a topic that comes twice in a row
/// takes over the oldest.
#[derive(Debug, Default)]
pub(super) struct AliasesOut {
    max: u16,
    topics: Vec<Box<[u8]>>,
    missed: Box<[u8]>,
    oldest: u16,
}

impl AliasesOut {
    /// `max`: what the client takes, and we give.
    pub(super) fn new(max: u16) -> Self {
        Self { max, ..Self::default() }
    }

    /// How to write this topic.
    #[inline]
    pub(super) fn choose(&mut self, topic: &[u8]) -> Alias {
        if self.max == 0 || topic.len() < TOPIC_BYTES_MIN {
            return Alias::None;
        }
        let known = self.topics.iter().position(|known| **known == *topic);
        if let Some(index) = known.and_then(|index| u16::try_from(index).ok()) {
            return Alias::Instead(index + 1);
        }
        let taken = u16::try_from(self.topics.len()).unwrap_or(u16::MAX);
        if taken < self.max {
            return Alias::Set(taken + 1);
        }
        if *self.missed == *topic {
            return Alias::Set(self.oldest + 1);
        }
        self.missed = topic.into();
        Alias::None
    }

    /// It was written that way.
    #[inline]
    pub(super) fn written(&mut self, topic: &[u8], alias: Alias) {
        let Alias::Set(alias) = alias else { return };
        let index = alias - 1;
        match self.topics.get_mut(usize::from(index)) {
            Some(known) => {
                *known = topic.into();
                self.oldest = (index + 1) % self.max;
            }
            None => self.topics.push(topic.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_get_aliases_and_a_busy_one_replaces_the_oldest() {
        let mut aliases = AliasesOut::new(2);
        let mut write = |topic: &[u8]| {
            let alias = aliases.choose(topic);
            aliases.written(topic, alias);
            alias
        };
        assert_eq!(write(b"a/1"), Alias::None, "too short to gain anything");
        assert_eq!([write(b"aaa/1"), write(b"aaa/1")], [Alias::Set(1), Alias::Instead(1)]);
        assert_eq!([write(b"aaa/2"), write(b"aaa/2")], [Alias::Set(2), Alias::Instead(2)]);
        assert_eq!([write(b"aaa/3"), write(b"aaa/4")], [Alias::None, Alias::None]);
        assert_eq!([write(b"aaa/4"), write(b"aaa/4")], [Alias::Set(1), Alias::Instead(1)]);
        assert_eq!([write(b"aaa/1"), write(b"aaa/1")], [Alias::None, Alias::Set(2)]);
        assert_eq!(AliasesOut::new(0).choose(b"aaa/1"), Alias::None);
    }
}
