//! Where a record's timestamp comes from: our clock, or a field of a JSON payload.
//!
//! The payload is scanned, not built: fields that are not asked for are skipped without allocation. A payload that is
//! not JSON, has no such field, or holds something that is no time there gets our clock.
//!
//! Sources: RFC 8259 (JSON), RFC 3339 (dates).

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

/// Where a record's timestamp comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimestampSource {
    /// When the broker took the record over.
    Now,
    /// A field of the JSON payload.
    Field {
        /// Names from the outermost object inwards; at least one, at most eight.
        path: Vec<String>,
        /// What the number there counts.
        unit: TimestampUnit,
    },
}

/// What the value of a timestamp field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampUnit {
    /// Seconds since 1970, fractions allowed.
    Seconds,
    /// Milliseconds since 1970.
    Millis,
    /// Microseconds since 1970.
    Micros,
    /// Nanoseconds since 1970.
    Nanos,
    /// A text such as `2026-07-28T12:00:00.5Z`.
    Rfc3339,
}

pub(crate) const PATH_NAMES_MAX: usize = 8;

/// 9999-12-31T23:59:59.999Z. What lies beyond, or before 1970, is a mistake and not a time.
const MILLIS_MAX: i64 = 253_402_300_799_999;

impl TimestampUnit {
    pub(crate) const NAMES: [(&str, Self); 5] = [
        ("s", Self::Seconds),
        ("ms", Self::Millis),
        ("us", Self::Micros),
        ("ns", Self::Nanos),
        ("rfc3339", Self::Rfc3339),
    ];

    /// As written in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        crate::config::name_of(&Self::NAMES, self)
    }
}

impl TimestampSource {
    /// Milliseconds since 1970 from the payload. `None`: take the clock, because the source is the clock or the
    /// payload does not say.
    #[must_use]
    pub fn read_ms(&self, payload: &[u8]) -> Option<i64> {
        let Self::Field { path, unit } = self else { return None };
        let mut json = serde_json::Deserializer::from_slice(payload);
        // What follows the object, and whether its tail is sound, is not our business.
        let millis = FieldSeed { path, unit: *unit }.deserialize(&mut json).ok()??;
        (0..=MILLIS_MAX).contains(&millis).then_some(millis)
    }
}

#[derive(Clone, Copy)]
struct FieldSeed<'a> {
    path: &'a [String],
    unit: TimestampUnit,
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_> {
    type Value = Option<i64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<i64>, D::Error> {
        if self.path.is_empty() {
            deserializer.deserialize_any(TimeVisitor(self.unit))
        } else {
            deserializer.deserialize_map(self)
        }
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_> {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<i64>, A::Error> {
        let Some((name, rest)) = self.path.split_first() else { return Ok(None) };
        let mut found = None;
        while let Some(is_it) = map.next_key_seed(NameSeed(name))? {
            if is_it && found.is_none() {
                found = map.next_value_seed(Self { path: rest, ..self })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Compares a name without building a string of it.
struct NameSeed<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

struct TimeVisitor(TimestampUnit);

impl Visitor<'_> for TimeVisitor {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<i64>, E> {
        Ok(match self.0 {
            TimestampUnit::Seconds => value.checked_mul(1_000),
            TimestampUnit::Millis => Some(value),
            TimestampUnit::Micros => Some(value.div_euclid(1_000)),
            TimestampUnit::Nanos => Some(value.div_euclid(1_000_000)),
            TimestampUnit::Rfc3339 => None,
        })
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Option<i64>, E> {
        i64::try_from(value).map_or(Ok(None), |value| self.visit_i64(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<i64>, E> {
        let millis = match self.0 {
            TimestampUnit::Seconds => value * 1e3,
            TimestampUnit::Millis => value,
            TimestampUnit::Micros => value / 1e3,
            TimestampUnit::Nanos => value / 1e6,
            TimestampUnit::Rfc3339 => return Ok(None),
        };
        // The range is checked by the caller; `as` saturates.
        Ok(millis.is_finite().then(|| millis.floor() as i64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<i64>, E> {
        Ok(match self.0 {
            TimestampUnit::Rfc3339 => rfc3339_ms(text.as_bytes()),
            _ => None,
        })
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Option<i64>, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Option<i64>, E> {
        Ok(None)
    }
}

/// `YYYY-MM-DDThh:mm:ss[.fraction](Z|+hh:mm|-hh:mm)`; a space may stand for the T. Milliseconds since 1970.
fn rfc3339_ms(text: &[u8]) -> Option<i64> {
    let number = |at: std::ops::Range<usize>| -> Option<i64> {
        text.get(at)?.iter().try_fold(0, |sum, byte| {
            byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    let is = |at: usize, any_of: &[u8]| text.get(at).is_some_and(|byte| any_of.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    // 60 is a leap second.
    if !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if is(at, b".") {
        let digits = text[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        let kept = digits.min(3);
        millis = number(at + 1..at + 1 + kept)? * 10_i64.pow(3 - kept as u32);
        at += 1 + digits;
    }
    let offset_minutes = if is(at, b"Zz") && text.len() == at + 1 {
        0
    } else if is(at, b"+-") && is(at + 3, b":") && text.len() == at + 6 {
        let (hours, minutes) = (number(at + 1..at + 3)?, number(at + 4..at + 6)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        (hours * 60 + minutes) * if text[at] == b'-' { -1 } else { 1 }
    } else {
        return None;
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - offset_minutes * 60) * 1_000 + millis)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the Gregorian calendar; the year begins in March so that the leap day comes last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, unit: TimestampUnit, payload: &str) -> Option<i64> {
        let path = path.split('.').map(str::to_owned).collect();
        TimestampSource::Field { path, unit }.read_ms(payload.as_bytes())
    }

    #[test]
    fn the_field_is_found_wherever_it_stands() {
        use TimestampUnit::*;
        for (path, unit, payload, expected) in [
            ("ts", Millis, r#"{"ts":1767225600123}"#, 1_767_225_600_123),
            (
                "ts",
                Millis,
                r#"{"a":[1,{"ts":5}],"b":"ts","ts":1767225600123,"c":null}"#,
                1_767_225_600_123,
            ),
            ("meta.time", Seconds, r#"{"meta":{"x":1,"time":1767225600.5}}"#, 1_767_225_600_500),
            ("t", Micros, r#"{"t":1767225600123456}"#, 1_767_225_600_123),
            ("t", Nanos, r#"{"t":1767225600123456789}"#, 1_767_225_600_123),
            ("t", Rfc3339, r#"{"t":"2026-01-01T01:00:00.123456+01:00"}"#, 1_767_225_600_123),
            ("t", Rfc3339, r#"{"t":"2026-01-01 00:00:00Z"}"#, 1_767_225_600_000),
            ("t", Rfc3339, r#"{"t":"2024-02-29T23:59:59Z"}"#, 1_709_251_199_000),
            ("t", Rfc3339, r#"{"t":"1970-01-01T00:00:00Z"}"#, 0),
            ("t\u{e9}", Millis, r#"{"t\u00e9":7}"#, 7),
        ] {
            assert_eq!(read(path, unit, payload), Some(expected), "{payload}");
        }
    }

    #[test]
    fn what_is_no_time_is_left_to_the_clock() {
        use TimestampUnit::*;
        for (unit, payload) in [
            (Millis, ""),
            (Millis, "21.5"),
            (Millis, "[1]"),
            (Millis, "{"),
            (Millis, r#"{"other":1}"#),
            (Millis, r#"{"t":"1767225600123"}"#),
            (Millis, r#"{"t":null}"#),
            (Millis, r#"{"t":{}}"#),
            (Millis, r#"{"t":-1}"#),
            (Millis, r#"{"t":18446744073709551615}"#),
            (Millis, r#"{"t":1e300}"#),
            (Seconds, r#"{"t":9223372036854775807}"#),
            (Rfc3339, r#"{"t":"2026-02-29T00:00:00Z"}"#),
            (Rfc3339, r#"{"t":"2026-01-01"}"#),
            (Rfc3339, r#"{"t":"2026-01-01T00:00:00"}"#),
            (Rfc3339, r#"{"t":"2026-01-01T00:00:00.Z"}"#),
            (Rfc3339, r#"{"t":"ü026-01-01T00:00:00Z"}"#),
            (Rfc3339, r#"{"t":1}"#),
        ] {
            assert_eq!(read("t", unit, payload), None, "{payload}");
        }
        assert_eq!(TimestampSource::Now.read_ms(br#"{"t":1}"#), None);
        let deep = "[".repeat(100_000);
        assert_eq!(read("t", Millis, &format!("{{\"a\":{deep}")), None);
    }
}
