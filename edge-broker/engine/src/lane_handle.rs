//! A lane as the rest of the program sees it: submit, read, wait for the durable end to move.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use edge_log::{BootClocks, JournalPosition, LaneReader, LaneStats};
use edge_wire::LaneId;
use tokio::sync::watch;

use crate::clock::boottime_us;
use crate::queue::{PushError, Queue};
use crate::scrubber::ScrubCounters;
use crate::submission::Submission;

/// What a lane can do at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum LaneState {
    /// Takes records.
    Open = 0,
    /// The byte budget is used and nothing may be given up: publishes wait for room.
    Full = 1,
    /// A write or sync failed; the lane is being reopened through recovery.
    Poisoned = 2,
    /// The gateway is shutting down.
    Closed = 3,
}

impl LaneState {
    /// The word that `status` prints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Full => "full",
            Self::Poisoned => "poisoned",
            Self::Closed => "closed",
        }
    }

    fn from_u8(value: u8) -> Self {
        match value {
            0 => Self::Open,
            1 => Self::Full,
            2 => Self::Poisoned,
            _ => Self::Closed,
        }
    }
}

/// What a lane does with publishes that it has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Payload bytes of one client that may wait un-acknowledged in this lane. Beyond it the client is not read from.
    pub client_bytes_max: usize,
    /// The same for all clients of the lane together: beyond it only clients that have nothing in it are read from.
    pub total_bytes_max: usize,
    /// A publish that a full lane has held for so long is refused. `None`: it is held until there is room.
    pub refuse_after: Option<Duration>,
}

impl Default for Holding {
    fn default() -> Self {
        Self { client_bytes_max: 1 << 20, total_bytes_max: 16 << 20, refuse_after: None }
    }
}

/// QoS 1 publishes of one lane that are not acknowledged. While the lane is full they are held.
#[derive(Debug, Default)]
pub struct InFlight {
    /// Publishes.
    pub publishes: AtomicU64,
    /// Their payload bytes.
    pub bytes: AtomicU64,
    /// Clients that have any.
    pub clients: AtomicU64,
}

/// A submission that was not taken, handed back.
pub struct Refused {
    /// Why.
    pub reason: RefusedReason,
    /// What was to be submitted.
    pub submission: Submission,
}

/// Why a submission was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedReason {
    /// The queue is at its limit: wait for [`LaneHandle::room`], then try again.
    NoRoom,
    /// A droppable submission met a lane that is full, poisoned or behind. It has been counted as
    /// dropped; there is nothing to wait for.
    Dropped,
    /// The gateway is shutting down.
    ShuttingDown,
}

/// One lane. Shared by all listeners.
pub struct LaneHandle {
    id: LaneId,
    name: String,
    batch_bytes_max: usize,
    queue: Queue,
    state: AtomicU8,
    reader: RwLock<LaneReader>,
    commits: watch::Sender<u64>,
    upstream: Mutex<Option<JournalPosition>>,
    dropped_records: AtomicU64,
    refused_records: AtomicU64,
    holding: Holding,
    in_flight: InFlight,
    /// By the boot clock; 0: it is not full.
    full_since_us: AtomicU64,
    last_error: Mutex<Option<String>>,
    thread_id: AtomicU64,
    scrub: ScrubCounters,
    /// The lane's part of the wear budget, bytes a day; 0: none.
    wear_budget: AtomicU64,
    /// Counters of earlier openings of the lane, of those that begin at 0 with each.
    carried: Mutex<(u64, u64)>,
    /// When boots really began, for readers of a lane that is reopened.
    boot_clocks: Mutex<BootClocks>,
}

impl LaneHandle {
    pub(crate) fn new(
        id: LaneId,
        name: String,
        queue_bytes: usize,
        holding: Holding,
        batch_bytes_max: usize,
        reader: LaneReader,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            name,
            batch_bytes_max,
            queue: Queue::new(queue_bytes),
            state: AtomicU8::new(LaneState::Open as u8),
            reader: RwLock::new(reader),
            commits: watch::Sender::new(0),
            upstream: Mutex::new(None),
            dropped_records: AtomicU64::new(0),
            refused_records: AtomicU64::new(0),
            holding,
            in_flight: InFlight::default(),
            full_since_us: AtomicU64::new(0),
            last_error: Mutex::new(None),
            thread_id: AtomicU64::new(0),
            scrub: ScrubCounters::default(),
            wear_budget: AtomicU64::new(0),
            carried: Mutex::default(),
            boot_clocks: Mutex::default(),
        })
    }

    /// Index of this lane in [`Engine::lanes`](crate::Engine::lanes).
    #[must_use]
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// Name as in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Most bytes of one record (key and headers included) or batch that this lane can ever store.
    #[must_use]
    pub fn batch_bytes_max(&self) -> usize {
        self.batch_bytes_max
    }

    /// What the lane can do at the moment.
    #[must_use]
    pub fn state(&self) -> LaneState {
        LaneState::from_u8(self.state.load(Ordering::Acquire))
    }

    /// Hands records to the lane's thread. Never blocks.
    ///
    /// # Errors
    /// The submission comes back, with the reason.
    pub fn try_submit(&self, submission: Submission) -> Result<(), Refused> {
        let droppable = submission.droppable;
        if droppable && self.state() != LaneState::Open {
            return Err(self.dropped(submission));
        }
        match self.queue.push(submission) {
            Ok(()) => Ok(()),
            Err(PushError::NoRoom(submission)) if droppable => Err(self.dropped(submission)),
            Err(PushError::NoRoom(submission)) => {
                Err(Refused { reason: RefusedReason::NoRoom, submission })
            }
            Err(PushError::Closed(submission)) => {
                Err(Refused { reason: RefusedReason::ShuttingDown, submission })
            }
        }
    }

    /// Hands records to the lane's thread, waiting for room if need be.
    ///
    /// # Errors
    /// As [`try_submit`](Self::try_submit), except that it never answers
    /// [`NoRoom`](RefusedReason::NoRoom).
    pub async fn submit(&self, mut submission: Submission) -> Result<(), Refused> {
        loop {
            let room = self.queue.room();
            tokio::pin!(room);
            room.as_mut().enable();
            match self.try_submit(submission) {
                Err(Refused { reason: RefusedReason::NoRoom, submission: back }) => {
                    submission = back
                }
                other => return other,
            }
            room.await;
        }
    }

    /// Resolves when the queue was emptied or closed.
    ///
    /// A wake-up that happens between a refused [`try_submit`](Self::try_submit) and the first poll of
    /// this future is not seen: prefer [`submit`](Self::submit), or try once more after enabling it.
    pub async fn room(&self) {
        self.queue.room().await;
    }

    /// Reads below the durable end, from any thread. Disk reads block: call it where blocking is
    /// allowed. The reader of a lane that was reopened is another one: do not keep it for long.
    #[must_use]
    pub fn reader(&self) -> LaneReader {
        self.reader.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes after every commit group: the durable end of some stream has moved.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Everything before `position` is upstream and may be recycled.
    pub fn handle_upstream(&self, position: JournalPosition) {
        let mut upstream = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        if upstream.is_none_or(|known| known < position) {
            *upstream = Some(position);
            drop(upstream);
            if self.state() == LaneState::Full {
                self.queue.nudge();
            }
        }
    }

    /// How far this lane is upstream, as last told by the uplink.
    #[must_use]
    pub fn upstream(&self) -> Option<JournalPosition> {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counters of the lane's log.
    #[must_use]
    pub fn stats(&self) -> LaneStats {
        let mut stats = self.reader().stats();
        let (padding_bytes, page_bytes) =
            *self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        stats.padding_bytes += padding_bytes;
        stats.page_bytes += page_bytes;
        stats
    }

    /// What the scrub has done in this lane.
    pub(crate) fn scrub(&self) -> &ScrubCounters {
        &self.scrub
    }

    /// The lane's part of the wear budget, bytes a day.
    pub(crate) fn wear_budget(&self) -> Option<u64> {
        Some(self.wear_budget.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    pub(crate) fn set_wear_budget(&self, bytes_per_day: u64) {
        self.wear_budget.store(bytes_per_day.max(1), Ordering::Relaxed);
    }

    /// QoS 0 records that the log could not take.
    #[must_use]
    pub fn dropped_records(&self) -> u64 {
        self.dropped_records.load(Ordering::Relaxed)
    }

    /// Records that were given back to their senders because the lane stayed full.
    #[must_use]
    pub fn refused_records(&self) -> u64 {
        self.refused_records.load(Ordering::Relaxed)
    }

    /// Records were given back to their senders.
    pub fn count_refused(&self, records: usize) {
        self.refused_records.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// What the lane does with publishes that it has no room for.
    #[must_use]
    pub fn holding(&self) -> &Holding {
        &self.holding
    }

    /// Publishes that wait for their acknowledgement; kept up to date by the MQTT listener.
    #[must_use]
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// How long the lane has been full; `None`: it is not.
    #[must_use]
    pub fn full_for(&self) -> Option<Duration> {
        match self.full_since_us.load(Ordering::Relaxed) {
            0 => None,
            since_us => Some(Duration::from_micros(boottime_us().saturating_sub(since_us))),
        }
    }

    /// Bytes that wait in the queue.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// What went wrong last, as a sentence; `None` while the lane is well.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The kernel's id of the lane's thread: its I/O counters are this lane's.
    pub(crate) fn thread_id(&self) -> u64 {
        self.thread_id.load(Ordering::Relaxed)
    }

    pub(crate) fn set_thread_id(&self, id: u64) {
        self.thread_id.store(id, Ordering::Relaxed);
    }

    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    pub(crate) fn set_state(&self, state: LaneState, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        if state != LaneState::Full {
            self.full_since_us.store(0, Ordering::Relaxed);
        } else if self.state() != LaneState::Full {
            self.full_since_us.store(boottime_us().max(1), Ordering::Relaxed);
        }
        self.state.store(state as u8, Ordering::Release);
    }

    /// Readers correct timestamps by these from now on.
    pub(crate) fn set_boot_clocks(&self, clocks: &BootClocks) {
        let mut known = self.boot_clocks.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(clocks);
        self.reader().set_boot_clocks(clocks.clone());
    }

    pub(crate) fn set_reader(&self, reader: LaneReader) {
        let stats = self.stats();
        *self.carried.lock().unwrap_or_else(PoisonError::into_inner) =
            (stats.padding_bytes, stats.page_bytes);
        let known = self.boot_clocks.lock().unwrap_or_else(PoisonError::into_inner);
        reader.set_boot_clocks(known.clone());
        *self.reader.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }

    pub(crate) fn committed(&self) {
        self.commits.send_modify(|count| *count += 1);
    }

    /// QoS 0 records that turned out not to be storable.
    pub(crate) fn count_dropped(&self, records: usize) {
        self.dropped_records.fetch_add(records as u64, Ordering::Relaxed);
    }

    fn dropped(&self, submission: Submission) -> Refused {
        self.count_dropped(submission.records());
        Refused { reason: RefusedReason::Dropped, submission }
    }
}
