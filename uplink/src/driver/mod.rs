//! The driver: sockets, files, timers and tasks around the [`Replicator`].
//!
//! - One task owns the state machine; everything that takes time (reading the journal and compressing, saving
//!   progress, requests) is a task of its own that reports back.
//! - Memory: for each lane one round under construction (`round_bytes`), and batches that are not acknowledged
//!   (`unacked_bytes_max`). Reading stops at the limits.
//! - The link is watched by progress, not by TCP state; it is mended without anybody publishing.

mod lanes;
mod run;
mod sender;
mod source;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_wire::{Offset, StreamId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uplink_core::replicator::{BlockedTopic, OffsetRange, Replicator, ReplicatorConfig};

pub use run::ENDS_KEY;
pub use source::{LaneRead, LaneSource, ProgressStore, ReadLaneError, SaveError, SourceStream};

use crate::client::ClientOptions;

/// Settings.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// Brokers, each `host:port`.
    pub bootstrap: Vec<String>,
    /// The client's settings. `request_timeout` should not be longer than the replicator's watchdog.
    pub client: ClientOptions,
    /// The state machine's settings; its `limits` make the batches.
    pub replicator: ReplicatorConfig,
    /// Records of one round, in bytes before compression. Default 2 MiB.
    pub round_bytes: usize,
    /// How long a record may wait for company when there is no backlog. Default 200 ms.
    pub linger: Duration,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            client: ClientOptions::default(),
            replicator: ReplicatorConfig::default(),
            round_bytes: 2 * 1024 * 1024,
            linger: Duration::from_millis(200),
        }
    }
}

/// The replicator at work.
#[derive(Debug)]
pub struct Uplink;

impl Uplink {
    /// Starts replicating; call it inside a tokio runtime. It goes on until [`UplinkHandle::shutdown`].
    pub fn spawn<S: LaneSource, P: ProgressStore>(
        source: S,
        store: P,
        config: UplinkConfig,
    ) -> UplinkHandle {
        let (stop, stopped) = watch::channel(false);
        let (driver, shared) = run::Driver::new(Arc::new(source), Arc::new(store), config);
        let task = tokio::spawn(driver.run(stopped));
        UplinkHandle { shared, stop, task }
    }
}

/// Looks at a running uplink and stops it. Dropping it stops the uplink without a last save.
#[derive(Debug)]
pub struct UplinkHandle {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl UplinkHandle {
    /// A picture of the moment.
    #[must_use]
    pub fn status(&self) -> UplinkStatus {
        self.shared.status()
    }

    /// A way to look at it from elsewhere.
    #[must_use]
    pub fn observer(&self) -> UplinkObserver {
        UplinkObserver { shared: Arc::clone(&self.shared) }
    }

    /// First offset of a stream that the upstream has not acknowledged, where that is known.
    #[must_use]
    pub fn upstream_end(&self, stream: StreamId) -> Option<Offset> {
        self.shared.lock().upstream_end(stream)
    }

    /// Stops reading, waits a moment for what is under way, makes the progress durable.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.task).await;
    }
}

impl Drop for UplinkHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// See [`UplinkHandle::observer`].
#[derive(Clone, Debug)]
pub struct UplinkObserver {
    shared: Arc<Shared>,
}

impl UplinkObserver {
    /// A picture of the moment.
    #[must_use]
    pub fn status(&self) -> UplinkStatus {
        self.shared.status()
    }
}

/// A picture of an uplink.
#[derive(Clone, Debug)]
pub struct UplinkStatus {
    /// `down`, `connecting` or `up`.
    pub link: &'static str,
    /// What is wrong, as a sentence.
    pub error: Option<String>,
    /// First offset that the upstream has not acknowledged, by stream, ascending.
    pub upstream_ends: Vec<(StreamId, Offset)>,
    /// Counters.
    pub counters: UplinkCounters,
    /// Topics that wait for somebody to change something upstream.
    pub blocked: Vec<BlockedTopic>,
    /// The latest ranges that may be upstream twice.
    pub possible_duplicates: Vec<OffsetRange>,
    /// The latest records that the upstream will not take.
    pub skipped: Vec<OffsetRange>,
}

/// What is counted. `wire_bytes` and `sent_batches` count from the start of the process, the others for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UplinkCounters {
    /// Batches sent, repeats included.
    pub sent_batches: u64,
    /// Bytes of batches sent, repeats included.
    pub wire_bytes: u64,
    /// Records acknowledged.
    pub acked_records: u64,
    /// Records that may be upstream twice.
    pub possible_duplicates: u64,
    /// Records that the upstream will not take.
    pub skipped_records: u64,
    /// Offsets that were not in the log any more when their turn came.
    pub gap_offsets: u64,
}

/// What the driver and those who look at it share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
}

/// Behind the lock.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) replicator: Replicator,
    /// Ends known from elsewhere: an earlier run, or a lane that was found to be all upstream.
    pub(crate) known_ends: HashMap<StreamId, Offset>,
    pub(crate) sent_batches: u64,
    pub(crate) wire_bytes: u64,
}

impl State {
    fn upstream_end(&self, stream: StreamId) -> Option<Offset> {
        self.replicator.upstream_end(stream).max(self.known_ends.get(&stream).copied())
    }

    /// All ends, ascending by stream.
    pub(crate) fn upstream_ends(&self) -> Vec<(StreamId, Offset)> {
        let mut ends = self.known_ends.clone();
        for (stream, end) in self.replicator.upstream_ends() {
            let known = ends.entry(stream).or_insert(end);
            *known = end.max(*known);
        }
        let mut ends: Vec<_> = ends.into_iter().collect();
        ends.sort();
        ends
    }
}

impl Shared {
    pub(crate) fn new(replicator: Replicator, known_ends: HashMap<StreamId, Offset>) -> Self {
        Self { state: Mutex::new(State { replicator, known_ends, sent_batches: 0, wire_bytes: 0 }) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> UplinkStatus {
        let state = self.lock();
        let inner = state.replicator.status();
        UplinkStatus {
            link: inner.link.word(),
            error: inner.last_error,
            upstream_ends: state.upstream_ends(),
            counters: UplinkCounters {
                sent_batches: state.sent_batches,
                wire_bytes: state.wire_bytes,
                acked_records: inner.totals.acked_records,
                possible_duplicates: inner.totals.possible_duplicates,
                skipped_records: inner.totals.skipped_records,
                gap_offsets: inner.totals.gap_offsets,
            },
            blocked: inner.blocked,
            possible_duplicates: inner.possible_duplicates,
            skipped: inner.skipped,
        }
    }
}
