//! Sizes and durations as people write them: `512MiB`, `7d`.
//!
//! Binary units only (`MB` is refused: half of those who write it mean `MiB`), whole numbers only, no spaces needed.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Why a text is not a quantity, with the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a number of bytes.
    #[error("not a size; write a whole number with KiB, MiB or GiB")]
    NotASize,
    /// A unit of ten, which we do not guess about.
    #[error("not a size; KB, MB and GB are ambiguous, write KiB, MiB or GiB")]
    DecimalUnit,
    /// Not a time span.
    #[error("not a duration; write a whole number with ms, s, min, h or d")]
    NotADuration,
    /// More than 64 bits can hold.
    #[error("too large")]
    TooLarge,
}

const KIB: u64 = 1 << 10;
const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", KIB.pow(4)), ("GiB", KIB.pow(3)), ("MiB", KIB.pow(2)), ("KiB", KIB), ("B", 1)];
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000), ("ms", 1)];

/// Bytes from `512MiB`, `64KiB`, `4096` or `4096B`.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::NotASize)?;
    let factor = match unit {
        "" => 1,
        "K" | "M" | "G" | "KB" | "kB" | "MB" | "GB" | "TB" => return Err(UnitError::DecimalUnit),
        _ => factor(&SIZE_UNITS, unit).ok_or(UnitError::NotASize)?,
    };
    number?.checked_mul(factor).ok_or(UnitError::TooLarge)
}

/// Milliseconds from `7d`, `12h`, `30min`, `5s` or `250ms`; a bare number is refused because it would not say of what.
pub fn parse_duration_ms(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text).ok_or(UnitError::NotADuration)?;
    let factor = factor(&DURATION_UNITS, unit).ok_or(UnitError::NotADuration)?;
    number?.checked_mul(factor).ok_or(UnitError::TooLarge)
}

/// `bytes` in the largest unit that divides it: [`parse_bytes`] reads it back exactly.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    format_exactly(&SIZE_UNITS, bytes)
}

/// `ms` in the largest unit that divides it: [`parse_duration_ms`] reads it back exactly.
#[must_use]
pub fn format_duration_ms(ms: u64) -> String {
    format_exactly(&DURATION_UNITS, ms)
}

/// `bytes` for a human eye, rounded: `1.4 MiB`.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes >= *factor) {
        Some((unit, factor)) if *factor > 1 => {
            format!("{:.1} {unit}", bytes as f64 / *factor as f64)
        }
        _ => format!("{bytes} B"),
    }
}

fn split(text: &str) -> Option<(Result<u64, UnitError>, &str)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if digits == 0 {
        return None;
    }
    Some((text[..digits].parse().map_err(|_| UnitError::TooLarge), text[digits..].trim_start()))
}

fn factor(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

fn format_exactly(units: &[(&str, u64)], value: u64) -> String {
    let fits = |factor: u64| value >= factor && value.is_multiple_of(factor);
    let (unit, factor) =
        units.iter().find(|(_, factor)| fits(*factor)).unwrap_or(&units[units.len() - 1]);
    format!("{}{unit}", value / factor)
}

/// A number of bytes in a TOML file: `"512MiB"` or a bare number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A time span in a TOML file: `"7d"`. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

trait Quantity: Sized {
    const EXPECTING: &'static str;
    fn from_text(text: &str) -> Result<Self, UnitError>;
    fn from_number(number: u64) -> Result<Self, UnitError>;
}

impl Quantity for Bytes {
    const EXPECTING: &'static str = "a size such as \"512MiB\"";
    fn from_text(text: &str) -> Result<Self, UnitError> {
        parse_bytes(text).map(Self)
    }
    fn from_number(number: u64) -> Result<Self, UnitError> {
        Ok(Self(number))
    }
}

impl Quantity for Millis {
    const EXPECTING: &'static str = "a duration such as \"7d\" or \"30s\"";
    fn from_text(text: &str) -> Result<Self, UnitError> {
        parse_duration_ms(text).map(Self)
    }
    fn from_number(_: u64) -> Result<Self, UnitError> {
        Err(UnitError::NotADuration)
    }
}

struct QuantityVisitor<T>(PhantomData<T>);

impl<T: Quantity> Visitor<'_> for QuantityVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTING)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::from_text(text).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::custom(format!("is negative; write {}", T::EXPECTING)))?;
        T::from_number(number).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::from_number(number).map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_as_written() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("64 KiB", 65_536), ("1GiB", 1 << 30), ("12", 12), ("7B", 7)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for (text, ms) in
            [("7d", 604_800_000), ("250ms", 250), ("30min", 1_800_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_with_the_reason() {
        assert_eq!(parse_bytes("512XB"), Err(UnitError::NotASize));
        assert_eq!(parse_bytes("512MB"), Err(UnitError::DecimalUnit));
        assert_eq!(parse_bytes(""), Err(UnitError::NotASize));
        assert_eq!(parse_bytes("-1KiB"), Err(UnitError::NotASize));
        assert_eq!(parse_bytes("1.5GiB"), Err(UnitError::NotASize));
        assert_eq!(parse_bytes("99999999999999999999"), Err(UnitError::TooLarge));
        assert_eq!(parse_bytes("99999999999TiB"), Err(UnitError::TooLarge));
        assert_eq!(parse_duration_ms("7"), Err(UnitError::NotADuration));
        assert_eq!(parse_duration_ms("7 days"), Err(UnitError::NotADuration));
    }

    #[test]
    fn formatting_is_read_back_exactly() {
        for value in [0, 1, 1023, 1024, 1536, 1 << 20, (1 << 30) + 1, 3 << 30, u64::MAX] {
            assert_eq!(parse_bytes(&format_bytes(value)), Ok(value));
            assert_eq!(parse_duration_ms(&format_duration_ms(value)), Ok(value));
        }
        assert_eq!(format_bytes(16 << 20), "16MiB");
        assert_eq!(human_bytes(1_468_006), "1.4 MiB");
    }
}
