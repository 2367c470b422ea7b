//! How far a stream's log start may move, by its own retention. Pure.
//!
//! Whole segments fall out, as in Kafka: the log start moves to a segment's end only if everything before is
//! beyond the retention. One segment at a time and pass, so that a clock that jumps cannot empty a stream at once.

use edge_wire::Offset;

use crate::stream::Retention;

/// A stream's part in one sealed segment, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) head: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    pub(crate) max_ms: i64,
    /// It may go: it is upstream, or nobody waits for it.
    pub(crate) may_go: bool,
}

/// Where the log start moves, if it moves. `newer_bytes` are those behind the last part; `now_ms` is known only
/// while the wall clock is trusted.
pub(crate) fn new_log_start(
    log_start: Offset,
    parts: &[Part],
    newer_bytes: u64,
    retention: Retention,
    now_ms: Option<i64>,
) -> Option<Offset> {
    let live = parts.iter().position(|part| part.end > log_start && part.end > part.head)?;
    let oldest = parts[live];
    if !oldest.may_go {
        return None;
    }
    let kept_bytes: u64 =
        parts[live + 1..].iter().map(|part| part.bytes).sum::<u64>() + newer_bytes;
    let too_many = retention.bytes.is_some_and(|bytes| kept_bytes >= bytes);
    let too_old = match (retention.age_ms, now_ms) {
        (Some(age_ms), Some(now_ms)) => {
            oldest.max_ms < now_ms.saturating_sub(i64::try_from(age_ms).unwrap_or(i64::MAX))
        }
        _ => false,
    };
    (too_many || too_old).then_some(oldest.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(head: u64, end: u64) -> Part {
        let bytes = (end - head) * 10;
        Part { head: Offset(head), end: Offset(end), bytes, max_ms: end as i64, may_go: true }
    }

    #[test]
    fn bytes_go_a_segment_at_a_time() {
        let parts = [part(0, 10), part(10, 20), part(20, 30)];
        let keep = |bytes| Retention { bytes: Some(bytes), age_ms: None };
        let start = |from, bytes| new_log_start(Offset(from), &parts, 5, keep(bytes), None);
        assert_eq!(start(0, 205), Some(Offset(10)));
        assert_eq!(start(0, 206), None);
        assert_eq!(start(10, 105), Some(Offset(20)));
        assert_eq!(start(3, 100), Some(Offset(10)));
    }

    #[test]
    fn age_counts_only_with_a_clock_and_never_what_must_stay() {
        let mut parts = [part(0, 10), part(10, 20)];
        let old = Retention { bytes: None, age_ms: Some(100) };
        let start = |parts: &[Part], now| new_log_start(Offset(0), parts, 0, old, now);
        assert_eq!(start(&parts, None), None);
        assert_eq!(start(&parts, Some(110)), None);
        assert_eq!(start(&parts, Some(111)), Some(Offset(10)));
        parts[0].may_go = false;
        assert_eq!(start(&parts, Some(1 << 40)), None);
    }
}
