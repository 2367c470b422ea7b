//! Topic names and topic filters: what is legal, and what matches what.
//!
//! Limits: a name or filter has at most [`TOPIC_BYTES_MAX`] bytes and [`TOPIC_LEVELS_MAX`] levels.
//! Everything is compared level by level as UTF-8 strings; nothing is ever cut inside a character.
//!
//! Source: MQTT 5.0 section 4.7 (identical to 3.1.1 section 4.7), section 1.5.4 for U+0000.

use thiserror::Error;

/// Longest topic name or filter we accept, in bytes of UTF-8. The standard allows 65,535; a topic
/// name becomes a record header and a cache key here, so it is kept small.
pub const TOPIC_BYTES_MAX: usize = 1_024;

/// Most levels in a topic name or filter. Bounds the depth of the subscription tree.
pub const TOPIC_LEVELS_MAX: usize = 32;

/// Why a topic name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicError {
    /// A topic name has at least one character.
    #[error("the topic name is empty")]
    Empty,
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("the topic name has {found} bytes, at most {TOPIC_BYTES_MAX} are accepted")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// More levels than [`TOPIC_LEVELS_MAX`].
    #[error("the topic name has more than {TOPIC_LEVELS_MAX} levels")]
    TooManyLevels,
    /// `+` or `#` in a name that is published to.
    #[error("the topic name contains a wildcard")]
    Wildcard,
    /// U+0000 is forbidden in every MQTT string.
    #[error("the topic name contains U+0000")]
    Nul,
}

/// Why a topic filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterError {
    /// A filter has at least one character.
    #[error("the topic filter is empty")]
    Empty,
    /// Longer than [`TOPIC_BYTES_MAX`].
    #[error("the topic filter has {found} bytes, at most {TOPIC_BYTES_MAX} are accepted")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// More levels than [`TOPIC_LEVELS_MAX`].
    #[error("the topic filter has more than {TOPIC_LEVELS_MAX} levels")]
    TooManyLevels,
    /// `#` that is not the whole last level, as in `a#` or `a/#/b`.
    #[error("`#` must be the last level of a topic filter and alone in it")]
    MisplacedHash,
    /// `+` that shares its level with other characters, as in `a+/b`.
    #[error("`+` must be alone in its level of a topic filter")]
    MisplacedPlus,
    /// `$share/` without a name, without a filter behind it, or with a wildcard in the name.
    #[error("a shared subscription is `$share/NAME/FILTER`, and its name has no wildcard")]
    Share,
    /// U+0000 is forbidden in every MQTT string.
    #[error("the topic filter contains U+0000")]
    Nul,
}

/// Whether `topic` may be the topic name of a PUBLISH or of a will.
///
/// # Errors
/// The first rule that `topic` breaks.
pub fn validate_topic(topic: &str) -> Result<(), TopicError> {
    if topic.is_empty() {
        return Err(TopicError::Empty);
    }
    if topic.len() > TOPIC_BYTES_MAX {
        return Err(TopicError::TooLong { found: topic.len() });
    }
    // Bytes will do: all characters of interest are ASCII and cannot occur inside a multi-byte
    // character. Two passes without branches beat one with them: this runs for every PUBLISH.
    let bytes = topic.as_bytes();
    let forbidden = bytes.iter().fold(0, |found, &byte| {
        found | u8::from(byte == b'+') | u8::from(byte == b'#') | u8::from(byte == 0)
    });
    if forbidden != 0 {
        return Err(if bytes.contains(&0) { TopicError::Nul } else { TopicError::Wildcard });
    }
    let levels = 1 + bytes.iter().filter(|&&byte| byte == b'/').count();
    if levels > TOPIC_LEVELS_MAX {
        return Err(TopicError::TooManyLevels);
    }
    Ok(())
}

/// What shared subscriptions begin with.
pub const SHARE_PREFIX: &str = "$share/";

/// Name and topic filter of a shared subscription (`$share/NAME/FILTER`). `None`: `filter` is none.
#[must_use]
pub fn split_share(filter: &str) -> Option<(&str, &str)> {
    let (name, filter) = filter.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
    let is_one = !name.is_empty() && !name.contains(['+', '#']) && !filter.is_empty();
    is_one.then_some((name, filter))
}

/// Whether `filter` may be subscribed to or used in a route.
///
/// # Errors
/// The first rule that `filter` breaks.
pub fn validate_filter(filter: &str) -> Result<(), FilterError> {
    if filter.is_empty() {
        return Err(FilterError::Empty);
    }
    if filter.len() > TOPIC_BYTES_MAX {
        return Err(FilterError::TooLong { found: filter.len() });
    }
    if filter.bytes().any(|byte| byte == 0) {
        return Err(FilterError::Nul);
    }
    let mut levels = filter.split('/');
    let mut count = 0_usize;
    while let Some(level) = levels.next() {
        count += 1;
        if count > TOPIC_LEVELS_MAX {
            return Err(FilterError::TooManyLevels);
        }
        if level.contains('#') && (level != "#" || levels.next().is_some()) {
            return Err(FilterError::MisplacedHash);
        }
        if level.contains('+') && level != "+" {
            return Err(FilterError::MisplacedPlus);
        }
    }
    Ok(())
}

/// Whether `topic` (a valid name) matches `filter` (a valid filter).
///
/// `a/#` matches `a` itself and everything below; a leading wildcard does not match a topic that
/// begins with `$`.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic_levels = topic.split('/');
    for filter_level in filter.split('/') {
        if filter_level == "#" {
            return true;
        }
        match topic_levels.next() {
            Some(_) if filter_level == "+" => {}
            Some(level) if level == filter_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/b", "a/b", true),
            ("a/+/c", "a/b/c", true),
            ("a/+/c", "a/b/d", false),
            ("a", "a/b", false),
            ("a/b", "a", false),
            ("A", "a", false),
        ];
        for (filter, topic, expected) in cases {
            assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        }
    }

    #[test]
    fn leading_wildcards_do_not_see_dollar_topics() {
        assert!(!matches("#", "$SYS/uptime"));
        assert!(!matches("+/uptime", "$SYS/uptime"));
        assert!(matches("$SYS/#", "$SYS/uptime"));
        assert!(matches("$SYS/+", "$SYS/uptime"));
        assert!(matches("a/#", "a/$b"));
    }

    #[test]
    fn multibyte_levels_are_compared_whole() {
        assert!(matches("#", "ü"));
        assert!(matches("+/t", "ü/t"));
        assert!(matches("ü/+", "ü/ö"));
        assert!(!matches("u/+", "ü/ö"));
        assert_eq!(validate_topic("ünit/7/温度"), Ok(()));
        assert_eq!(validate_filter("ünit/+/温度/#"), Ok(()));
    }

    #[test]
    fn wildcards_only_where_they_may_stand() {
        for good in ["#", "+", "a/#", "+/+/#", "a/+/b", "/", "/#", "//"] {
            assert_eq!(validate_filter(good), Ok(()), "{good}");
        }
        for bad in ["a#", "a/#/b", "#/a", "a/b#", "##", "#/"] {
            assert_eq!(validate_filter(bad), Err(FilterError::MisplacedHash), "{bad}");
        }
        for bad in ["a+", "+a", "a/+b/c", "++"] {
            assert_eq!(validate_filter(bad), Err(FilterError::MisplacedPlus), "{bad}");
        }
        assert_eq!(validate_filter(""), Err(FilterError::Empty));
        assert_eq!(validate_filter("a\0"), Err(FilterError::Nul));
    }

    #[test]
    fn topic_names_carry_no_wildcard_and_no_nul() {
        assert_eq!(validate_topic(""), Err(TopicError::Empty));
        assert_eq!(validate_topic("a/+"), Err(TopicError::Wildcard));
        assert_eq!(validate_topic("a#"), Err(TopicError::Wildcard));
        assert_eq!(validate_topic("a\0b"), Err(TopicError::Nul));
        assert_eq!(validate_topic("/"), Ok(()));
    }

    #[test]
    fn length_and_depth_are_bounded_at_their_limits() {
        let longest = "a".repeat(TOPIC_BYTES_MAX);
        assert_eq!(validate_topic(&longest), Ok(()));
        assert_eq!(validate_filter(&longest), Ok(()));
        let longer = "a".repeat(TOPIC_BYTES_MAX + 1);
        assert_eq!(validate_topic(&longer), Err(TopicError::TooLong { found: 1025 }));
        assert_eq!(validate_filter(&longer), Err(FilterError::TooLong { found: 1025 }));
        let deepest = "/".repeat(TOPIC_LEVELS_MAX - 1);
        assert_eq!(validate_topic(&deepest), Ok(()));
        assert_eq!(validate_filter(&deepest), Ok(()));
        let deeper = "/".repeat(TOPIC_LEVELS_MAX);
        assert_eq!(validate_topic(&deeper), Err(TopicError::TooManyLevels));
        assert_eq!(validate_filter(&deeper), Err(FilterError::TooManyLevels));
    }
}
