//! What the uplink is told.

use std::fmt;

use crate::{Compression, HostPort, validate_topic_name};

/// Where and how to replicate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UplinkConfig {
    /// Brokers to begin with; at least one.
    pub bootstrap: Vec<HostPort>,
    /// Every broker is reached through this address instead of its own: a forwarded port or a tunnel to a cluster of
    /// one node.
    pub via: Option<HostPort>,
    /// How topics are called there.
    pub topic: UpstreamTopic,
    /// Whether missing topics are created there.
    pub create_topics: bool,
    /// Partitions of topics created there; none: as many as here.
    pub partitions: Option<u32>,
    /// Compression across the link.
    pub compression: Compression,
    /// A batch is sent when it has this many bytes before compression.
    pub batch_bytes: u32,
    /// Or when its oldest record has waited this long.
    pub linger_ms: u32,
    /// Read from the log and not yet acknowledged upstream, at most.
    pub window_bytes: u64,
}

/// A template for upstream topic names with `{topic}` and `{gateway}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTopic(String);

impl UpstreamTopic {
    /// Checks that every name it makes is legal for Kafka and that different topics stay different.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains("{topic}") {
            return Err("every topic would be mixed into one; write {topic} somewhere in it".into());
        }
        let rendered = Self(text.to_owned()).render("t", "g");
        if rendered.contains(['{', '}']) {
            return Err("only {topic} and {gateway} can be used here".into());
        }
        validate_topic_name(&rendered).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }

    /// The upstream name of `topic`.
    #[must_use]
    pub fn render(&self, topic: &str, gateway: &str) -> String {
        // One pass: a gateway called "{topic}" cannot exist, but nothing here should depend on it.
        let mut out = String::with_capacity(self.0.len() + topic.len() + gateway.len());
        let mut rest = self.0.as_str();
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            rest = &rest[open..];
            if let Some(after) = rest.strip_prefix("{topic}") {
                out.push_str(topic);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{gateway}") {
                out.push_str(gateway);
                rest = after;
            } else {
                out.push('{');
                rest = &rest[1..];
            }
        }
        out.push_str(rest);
        out
    }

    /// As written in the file.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UpstreamTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_names_are_rendered() {
        let name = UpstreamTopic::parse("edge.{gateway}.{topic}").unwrap();
        assert_eq!(name.render("telemetry", "gw3"), "edge.gw3.telemetry");
        assert_eq!(UpstreamTopic::parse("{topic}").unwrap().render("a", "b"), "a");
    }

    #[test]
    fn templates_that_mix_topics_or_make_illegal_names_are_refused() {
        for bad in
            ["all", "{gateway}", "{topic}/{gateway}", "{topic}{lane}", "{topic}}", "__{topic}"]
        {
            assert!(UpstreamTopic::parse(bad).is_err(), "{bad}");
        }
    }
}
