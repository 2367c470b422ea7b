//! What a lane was asked to keep, and what it has promised at each moment.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_log::LaneReader;
use edge_wire::StreamId;

/// A stream as of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamMark {
    /// First offset that was not yet handed to a commit.
    pub attempted: u64,
    /// First offset that was not yet acknowledged.
    pub acknowledged: u64,
    /// The same before the last acknowledgement.
    pub acknowledged_before: u64,
    /// What is below is upstream.
    pub sent: u64,
    /// What is below may be gone.
    pub log_start: u64,
    /// It was removed, or is about to be: nothing of it has to be there.
    pub removed: bool,
}

/// All streams as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Mark {
    /// By stream id.
    pub streams: Vec<StreamMark>,
    /// Events of the owner that were handed to a commit.
    pub events_attempted: u64,
    /// Events of the owner that were acknowledged.
    pub events_acknowledged: u64,
    /// Records that may be missing though they are above the log start (thinned, compacted).
    pub optional: Arc<BTreeSet<(u32, u64)>>,
    /// Unsent records may have been dropped, told by a gap.
    pub drops: bool,
    /// A number for each change of the above.
    pub version: u64,
}

/// Values by stream and offset.
pub type Values = Vec<Vec<Arc<[u8]>>>;

#[derive(Default)]
struct Inner {
    mark: Mark,
    values: Values,
    reader: Option<LaneReader>,
}

/// The model of a lane, shared with what watches its disk.
#[derive(Clone, Default)]
pub struct Model {
    inner: Arc<Mutex<Inner>>,
}

impl Model {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the lane now tells its log starts.
    pub fn watch(&self, reader: LaneReader) {
        self.lock().reader = Some(reader);
    }

    /// A record goes into the next commit. Its offset follows those that were attempted before.
    pub fn attempt(&self, stream: u32, offset: u64, value: Arc<[u8]>) -> Result<(), String> {
        let mut inner = self.lock();
        inner.mark.version += 1;
        let index = stream as usize;
        if inner.values.len() <= index {
            inner.values.resize_with(index + 1, Vec::new);
            inner.mark.streams.resize(index + 1, StreamMark::default());
        }
        let acknowledged = inner.mark.streams[index].acknowledged;
        if offset < acknowledged {
            return Err(format!("stream {stream}: offset {offset} is given out twice"));
        }
        let values = &mut inner.values[index];
        values.resize(offset as usize, Arc::default());
        values.push(value);
        inner.mark.streams[index].attempted = offset + 1;
        Ok(())
    }

    /// Events go into the next commit.
    pub fn attempt_events(&self, count: u64) {
        let mut inner = self.lock();
        inner.mark.version += 1;
        inner.mark.events_attempted += count;
    }

    /// All that was attempted is acknowledged.
    pub fn acknowledge(&self) {
        let mut inner = self.lock();
        let mark = &mut inner.mark;
        mark.version += 1;
        for stream in &mut mark.streams {
            stream.acknowledged_before = stream.acknowledged;
            stream.acknowledged = stream.attempted;
        }
        mark.events_acknowledged = mark.events_attempted;
    }

    /// All that was acknowledged is upstream.
    pub fn send(&self) {
        let mut inner = self.lock();
        inner.mark.version += 1;
        for stream in &mut inner.mark.streams {
            stream.sent = stream.acknowledged;
        }
    }

    /// A stream is about to be removed.
    pub fn remove(&self, stream: u32) {
        let mut inner = self.lock();
        inner.mark.version += 1;
        let index = stream as usize;
        if inner.mark.streams.len() <= index {
            inner.values.resize_with(index + 1, Vec::new);
            inner.mark.streams.resize(index + 1, StreamMark::default());
        }
        inner.mark.streams[index].removed = true;
    }

    /// From now on these records may be missing.
    pub fn allow_missing(&self, records: impl IntoIterator<Item = (u32, u64)>) {
        let mut inner = self.lock();
        inner.mark.version += 1;
        Arc::make_mut(&mut inner.mark.optional).extend(records);
    }

    /// The lane may drop what is not upstream, with a gap.
    pub fn allow_drops(&self) {
        self.lock().mark.drops = true;
    }

    /// What is promised now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let mut inner = self.lock();
        let reader = inner.reader.clone();
        let mut moved = false;
        if let Some(reader) = reader {
            for (index, stream) in inner.mark.streams.iter_mut().enumerate() {
                if let Some(bounds) = reader.bounds(StreamId(index as u32)) {
                    moved |= bounds.log_start.0 > stream.log_start;
                    stream.log_start = stream.log_start.max(bounds.log_start.0);
                }
            }
        }
        inner.mark.version += u64::from(moved);
        inner.mark.clone()
    }

    /// All values.
    #[must_use]
    pub fn values(&self) -> Values {
        self.lock().values.clone()
    }
}
