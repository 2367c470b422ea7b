//! `[flash]`: wear budget, endurance, scrub, reserve.

use boards::Profile;
use boards::units::parse_bytes;
use toml::Spanned;

use super::findings::Findings;
use super::values::Checked;
use crate::error::Fault;
use crate::raw::{RawFlash, Text, Time};
use crate::{FlashConfig, ReserveConfig};

const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// Less would not be a budget for a gateway that stores anything.
const WEAR_BYTES: std::ops::RangeInclusive<u64> = 16 * MIB..=1 << 50;
const SCRUB_BYTES: std::ops::RangeInclusive<u64> = 16 << 10..=1 << 30;
const RESERVE_BYTES: std::ops::RangeInclusive<u64> = 4 * MIB..=TIB;
const ENDURANCE_BYTES: std::ops::RangeInclusive<u64> = 1 << 30..=1 << 60;
const SCRUB_EVERY_MS: std::ops::RangeInclusive<u64> = 60_000..=365 * 86_400_000;
const DEFAULT_SCRUB_EVERY_S: u64 = 86_400;

pub(super) fn flash(raw: &RawFlash, board: &Profile, findings: &mut Findings) -> FlashConfig {
    let flash = &board.flash;
    FlashConfig {
        wear_bytes_per_day: findings
            .take(quantity(&raw.wear_budget, "/day", &WEAR_BYTES, "\"2GiB/day\""))
            .unwrap_or(Some(flash.device_bytes_per_day.0)),
        card_endurance_bytes: findings.take(endurance(&raw.card_endurance)),
        scrub_bytes_per_s: findings
            .take(quantity(&raw.scrub, "/s", &SCRUB_BYTES, "\"1MiB/s\""))
            .map_or(flash.scrub_bytes_per_second.0, |bytes| bytes.unwrap_or(0)),
        scrub_every_s: findings.take(every(&raw.scrub_every)).unwrap_or(DEFAULT_SCRUB_EVERY_S),
        reserve: findings
            .take(quantity(&raw.reserve, "", &RESERVE_BYTES, "\"64MiB\""))
            .map_or(ReserveConfig::Board(flash.reserve.0), |bytes| {
                ReserveConfig::Chosen(bytes.unwrap_or(0))
            }),
    }
}

/// A size with what stands behind it, or "off".
fn quantity(
    raw: &Text,
    suffix: &str,
    range: &std::ops::RangeInclusive<u64>,
    example: &str,
) -> Checked<Option<Option<u64>>> {
    let Some(written) = raw else { return Ok(None) };
    let text = written.get_ref().trim();
    if text == "off" {
        return Ok(Some(None));
    }
    let remedy = || format!("write {example} or \"off\"");
    let number = text.strip_suffix(suffix).ok_or_else(|| Fault::at(written, remedy()))?;
    let bytes = parse_bytes(number)
        .map_err(|error| Fault::at(written, format!("{error}; {}", remedy())))?;
    in_range(written, bytes, range, suffix, ", or \"off\"")?;
    Ok(Some(Some(bytes)))
}

fn in_range(
    written: &Spanned<String>,
    bytes: u64,
    range: &std::ops::RangeInclusive<u64>,
    suffix: &str,
    or: &str,
) -> Checked<()> {
    if range.contains(&bytes) {
        return Ok(());
    }
    let (bound, limit) = if bytes < *range.start() {
        ("at least", *range.start())
    } else {
        ("at most", *range.end())
    };
    let limit = boards::units::format_bytes(limit);
    Err(Fault::at(written, format!("must be {bound} {limit}{suffix}{or}")))
}

/// Makers of cards and disks write terabytes written (TBW) and mean units of ten: here, and only here, these are read.
fn endurance(raw: &Text) -> Checked<Option<u64>> {
    let Some(written) = raw else { return Ok(None) };
    let text = written.get_ref().trim();
    let decimal = [("TBW", 1_000_000_000_000), ("TB", 1_000_000_000_000), ("GB", 1_000_000_000)];
    let bytes = decimal
        .iter()
        .find_map(|(unit, factor)| {
            text.strip_suffix(unit)?.trim().parse::<u64>().ok()?.checked_mul(*factor)
        })
        .or_else(|| parse_bytes(text).ok())
        .ok_or_else(|| Fault::at(written, "write what the maker says, for example \"50TB\""))?;
    in_range(written, bytes, &ENDURANCE_BYTES, "", "")?;
    Ok(Some(bytes))
}

fn every(raw: &Time) -> Checked<Option<u64>> {
    let Some(written) = raw else { return Ok(None) };
    let ms = written.get_ref().0;
    if SCRUB_EVERY_MS.contains(&ms) {
        return Ok(Some(ms / 1_000));
    }
    Err(Fault::at(written, "must be from 1min to 365d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<FlashConfig, String> {
        let raw: RawFlash = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        let board = boards::load("base").expect("it is embedded");
        let mut findings = Findings::default();
        let read = flash(&raw, &board, &mut findings);
        findings.faults.pop().map_or(Ok(read), |fault| Err(fault.what))
    }

    #[test]
    fn the_board_decides_what_the_file_does_not() {
        let found = read("").unwrap();
        let board = boards::load("base").expect("it is embedded").flash;
        assert_eq!(found.wear_bytes_per_day, Some(board.device_bytes_per_day.0));
        assert_eq!(found.scrub_bytes_per_s, board.scrub_bytes_per_second.0);
        assert_eq!(found.reserve, ReserveConfig::Board(board.reserve.0));
        assert_eq!((found.card_endurance_bytes, found.scrub_every_s), (None, 86_400));
    }

    #[test]
    fn what_is_written_counts() {
        let found = read(
            "wear_budget = \"2GiB/day\"\ncard_endurance = \"50TB\"\nscrub = \"256KiB/s\"\n\
             scrub_every = \"7d\"\nreserve = \"8MiB\"",
        )
        .unwrap();
        assert_eq!(found.wear_bytes_per_day, Some(2 << 30));
        assert_eq!(found.card_endurance_bytes, Some(50_000_000_000_000));
        assert_eq!((found.scrub_bytes_per_s, found.scrub_every_s), (256 << 10, 604_800));
        assert_eq!(found.reserve, ReserveConfig::Chosen(8 << 20));
        let off = read("wear_budget = \"off\"\nscrub = \"off\"\nreserve = \"off\"").unwrap();
        assert_eq!((off.wear_bytes_per_day, off.scrub_bytes_per_s), (None, 0));
        assert_eq!(off.reserve, ReserveConfig::Chosen(0));
    }

    #[test]
    fn mistakes_name_the_remedy() {
        for (text, expected) in [
            ("wear_budget = \"2GiB\"", "write \"2GiB/day\" or \"off\""),
            ("wear_budget = \"1KiB/day\"", "must be at least 16MiB/day, or \"off\""),
            ("scrub = \"fast\"", "\"1MiB/s\""),
            ("scrub = \"1MB/s\"", "ambiguous"),
            ("reserve = \"1MiB\"", "must be at least 4MiB, or \"off\""),
            ("card_endurance = \"1MiB\"", "must be at least 1GiB"),
            ("scrub = \"2GiB/s\"", "must be at most 1GiB/s, or \"off\""),
            ("card_endurance = \"a lot\"", "\"50TB\""),
            ("scrub_every = \"5s\"", "1min to 365d"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
