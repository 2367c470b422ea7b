//! Reading: from the journal to rounds of batches, on threads that may block.

use std::sync::Arc;

use edge_log::{CopiedPart, CopiedStream, JournalPosition};
use edge_wire::{Offset, StreamId};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uplink_core::rebatch::{RebatchLimits, Rebatcher, Round};
use uplink_core::replicator::LaneCommands;

use super::run::Event;
use super::source::{LaneSource, ReadLaneError};

/// Bytes asked of the journal at once.
const READ_BYTES: usize = 512 * 1024;

/// A lane as the driver follows it.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) commits: watch::Receiver<u64>,
    /// Away while a job runs.
    reader: Option<Reader>,
    /// There may be something to read.
    pub(super) is_dirty: bool,
    /// When the records that wait for company leave at the latest.
    pub(super) linger_until: Option<Instant>,
    /// Not before this time, after an error.
    pub(super) retry_at: Option<Instant>,
    /// Durable ends as they were, and where the journal ended then: once all before it is settled, they are upstream.
    pub(super) snapshot: Option<(JournalPosition, Vec<(StreamId, Offset)>)>,
}

#[derive(Debug)]
struct Reader {
    rebatcher: Rebatcher,
    cursor: JournalPosition,
}

/// What a job brings back.
#[derive(Debug)]
pub(super) struct ReadDone {
    pub(super) lane: usize,
    pub(super) generation: u64,
    pub(super) round: Option<Round>,
    pub(super) is_end: bool,
    pub(super) error: Option<ReadLaneError>,
    reader: Reader,
}

impl LaneState {
    pub(super) fn new<S: LaneSource>(source: &S, lane: usize, limits: RebatchLimits) -> Self {
        // The ends first: what comes between belongs to later rounds.
        let ends = source.durable_ends(lane);
        let end = source.end(lane);
        Self {
            commits: source.commits(lane),
            reader: Some(Reader {
                rebatcher: Rebatcher::new(limits),
                cursor: JournalPosition::START,
            }),
            is_dirty: true,
            linger_until: None,
            retry_at: None,
            snapshot: (!ends.is_empty()).then_some((end, ends)),
        }
    }

    /// Whether no job runs.
    pub(super) fn is_home(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether records wait for company.
    pub(super) fn holds_records(&self) -> bool {
        self.reader.as_ref().is_some_and(|reader| !reader.rebatcher.is_empty())
    }

    /// Reads on. `cut_now` ends the round whatever its size.
    pub(super) fn start<S: LaneSource>(
        &mut self,
        source: &Arc<S>,
        lane: usize,
        commands: LaneCommands,
        round_bytes: usize,
        cut_now: bool,
        events: &mpsc::UnboundedSender<Event>,
    ) {
        let Some(mut reader) = self.reader.take() else { return };
        self.commits.borrow_and_update();
        self.is_dirty = false;
        let source = Arc::clone(source);
        let events = events.clone();
        tokio::task::spawn_blocking(move || {
            if let Some(seek) = commands.seek {
                reader.cursor = seek;
            }
            for command in commands.commands {
                command.apply(&mut reader.rebatcher);
            }
            let (is_end, error) = reader.fill(&*source, lane, round_bytes);
            let is_full = reader.rebatcher.held_bytes() >= round_bytes;
            // A round without records costs nothing and moves the position on.
            let round = (cut_now || is_full || reader.rebatcher.is_empty())
                .then(|| reader.rebatcher.cut(reader.cursor));
            let done =
                ReadDone { lane, generation: commands.generation, round, is_end, error, reader };
            // The driver may be gone.
            let _ = events.send(Event::Read(done));
        });
    }

    /// Takes the reader back.
    pub(super) fn finish(&mut self, done: ReadDone) -> Option<Round> {
        self.reader = Some(done.reader);
        self.is_dirty |= !done.is_end;
        done.round
    }
}

impl Reader {
    /// Reads until the round is full or the journal ends.
    fn fill<S: LaneSource>(
        &mut self,
        source: &S,
        lane: usize,
        round_bytes: usize,
    ) -> (bool, Option<ReadLaneError>) {
        let is_wanted =
            |stream: StreamId| source.stream(stream).is_some_and(|stream| !stream.is_internal);
        self.rebatcher.set_times(source.times());
        while self.cursor.segment == 0 && self.rebatcher.held_bytes() < round_bytes {
            match self.fill_copies(source, lane, &is_wanted) {
                Ok(true) => {}
                Ok(false) => return (true, None),
                Err(error) => return (true, Some(error)),
            }
        }
        while self.rebatcher.held_bytes() < round_bytes {
            let read = match source.read(lane, self.cursor, READ_BYTES) {
                Ok(read) => read,
                Err(error) => return (true, Some(error)),
            };
            for group in &read.groups {
                self.rebatcher.push_group(group, &is_wanted);
            }
            self.cursor = read.next;
            if read.is_end {
                return (true, None);
            }
        }
        (false, None)
    }

    /// Before the journal come the copies: records that were moved forward in it before anybody sent them. Stream by
    /// stream; the cursor's byte is the stream's number. `false`: there is no journal yet.
    fn fill_copies<S: LaneSource>(
        &mut self,
        source: &S,
        lane: usize,
        is_wanted: &dyn Fn(StreamId) -> bool,
    ) -> Result<bool, ReadLaneError> {
        let end = source.end(lane);
        let Some(copied) = source.copied(lane, StreamId(self.cursor.byte)) else {
            self.cursor = JournalPosition { segment: 1, byte: 0 }.min(end);
            return Ok(self.cursor.segment > 0);
        };
        let CopiedStream { stream, log_start, home } = copied;
        let behind = match stream.0.checked_add(1) {
            Some(byte) => JournalPosition { segment: 0, byte },
            None => JournalPosition { segment: 1, byte: 0 },
        };
        self.cursor.byte = stream.0;
        let place = (self.cursor, end);
        let from = self.rebatcher.begin_copies(stream, (log_start, home), place, is_wanted);
        let Some(from) = from else {
            self.cursor = behind;
            return Ok(true);
        };
        let read = source.read_copies(lane, stream, from..home, READ_BYTES)?;
        for part in &read.parts {
            match part {
                CopiedPart::Group { group, from, to } => {
                    self.rebatcher.push_copies(group, stream, *from, *to);
                }
                CopiedPart::Lost { from, to } => self.rebatcher.lose_copies(stream, *from, *to),
            }
        }
        self.rebatcher.end_copies(stream, read.next, home);
        if read.next >= home {
            self.cursor = behind;
        }
        Ok(true)
    }
}
