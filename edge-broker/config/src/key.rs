//! Key templates: `{3}`, `{topic}`, `{client}`, `{3:-none}`, and plain text around them.
//!
//! Levels count from 1. `{{` and `}}` stand for braces. A level that the route's filter does not guarantee (beyond a
//! `#`, or beyond the end of the filter) needs a default after `:-`, which may be empty.

use std::fmt;

/// How the key of a record is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyTemplate {
    /// No key: records are spread over the partitions.
    Keyless,
    /// The MQTT topic: keeps MQTT's order of one topic. The default.
    MqttTopic,
    /// Rendered for every PUBLISH.
    Parts(Vec<KeyPart>),
}

/// A piece of a key template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// Text as it is.
    Text(String),
    /// The whole MQTT topic.
    Topic,
    /// The client id.
    Client,
    /// One level of the MQTT topic.
    Level {
        /// Counted from 0.
        index: usize,
        /// What stands for a level that is absent.
        default: Option<String>,
    },
}

/// What a record's key is, once rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The record has no key; nothing was written.
    Keyless,
    /// The record has the key that was written.
    Keyed,
}

/// Why a key template is refused, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// `{` without `}` or the other way round.
    #[error(
        "a brace stands alone; write {{n}}, {{topic}} or {{client}}, and {{{{ or }}}} for a brace"
    )]
    Brace,
    /// Not a placeholder.
    #[error("{{{name}}} is not known; there are {{n}}, {{topic}} and {{client}}")]
    Unknown {
        /// What stood between the braces.
        name: String,
    },
    /// `{0}`.
    #[error("levels count from 1; write {{1}} for the first")]
    LevelZero,
    /// More levels than an MQTT topic may have.
    #[error("{{{level}}}: an MQTT topic has at most {LEVELS_MAX} levels")]
    LevelTooDeep {
        /// Counted from 1.
        level: usize,
    },
    /// A default for something that is always there.
    #[error("{{{name}}} is always there and takes no default")]
    NeedlessDefault {
        /// `topic` or `client`.
        name: String,
    },
    /// The filter does not guarantee the level.
    #[error(
        "{{{level}}} may be absent in topics that match \"{filter}\"; give it a default, for example {{{level}:-none}}"
    )]
    MayBeAbsent {
        /// Counted from 1.
        level: usize,
        /// The route's filter.
        filter: String,
    },
    /// Longer than is sensible.
    #[error("has {length} bytes; at most {TEMPLATE_BYTES_MAX} are allowed")]
    TooLong {
        /// What it has.
        length: usize,
    },
}

const LEVELS_MAX: usize = 32;
const TEMPLATE_BYTES_MAX: usize = 1_024;

impl KeyTemplate {
    /// Reads the `key` of a route with this filter.
    pub fn parse(text: &str, filter: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLong { length: text.len() });
        }
        if text.is_empty() {
            return Ok(Self::Keyless);
        }
        let guaranteed = guaranteed_levels(filter);
        let parts = parse_parts(text)?;
        for part in &parts {
            if let KeyPart::Level { index, default: None } = part
                && *index >= guaranteed
            {
                let filter = filter.to_owned();
                return Err(TemplateError::MayBeAbsent { level: index + 1, filter });
            }
        }
        Ok(if parts == [KeyPart::Topic] { Self::MqttTopic } else { Self::Parts(parts) })
    }

    /// Appends the key for a PUBLISH to `out`.
    pub fn render(&self, mqtt_topic: &str, client: &str, out: &mut Vec<u8>) -> KeyKind {
        match self {
            Self::Keyless => return KeyKind::Keyless,
            Self::MqttTopic => out.extend_from_slice(mqtt_topic.as_bytes()),
            Self::Parts(parts) => {
                for part in parts {
                    let text = match part {
                        KeyPart::Text(text) => text,
                        KeyPart::Topic => mqtt_topic,
                        KeyPart::Client => client,
                        KeyPart::Level { index, default } => mqtt_topic
                            .split('/')
                            .nth(*index)
                            .or(default.as_deref())
                            .unwrap_or_default(),
                    };
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        KeyKind::Keyed
    }

    /// Whether two clients that publish to one MQTT topic may get different keys.
    #[must_use]
    pub fn depends_on_client(&self) -> bool {
        matches!(self, Self::Parts(parts) if parts.contains(&KeyPart::Client))
    }
}

impl fmt::Display for KeyTemplate {
    /// As [`parse`](Self::parse) reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyless => Ok(()),
            Self::MqttTopic => f.write_str("{topic}"),
            Self::Parts(parts) => parts.iter().try_for_each(|part| part.fmt(f)),
        }
    }
}

impl fmt::Display for KeyPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Self::Topic => f.write_str("{topic}"),
            Self::Client => f.write_str("{client}"),
            Self::Level { index, default: None } => write!(f, "{{{}}}", index + 1),
            Self::Level { index, default: Some(default) } => {
                write!(f, "{{{}:-{default}}}", index + 1)
            }
        }
    }
}

/// How many levels every topic that matches `filter` has.
fn guaranteed_levels(filter: &str) -> usize {
    let levels = filter.split('/').count();
    // `a/#` also matches `a`; `#` alone matches nothing shorter than one level.
    if filter == "#" {
        1
    } else if filter.ends_with('#') {
        levels - 1
    } else {
        levels
    }
}

fn parse_parts(template: &str) -> Result<Vec<KeyPart>, TemplateError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..];
        if let Some(after) = brace.strip_prefix("{{") {
            text.push('{');
            rest = after;
        } else if let Some(after) = brace.strip_prefix("}}") {
            text.push('}');
            rest = after;
        } else {
            let inside = brace.strip_prefix('{').ok_or(TemplateError::Brace)?;
            let (inside, after) = inside.split_once('}').ok_or(TemplateError::Brace)?;
            if !text.is_empty() {
                parts.push(KeyPart::Text(std::mem::take(&mut text)));
            }
            parts.push(parse_placeholder(inside)?);
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        parts.push(KeyPart::Text(text));
    }
    Ok(parts)
}

fn parse_placeholder(inside: &str) -> Result<KeyPart, TemplateError> {
    if inside.contains('{') {
        return Err(TemplateError::Brace);
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    match name {
        "topic" | "client" if default.is_some() => {
            Err(TemplateError::NeedlessDefault { name: name.to_owned() })
        }
        "topic" => Ok(KeyPart::Topic),
        "client" => Ok(KeyPart::Client),
        _ if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) => {
            match name.parse::<usize>().unwrap_or(usize::MAX) {
                0 => Err(TemplateError::LevelZero),
                level if level > LEVELS_MAX => Err(TemplateError::LevelTooDeep { level }),
                level => {
                    Ok(KeyPart::Level { index: level - 1, default: default.map(str::to_owned) })
                }
            }
        }
        _ => Err(TemplateError::Unknown { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(template: &str, filter: &str, topic: &str) -> Option<String> {
        let mut out = Vec::new();
        match KeyTemplate::parse(template, filter).unwrap().render(topic, "c1", &mut out) {
            KeyKind::Keyless => None,
            KeyKind::Keyed => Some(String::from_utf8(out).unwrap()),
        }
    }

    #[test]
    fn placeholders_are_filled_from_the_publish() {
        let topic = "plant/l1/m7/telemetry";
        let filter = "plant/+/+/telemetry";
        for (template, key) in [
            ("{3}", "m7"),
            ("{1}-{2}", "plant-l1"),
            ("{topic}", topic),
            ("{client}:{3}", "c1:m7"),
            ("{{{3}}}", "{m7}"),
            ("{9:-none}", "none"),
            ("fixed", "fixed"),
        ] {
            assert_eq!(rendered(template, filter, topic).as_deref(), Some(key), "{template}");
        }
        assert_eq!(rendered("", filter, topic), None);
    }

    #[test]
    fn a_level_that_may_be_absent_needs_a_default() {
        for (template, filter, ok) in [
            ("{1}", "#", true),
            ("{2}", "#", false),
            ("{2:-}", "#", true),
            ("{1}", "a/#", true),
            ("{2}", "a/#", false),
            ("{2}", "a/+", true),
            ("{3}", "a/+", false),
            ("{1}", "+/#", true),
        ] {
            let result = KeyTemplate::parse(template, filter);
            assert_eq!(result.is_ok(), ok, "{template} of {filter}: {result:?}");
        }
        assert_eq!(rendered("{2:-none}", "a/#", "a").as_deref(), Some("none"));
        assert_eq!(rendered("{2:-none}", "a/#", "a/b").as_deref(), Some("b"));
        // An empty level is there.
        assert_eq!(rendered("{2:-none}", "a/#", "a//c").as_deref(), Some(""));
    }

    #[test]
    fn malformed_templates_are_refused() {
        for bad in
            ["{", "}", "{1", "1}", "{0}", "{33}", "{name}", "{}", "{1{2}}", "{topic:-x}", "{-1}"]
        {
            assert!(KeyTemplate::parse(bad, "a/b/c").is_err(), "{bad}");
        }
        assert!(KeyTemplate::parse("{99999999999999999999999}", "#").is_err());
    }

    #[test]
    fn a_template_is_shown_as_it_is_read() {
        for template in ["", "{topic}", "{client}/{2:-x}", "a{{b}}{1}", "{3:-}"] {
            let parsed = KeyTemplate::parse(template, "a/b/#").unwrap();
            assert_eq!(KeyTemplate::parse(&parsed.to_string(), "a/b/#").unwrap(), parsed);
        }
    }
}
