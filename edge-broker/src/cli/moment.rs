//! Points in time as an operator writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_config::units::parse_duration_ms;

/// A point in time, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub i64);

/// Reads `2026-07-28T12:00:00Z`, milliseconds since 1970, or how long ago (`10min`).
pub(crate) fn parse_moment(text: &str) -> Result<Moment, String> {
    moment_at(text, SystemTime::now())
}

fn moment_at(text: &str, now: SystemTime) -> Result<Moment, String> {
    if let Ok(ms) = text.parse::<u64>() {
        return i64::try_from(ms).map(Moment).map_err(|_| "too late".to_owned());
    }
    let since_1970 = if let Ok(ms) = parse_duration_ms(text) {
        now.checked_sub(Duration::from_millis(ms))
    } else {
        humantime::parse_rfc3339_weak(text).ok()
    };
    let since_1970 = since_1970.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let ms = since_1970.and_then(|since| i64::try_from(since.as_millis()).ok());
    ms.map(Moment).ok_or_else(|| {
        "write 2026-07-28T12:00:00Z, milliseconds since 1970, or how long ago, for example 10min".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_dates_numbers_or_how_long_ago() {
        let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        for (text, ms) in [
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01 00:00:00", 1_767_225_600_000),
            ("1767225600123", 1_767_225_600_123),
            ("10min", 1_767_225_000_000),
            ("0s", 1_767_225_600_000),
        ] {
            assert_eq!(moment_at(text, now), Ok(Moment(ms)), "{text}");
        }
        for text in ["", "yesterday", "100000d", "-5", "2026-13-01T00:00:00Z"] {
            assert!(moment_at(text, now).is_err(), "{text}");
        }
    }
}
