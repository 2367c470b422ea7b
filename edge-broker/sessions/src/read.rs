//! A session reads a lane: group by group, in the order of the journal.

use edge_log::{GroupAt, JournalPosition, LaneReader, ReadError};

use crate::follow::Follow;
use crate::place::Place;

pub use edge_log::RecordRef;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The session does not want it.
    Skip,
    /// It is on its way.
    HandOver,
    /// There is no room: it is looked at again.
    Stop,
}

/// How far one step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadStep {
    /// Through a group; there may be more.
    Group,
    /// There was no room for the next record.
    Stopped,
    /// At the durable end.
    End,
    /// What stood here is gone: recycled, or damaged.
    Lost {
        /// Where the session stood.
        from: JournalPosition,
        /// Where it goes on.
        to: JournalPosition,
    },
}

/// Looks at the records of one group, from where the session stands. Batches of Kafka producers are passed over: what
/// they hold did not come over MQTT.
///
/// # Errors
/// The disk did not read.
pub fn read_group(
    reader: &LaneReader,
    follow: &mut Follow,
    visit: &mut dyn FnMut(Place, &RecordRef<'_>) -> Visit,
) -> Result<ReadStep, ReadError> {
    let from = follow.next();
    let group = match reader.group(from.group)? {
        GroupAt::Group(group) => group,
        GroupAt::End => return Ok(ReadStep::End),
        GroupAt::Lost { next } => {
            follow.advance(Place::of_group(next));
            return Ok(ReadStep::Lost { from: from.group, to: next });
        }
    };
    let seen = if group.position() == from.group { from.record } else { 0 };
    let (mut index, mut stopped) = (0, false);
    for batch in group.batches() {
        let end = index + batch.count();
        if end <= seen || batch.raw_records().is_some() {
            index = end;
            continue;
        }
        let visited = batch.for_each_record(&mut |record| {
            let place = Place { group: group.position(), record: index };
            index += 1;
            if stopped || place.record < seen {
                return;
            }
            let verdict = if follow.has_room() { visit(place, &record) } else { Visit::Stop };
            match verdict {
                Visit::Skip => {}
                Visit::HandOver => follow.hand_over(place),
                Visit::Stop => {
                    stopped = true;
                    follow.advance(place);
                }
            }
        });
        debug_assert!(visited.is_ok(), "a batch that we built needs no unpacking");
        if stopped {
            return Ok(ReadStep::Stopped);
        }
        index = end;
    }
    follow.advance(Place::of_group(group.next()));
    Ok(ReadStep::Group)
}
