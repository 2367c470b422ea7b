//! Which names are legal: topics (Kafka's rule), lanes, gateways.

/// Why a name is refused, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("is empty; give it a name")]
    Empty,
    /// More bytes than allowed.
    #[error("has {length} characters; at most {max} are allowed")]
    TooLong {
        /// What it has.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// A character that is not allowed.
    #[error("contains {found:?}; {allowed} are allowed")]
    Character {
        /// The first one.
        found: char,
        /// What is allowed, in words.
        allowed: &'static str,
    },
    /// `.` or `..`.
    #[error("\".\" and \"..\" are not names")]
    Dots,
    /// A prefix that belongs to the broker.
    #[error("names that begin with \"__\" belong to the broker; choose another")]
    Internal,
}

/// Kafka's limit: a log directory is named topic-partition.
const TOPIC_CHARS_MAX: usize = 249;
const LANE_CHARS_MAX: usize = 32;
/// Leaves room for a topic name in an upstream topic `{gateway}.{topic}`.
const GATEWAY_CHARS_MAX: usize = 100;

/// Whether Kafka takes `name` as the name of a topic that is not internal.
pub fn validate_topic_name(name: &str) -> Result<(), NameError> {
    kafka_name(name, TOPIC_CHARS_MAX)?;
    if name.starts_with("__") {
        return Err(NameError::Internal);
    }
    Ok(())
}

/// Whether `name` may be a lane: it becomes a directory.
pub fn validate_lane(name: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    check(name, LANE_CHARS_MAX, allowed, "a-z, 0-9 and -")
}

/// Whether `name` may be a gateway: it may become part of an upstream topic.
pub fn validate_gateway(name: &str) -> Result<(), NameError> {
    kafka_name(name, GATEWAY_CHARS_MAX)
}

/// The nearest legal gateway name to a host name.
pub(crate) fn gateway_from_hostname(hostname: &str) -> String {
    let legal = |c: char| if is_kafka_char(c) { c } else { '-' };
    let name: String = hostname.trim().chars().map(legal).take(GATEWAY_CHARS_MAX).collect();
    if validate_gateway(&name).is_ok() { name } else { "gateway".to_owned() }
}

fn kafka_name(name: &str, max: usize) -> Result<(), NameError> {
    check(name, max, is_kafka_char, "a-z, A-Z, 0-9, \".\", \"_\" and \"-\"")?;
    if matches!(name, "." | "..") { Err(NameError::Dots) } else { Ok(()) }
}

fn is_kafka_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn check(
    name: &str,
    max: usize,
    is_allowed: impl Fn(char) -> bool,
    allowed: &'static str,
) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(found) = name.chars().find(|c| !is_allowed(*c)) {
        return Err(NameError::Character { found, allowed });
    }
    if name.len() > max {
        return Err(NameError::TooLong { length: name.len(), max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafka() {
        for good in ["telemetry", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(validate_topic_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "__consumer_offsets", "{1}", &"x".repeat(250)]
        {
            assert!(validate_topic_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn any_host_name_gives_a_legal_gateway_name() {
        assert_eq!(gateway_from_hostname("plant7-gw3"), "plant7-gw3");
        assert_eq!(gateway_from_hostname("büro\n"), "b-ro");
        assert_eq!(gateway_from_hostname(""), "gateway");
        assert_eq!(gateway_from_hostname(".."), "gateway");
        assert!(validate_gateway(&gateway_from_hostname(&"ü".repeat(500))).is_ok());
    }

    #[test]
    fn lane_names_are_safe_as_directories() {
        assert_eq!(validate_lane("vibration-raw"), Ok(()));
        for bad in ["", "..", "a/b", "Normal", "a_b", &"x".repeat(33)] {
            assert!(validate_lane(bad).is_err(), "{bad}");
        }
    }
}
