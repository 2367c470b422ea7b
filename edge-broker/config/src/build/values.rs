//! Checks of single values.

use std::ops::RangeInclusive;

use boards::units::{Bytes, format_bytes};
use toml::Spanned;

use crate::error::Fault;
use crate::raw::{Number, Size, Text, Time};

pub(super) type Checked<T> = Result<T, Fault>;

/// A whole number within a range.
pub(super) fn number(raw: &Number, range: RangeInclusive<u32>) -> Checked<Option<u32>> {
    let Some(value) = raw else { return Ok(None) };
    match u32::try_from(value.get_ref().0) {
        Ok(number) if range.contains(&number) => Ok(Some(number)),
        _ => Err(Fault::at(value, format!("must be from {} to {}", range.start(), range.end()))),
    }
}

/// A size within a range.
pub(super) fn size(raw: &Size, range: RangeInclusive<u64>) -> Checked<Option<u64>> {
    let Some(value) = raw else { return Ok(None) };
    let Bytes(bytes) = *value.get_ref();
    if range.contains(&bytes) {
        return Ok(Some(bytes));
    }
    let (least, most) = (format_bytes(*range.start()), format_bytes(*range.end()));
    Err(Fault::at(value, format!("must be from {least} to {most}")))
}

/// A size within a range that fits 32 bits.
pub(super) fn size_u32(raw: &Size, range: RangeInclusive<u32>) -> Checked<Option<u32>> {
    let wide = u64::from(*range.start())..=u64::from(*range.end());
    Ok(size(raw, wide)?.map(|bytes| u32::try_from(bytes).expect("the range ends below 2^32")))
}

/// One word of a table.
pub(super) fn one_of<T: Copy>(raw: &Text, names: &[(&str, T)]) -> Checked<Option<T>> {
    let Some(word) = raw else { return Ok(None) };
    let known = names.iter().find(|(name, _)| *name == word.get_ref());
    known.map(|(_, value)| Some(*value)).ok_or_else(|| {
        let all: Vec<String> = names.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        Fault::at(word, format!("write one of {}", all.join(", ")))
    })
}

/// A text through a parser whose error is a sentence.
pub(super) fn text<T, E: std::fmt::Display>(
    raw: &Text,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Checked<Option<T>> {
    let parsed =
        raw.as_ref().map(|text| parse(text.get_ref()).map_err(|what| Fault::at(text, what)));
    parsed.transpose()
}

/// `retention = "7d"` or `retention_ms = 604800000`.
pub(super) fn retention_ms(time: &Time, ms: &Number) -> Checked<Option<Spanned<u64>>> {
    match (time, ms) {
        (Some(_), Some(ms)) => Err(Fault::at(ms, "retention is set as well; remove one of them")),
        (Some(time), None) => positive(time.span(), time.get_ref().0).map(Some),
        (None, Some(ms)) => {
            let value = u64::try_from(ms.get_ref().0).unwrap_or(0);
            positive(ms.span(), value).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// `retention_bytes = "100MiB"`.
pub(super) fn retention_bytes(raw: &Size) -> Checked<Option<Spanned<u64>>> {
    raw.as_ref().map(|size| positive(size.span(), size.get_ref().0)).transpose()
}

fn positive(span: std::ops::Range<usize>, value: u64) -> Checked<Spanned<u64>> {
    let value = Spanned::new(span, value);
    // Kafka carries both as signed 64-bit numbers.
    if (1..=i64::MAX as u64).contains(value.get_ref()) {
        Ok(value)
    } else {
        Err(Fault::at(
            &value,
            "must be more than nothing; leave it out to keep records until the lane is full",
        ))
    }
}
