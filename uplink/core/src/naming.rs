//! Names of upstream topics: a template with `{topic}` and `{gateway}`.
//!
//! Kafka's rule for names: 1 to 249 characters of `a-z A-Z 0-9 . _ -`, not `.` and not `..`.

use std::fmt;

/// Longest topic name that Kafka takes, in characters.
pub const TOPIC_NAME_MAX: usize = 249;

/// Why a template is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A `{` without its `}`, or the other way round.
    #[error("upstream topic \"{template}\" has an unmatched brace")]
    Brace {
        /// The template.
        template: String,
    },
    /// A name in braces that means nothing.
    #[error("upstream topic \"{template}\" uses {{{name}}}; only {{topic}} and {{gateway}} exist")]
    Unknown {
        /// The template.
        template: String,
        /// The name.
        name: String,
    },
    /// A character that no topic name may have.
    #[error("upstream topic \"{template}\" has '{character}', which no Kafka topic may have")]
    Character {
        /// The template.
        template: String,
        /// The character.
        character: char,
    },
}

/// Why a rendered name is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{name}\" is not a legal Kafka topic name (1 to 249 of a-z A-Z 0-9 . _ -)")]
pub struct IllegalName {
    /// The name.
    pub name: String,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Topic,
    Gateway,
}

impl TopicTemplate {
    /// Parses a template such as `{gateway}.{topic}`.
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let brace = || TemplateError::Brace { template: template.to_owned() };
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (text, after) = match rest.find('{') {
                Some(at) => (&rest[..at], Some(&rest[at + 1..])),
                None => (rest, None),
            };
            if let Some(character) = text.chars().find(|character| !is_legal(*character)) {
                return Err(match character {
                    '}' => brace(),
                    character => {
                        TemplateError::Character { template: template.to_owned(), character }
                    }
                });
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            let Some(after) = after else { break };
            let (name, tail) = after.split_once('}').ok_or_else(brace)?;
            parts.push(match name {
                "topic" => Part::Topic,
                "gateway" => Part::Gateway,
                name => {
                    return Err(TemplateError::Unknown {
                        template: template.to_owned(),
                        name: name.to_owned(),
                    });
                }
            });
            rest = tail;
        }
        Ok(Self { parts })
    }

    /// The upstream name of a topic.
    ///
    /// # Errors
    /// The result is no legal topic name.
    pub fn render(&self, topic: &str, gateway: &str) -> Result<String, IllegalName> {
        let name: String = self
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Topic => topic,
                Part::Gateway => gateway,
            })
            .collect();
        if is_legal_topic(&name) { Ok(name) } else { Err(IllegalName { name }) }
    }
}

impl fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            f.write_str(match part {
                Part::Text(text) => text,
                Part::Topic => "{topic}",
                Part::Gateway => "{gateway}",
            })?;
        }
        Ok(())
    }
}

/// Whether Kafka takes this as the name of a topic.
#[must_use]
pub fn is_legal_topic(name: &str) -> bool {
    (1..=TOPIC_NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.chars().all(is_legal)
}

fn is_legal(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_render() {
        let render = |template: &str| {
            TopicTemplate::parse(template).unwrap().render("telemetry", "plant7-gw3")
        };
        assert_eq!(render("{topic}").unwrap(), "telemetry");
        assert_eq!(render("edge.{gateway}.{topic}").unwrap(), "edge.plant7-gw3.telemetry");
        assert_eq!(render("all").unwrap(), "all");
        assert!(render("").is_err());
        assert!(render("..").is_err());
        assert_eq!(
            TopicTemplate::parse("a.{gateway}_{topic}").unwrap().to_string(),
            "a.{gateway}_{topic}"
        );
    }

    #[test]
    fn what_no_topic_may_be_called_is_refused_early_or_named() {
        for bad in ["{topic", "topic}", "{nope}", "a b", "a/b", "ü", "{}"] {
            assert!(TopicTemplate::parse(bad).is_err(), "{bad}");
        }
        let template = TopicTemplate::parse("{gateway}.{topic}").unwrap();
        assert!(template.render("t", "gate way").is_err());
        assert!(template.render(&"x".repeat(TOPIC_NAME_MAX), "g").is_err());
    }
}
