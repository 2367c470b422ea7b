//! How far a stream's log start may move, by its own retention. Pure.
//!
//! - Whole parts fall out (what of a stream is in one segment, or in one group of copies), as in Kafka: the log start
//!   moves to a part's end only if everything before is beyond the retention.
//! - Bytes: as much as is too much. Age: in one pass no more than a tenth of the stream's bytes and no more than a
//!   segment, but at least one part, so that a clock that jumps cannot empty a stream at once.
//! - A timestamp from before 2020, or from more than a day ahead, says nothing: the clock was not set. Such a part is
//!   as old as the next one of which the age is known, since offsets order everything.

use edge_wire::Offset;

use crate::stream::Retention;

/// 2020-01-01: no gateway of ours was built before.
const BELIEVABLE_MS_MIN: i64 = 1_577_836_800_000;
/// How far ahead a sensor's clock may be.
const AHEAD_MS_MAX: i64 = 24 * 3600 * 1000;
/// What one pass may take by age, as a part of the stream.
const AGE_SHARE: u64 = 10;

/// A stream's part in one sealed segment or one group of copies, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) head: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    pub(crate) max_ms: i64,
    /// It may go: it is upstream, or nobody waits for it.
    pub(crate) may_go: bool,
}

/// What is behind the last part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Newer {
    pub(crate) bytes: u64,
    pub(crate) max_ms: Option<i64>,
}

/// Whether a timestamp can be what it says it is.
pub(crate) fn is_believable(timestamp_ms: i64, now_ms: i64) -> bool {
    (BELIEVABLE_MS_MIN..=now_ms.saturating_add(AHEAD_MS_MAX)).contains(&timestamp_ms)
}

/// Where the log start moves, if it moves. `now_ms` is known only while the wall clock is trusted.
pub(crate) fn new_log_start(
    log_start: Offset,
    parts: &[Part],
    newer: Newer,
    retention: Retention,
    now_ms: Option<i64>,
    segment_bytes: u64,
) -> Option<Offset> {
    let live: Vec<&Part> =
        parts.iter().filter(|part| part.end > log_start && part.end > part.head).collect();
    let whole: u64 = live.iter().map(|part| part.bytes).sum::<u64>() + newer.bytes;
    let age_bytes_max = (whole / AGE_SHARE).min(segment_bytes);
    let (mut kept, mut aged, mut moved) = (whole, 0, None);
    for (index, part) in live.iter().enumerate() {
        if !part.may_go {
            break;
        }
        kept -= part.bytes;
        let too_many = retention.bytes.is_some_and(|bytes| kept >= bytes);
        let too_old = match (retention.age_ms, now_ms) {
            (Some(age_ms), Some(now_ms)) => {
                let oldest_ms = now_ms.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX));
                let times = live[index..].iter().map(|part| part.max_ms).chain(newer.max_ms);
                let known = times.into_iter().find(|at| is_believable(*at, now_ms));
                known.is_some_and(|at| at < oldest_ms)
            }
            _ => false,
        };
        if !too_many {
            let may_age = too_old && (aged == 0 || aged + part.bytes <= age_bytes_max);
            if !may_age {
                break;
            }
            aged += part.bytes.max(1);
        }
        moved = Some(part.end);
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A believable time.
    const T0: i64 = 1_700_000_000_000;
    const SEGMENT: u64 = 1 << 20;

    fn part(head: u64, end: u64) -> Part {
        let bytes = (end - head) * 10;
        Part { head: Offset(head), end: Offset(end), bytes, max_ms: T0 + end as i64, may_go: true }
    }

    #[test]
    fn bytes_go_in_whole_parts() {
        let parts = [part(0, 10), part(10, 20), part(20, 30)];
        let keep = |bytes| Retention { bytes: Some(bytes), ..Retention::default() };
        let newer = Newer { bytes: 5, max_ms: None };
        let start =
            |from, bytes| new_log_start(Offset(from), &parts, newer, keep(bytes), None, SEGMENT);
        assert_eq!(start(0, 205), Some(Offset(10)));
        assert_eq!(start(0, 206), None);
        assert_eq!(start(10, 105), Some(Offset(20)));
        assert_eq!(start(3, 100), Some(Offset(20)));
        assert_eq!(start(0, 0), Some(Offset(30)));
    }

    fn aged(parts: &[Part], now: i64) -> Option<u64> {
        let old = Retention { age_ms: Some(100), ..Retention::default() };
        let newer = Newer::default();
        new_log_start(Offset(0), parts, newer, old, Some(now), SEGMENT).map(|offset| offset.0)
    }

    #[test]
    fn age_counts_only_with_a_clock_and_never_what_must_stay() {
        let mut parts = [part(0, 10), part(10, 20)];
        let old = Retention { age_ms: Some(100), ..Retention::default() };
        let unknown = new_log_start(Offset(0), &parts, Newer::default(), old, None, SEGMENT);
        assert_eq!(unknown, None);
        assert_eq!(aged(&parts, T0 + 110), None);
        assert_eq!(aged(&parts, T0 + 111), Some(10));
        parts[0].may_go = false;
        assert_eq!(aged(&parts, T0 + (1 << 40)), None);
    }

    #[test]
    fn a_jump_of_the_clock_takes_a_tenth_at_most() {
        let parts: Vec<Part> = (0..100).map(|at| part(at * 10, at * 10 + 10)).collect();
        assert_eq!(aged(&parts, T0 + (1 << 40)), Some(100));
        let segment = new_log_start(
            Offset(0),
            &parts,
            Newer::default(),
            Retention { age_ms: Some(100), ..Retention::default() },
            Some(T0 + (1 << 40)),
            300,
        );
        assert_eq!(segment, Some(Offset(30)), "nor more than a segment");
    }

    #[test]
    fn what_a_clock_that_was_not_set_stamped_is_as_old_as_what_came_next() {
        let mut parts = [part(0, 10), part(10, 20)];
        parts[0].max_ms = 12_345;
        assert_eq!(aged(&parts, T0 + 50), None, "1970 is no delete order");
        assert_eq!(aged(&parts, T0 + 121), Some(10));
        parts[0].max_ms = T0 + (1 << 50);
        assert_eq!(aged(&parts, T0 + 121), Some(10), "nor is the future a reprieve");
        parts[1].max_ms = 0;
        assert_eq!(aged(&parts, T0 + (1 << 40)), None);
    }
}
