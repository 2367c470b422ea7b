//! Log starts that move by the streams' own retention (retention.rs has the rule).
//!
//! - Bytes are looked at every half minute, ages once a minute: so a clock that jumps takes one segment of a stream
//!   a minute, or a tenth of the stream if that is less, not the stream.
//! - A jump of the clock is told when it is seen.

use std::sync::Arc;

use super::{Lane, MaintainError};
use crate::clock::{ClockReading, ClockState};
use crate::retention::{Newer, Part, new_log_start};

/// How often topic retention is looked at.
const RETENTION_INTERVAL_US: u64 = 30_000_000;
/// How often ages are looked at.
const AGE_INTERVAL_US: u64 = 60_000_000;
/// The wall clock moved by more than this against the time since boot: a jump.
const JUMP_US: i64 = 600_000_000;

/// What was seen of time.
#[derive(Debug, Default)]
pub(super) struct Ages {
    due_us: u64,
    /// Boot, and the wall clock at its start as it was last believed.
    boot: Option<(u64, i64)>,
}

impl Lane {
    pub(super) fn apply_retention(
        &mut self,
        clock: &ClockReading,
        now_us: u64,
    ) -> Result<(), MaintainError> {
        self.retention_due_us = now_us.saturating_add(RETENTION_INTERVAL_US);
        self.note_clock(clock);
        let limited: Vec<_> = self
            .streams
            .iter()
            .filter(|stream| stream.retention.bytes.is_some() || stream.retention.age_ms.is_some())
            .map(|stream| (stream.definition.stream, stream.retention, Arc::clone(&stream.shared)))
            .collect();
        if limited.is_empty() {
            return Ok(());
        }
        let ages = clock.state == ClockState::Synced && now_us >= self.ages.due_us;
        if ages {
            self.ages.due_us = now_us.saturating_add(AGE_INTERVAL_US);
        }
        let now_ms = ages.then_some(clock.wall_us / 1000);
        let newest = self.writer.current.as_ref().map_or(0, |now| now.segment.id.sequence);
        let sealed: Vec<_> = {
            let segments = self.shared.segments();
            segments.iter().filter(|segment| segment.id.sequence != newest).cloned().collect()
        };
        // What we stamped before the clock was set may be younger than it says.
        let shift_ms = self.shared.clocks().shift_ms_max();
        let latest = |max_ms: i64, unvouched: bool| {
            if unvouched { max_ms.saturating_add(shift_ms) } else { max_ms }
        };
        let mut parts = vec![Vec::new(); limited.len()];
        {
            let copies = self.shared.copies();
            for ((stream, _, shared), parts) in limited.iter().zip(&mut parts) {
                let runs = copies.of(*stream).take_while(|(base, _)| *base < shared.home());
                parts.extend(runs.map(|(head, run)| Part {
                    head,
                    end: run.end,
                    bytes: u64::from(run.bytes),
                    max_ms: run.latest_ms(shift_ms),
                    may_go: true,
                }));
            }
        }
        for segment in &sealed {
            let side = self.side_of(segment)?;
            let may_go = self.is_done_with(segment);
            for ((stream, _, shared), parts) in limited.iter().zip(&mut parts) {
                if let Some(line) = side.find(*stream).filter(|line| line.end > shared.home()) {
                    let (head, end, bytes) = (line.head, line.end, line.bytes);
                    let max_ms = latest(line.max_ms, line.unvouched);
                    parts.push(Part { head, end, bytes, max_ms, may_go });
                }
            }
        }
        for ((stream, retention, shared), parts) in limited.iter().zip(&parts) {
            let newer = {
                let tail = shared.tail();
                let here = tail.segment == newest && newest > 0;
                Newer {
                    bytes: if here { tail.segment_bytes } else { 0 },
                    max_ms: here.then_some(latest(tail.segment_max_ms, tail.segment_unvouched)),
                }
            };
            let bytes_max = u64::from(self.config.segment_bytes);
            let log_start = shared.log_start();
            let moved = new_log_start(log_start, parts, newer, *retention, now_ms, bytes_max);
            if let Some(offset) = moved {
                // Not written: were it to be forgotten in a crash, the next pass finds it again. Before a segment
                // is freed it is told (retire.rs).
                let offset = offset.min(shared.durable_end());
                shared.raise_log_start(offset);
                self.shared.copies().forget_below(*stream, offset);
            }
        }
        Ok(())
    }

    /// Tells a jump of a clock that is believed.
    fn note_clock(&mut self, clock: &ClockReading) {
        if clock.state != ClockState::Synced {
            return;
        }
        let up_us = i64::try_from(clock.boottime_us).unwrap_or(i64::MAX);
        let start_us = clock.wall_us.saturating_sub(up_us);
        if let Some((boot_id, before_us)) = self.ages.boot
            && boot_id == clock.boot_id
            && start_us.abs_diff(before_us) > JUMP_US.unsigned_abs()
        {
            let jump_seconds = start_us.saturating_sub(before_us) / 1_000_000;
            let lane = &self.config.name;
            tracing::warn!(lane, jump_seconds, "clock jump: ages are applied slowly, as always");
        }
        self.ages.boot = Some((clock.boot_id, start_us));
    }
}
