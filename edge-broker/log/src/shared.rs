//! What the thread that owns a lane shares with its readers.
//!
//! The owner writes, readers read. Order of publication after a sync: the group into the cache, index entries, the
//! segment's end, the journal's end, then the durable ends of the streams; a reader that sees a durable end sees
//! everything before it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use edge_wire::{Offset, StreamId};
use hashbrown::HashMap;

use crate::clock::BootClocks;
use crate::copies::CopyTable;
use crate::decoded::DecodedGroup;
use crate::gap::GapList;
use crate::group_cache::{CachedGroup, Committed, GroupCache};
use crate::journal::scan::{SegmentId, Window};
use crate::journal::unpack::Unpacker;
use crate::position::JournalPosition;
use crate::stats::LaneStats;
use crate::storage::Storage;
use crate::storage::lazy::{FilePool, LazyFile};
use crate::stream::StreamBounds;
use crate::stream_index::TailIndex;
use crate::stream_index::hints::Hints;
use crate::stream_index::side::SideIndex;

/// Most damaged places that wait to be judged by maintenance.
const DAMAGE_MAX: usize = 256;

/// A segment that holds live frames.
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) slot: u32,
    /// For reading: opened when it is read. Who writes has a handle of its own.
    pub(crate) file: LazyFile,
    /// Where the readable frames end.
    pub(crate) end: AtomicU32,
    /// Its slot was given up: what is read from it may be anything.
    pub(crate) retired: AtomicBool,
    /// The side index of a sealed segment, while it is resident.
    pub(crate) side: Mutex<Option<Arc<SideIndex>>>,
}

impl Segment {
    pub(crate) fn new(shared: &Shared, id: SegmentId, slot: u32, end: u32) -> Self {
        let (storage, pool) = (Arc::clone(&shared.storage), Arc::clone(&shared.files));
        Self {
            id,
            slot,
            file: LazyFile::new(storage, pool, slot_path(&shared.dir, slot)),
            end: end.into(),
            retired: AtomicBool::new(false),
            side: Mutex::new(None),
        }
    }

    pub(crate) fn first_position(&self) -> JournalPosition {
        JournalPosition { segment: self.id.sequence, byte: self.id.first_frame() }
    }

    pub(crate) fn end(&self) -> u32 {
        self.end.load(Ordering::Acquire)
    }
}

/// What readers see of a stream.
#[derive(Debug)]
pub(crate) struct StreamShared {
    log_start: AtomicU64,
    durable_end: AtomicU64,
    /// Below it only copies are read (copies.rs).
    home: AtomicU64,
    pub(crate) tail: Mutex<TailIndex>,
}

impl StreamShared {
    pub(crate) fn new(log_start: Offset, durable_end: Offset, tail: TailIndex) -> Self {
        Self {
            log_start: AtomicU64::new(log_start.0),
            durable_end: AtomicU64::new(durable_end.0),
            home: AtomicU64::new(0),
            tail: Mutex::new(tail),
        }
    }

    pub(crate) fn bounds(&self) -> StreamBounds {
        // The start first: it never passes the end, and both only grow.
        let log_start = Offset(self.log_start.load(Ordering::Acquire));
        StreamBounds { log_start, durable_end: self.durable_end() }
    }

    pub(crate) fn durable_end(&self) -> Offset {
        Offset(self.durable_end.load(Ordering::Acquire))
    }

    pub(crate) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// The log start moves forward only.
    pub(crate) fn raise_log_start(&self, offset: Offset) {
        self.log_start.fetch_max(offset.0, Ordering::AcqRel);
    }

    pub(crate) fn home(&self) -> Offset {
        Offset(self.home.load(Ordering::Acquire))
    }

    /// The home moves forward only, after the copies of what lies below it were published.
    pub(crate) fn raise_home(&self, offset: Offset) {
        self.home.fetch_max(offset.0, Ordering::AcqRel);
    }

    /// Whether a walk that found nothing from `next` up to a batch at `base` has to look among the copies: what it
    /// missed was given up under it. The home is raised before a segment goes, so this is asked after the walk.
    pub(crate) fn is_copied_between(&self, next: Offset, base: Offset) -> bool {
        next < base && next < self.home()
    }

    pub(crate) fn publish_end(&self, end: Offset) {
        self.durable_end.store(end.0, Ordering::Release);
    }

    pub(crate) fn tail(&self) -> MutexGuard<'_, TailIndex> {
        lock(&self.tail)
    }
}

/// What reading costs, since the lane was opened.
#[derive(Debug, Default)]
pub(crate) struct ReadCounters {
    read_bytes: AtomicU64,
    decoded_bytes: AtomicU64,
    decoded_groups: AtomicU64,
    skipped_groups: AtomicU64,
}

impl ReadCounters {
    pub(crate) fn decoded(&self, bytes: usize) {
        self.decoded_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.decoded_groups.fetch_add(1, Ordering::Relaxed);
    }

    /// What one walk has read and passed over.
    pub(crate) fn walked(&self, read_bytes: u64, skipped_groups: u64) {
        self.read_bytes.fetch_add(read_bytes, Ordering::Relaxed);
        self.skipped_groups.fetch_add(skipped_groups, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, stats: &mut LaneStats) {
        stats.read_bytes = self.read_bytes.load(Ordering::Relaxed);
        stats.decoded_bytes = self.decoded_bytes.load(Ordering::Relaxed);
        stats.decoded_groups = self.decoded_groups.load(Ordering::Relaxed);
        stats.skipped_groups = self.skipped_groups.load(Ordering::Relaxed);
    }
}

/// All that readers need of a lane.
pub(crate) struct Shared {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) dir: String,
    files: Arc<FilePool>,
    streams: RwLock<HashMap<StreamId, Arc<StreamShared>>>,
    /// By sequence, the oldest first.
    segments: RwLock<VecDeque<Arc<Segment>>>,
    end: AtomicU64,
    cache: Mutex<GroupCache>,
    pub(crate) unpacker: Unpacker,
    pub(crate) reads: ReadCounters,
    /// Of who reads group by group.
    window: Mutex<Option<Window>>,
    hints: Mutex<Hints>,
    gaps: Mutex<GapList>,
    copies: Mutex<CopyTable>,
    damage: Mutex<BTreeSet<JournalPosition>>,
    /// Sequences of segments whose side index a reader had to make anew.
    rebuilt: Mutex<BTreeSet<u64>>,
    stats: Mutex<LaneStats>,
    clocks: RwLock<BootClocks>,
    /// Sequences of segments whose side index is resident, the longest loaded first, with its bytes.
    pub(crate) resident: Mutex<VecDeque<(u64, usize)>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread leaves these structures usable: each change is complete or harmless.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(storage: Arc<dyn Storage>, dir: &str, cache_bytes: usize) -> Self {
        Self {
            storage,
            dir: dir.to_owned(),
            files: Arc::default(),
            streams: RwLock::default(),
            segments: RwLock::default(),
            end: AtomicU64::new(0),
            cache: Mutex::new(GroupCache::new(cache_bytes)),
            unpacker: Unpacker::default(),
            reads: ReadCounters::default(),
            window: Mutex::default(),
            hints: Mutex::default(),
            gaps: Mutex::default(),
            copies: Mutex::default(),
            damage: Mutex::default(),
            rebuilt: Mutex::default(),
            stats: Mutex::default(),
            clocks: RwLock::default(),
            resident: Mutex::default(),
        }
    }

    pub(crate) fn stream(&self, stream: StreamId) -> Option<Arc<StreamShared>> {
        self.streams.read().unwrap_or_else(PoisonError::into_inner).get(&stream).cloned()
    }

    pub(crate) fn add_stream(&self, stream: StreamId, shared: Arc<StreamShared>) {
        self.streams.write().unwrap_or_else(PoisonError::into_inner).insert(stream, shared);
    }

    pub(crate) fn remove_stream(&self, stream: StreamId) {
        self.streams.write().unwrap_or_else(PoisonError::into_inner).remove(&stream);
    }

    pub(crate) fn segments(&self) -> RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn segments_mut(&self) -> RwLockWriteGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment with this sequence, or the next later one.
    pub(crate) fn segment_at_or_after(&self, sequence: u64) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let index = segments.partition_point(|segment| segment.id.sequence < sequence);
        segments.get(index).cloned()
    }

    pub(crate) fn start(&self) -> JournalPosition {
        let first = self.segments().front().map(|segment| segment.first_position());
        first.unwrap_or_else(|| self.end())
    }

    pub(crate) fn end(&self) -> JournalPosition {
        JournalPosition::unpack(self.end.load(Ordering::Acquire))
    }

    pub(crate) fn publish_end(&self, end: JournalPosition) {
        self.end.store(end.pack(), Ordering::Release);
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, GroupCache> {
        lock(&self.cache)
    }

    /// Adds a group that was read to the pool.
    pub(crate) fn cache_group(&self, group: Arc<DecodedGroup>) {
        let gone = self.cache().insert(group);
        self.reuse(gone);
    }

    /// Adds a group that was committed to the pool.
    pub(crate) fn cache_committed(&self, group: Committed) {
        let gone = self.cache().insert_committed(group);
        self.reuse(gone);
    }

    /// Buffers of groups that nobody reads any more are used again.
    fn reuse(&self, gone: Vec<Arc<CachedGroup>>) {
        let owned = gone.into_iter().filter_map(Arc::into_inner);
        for buffers in owned.filter_map(CachedGroup::into_buffers) {
            self.unpacker.recycle_buffers(buffers);
        }
    }

    /// A window on the segments, perhaps with what the last reader had in it.
    pub(crate) fn take_window(&self) -> Window {
        lock(&self.window).take().unwrap_or_default()
    }

    pub(crate) fn keep_window(&self, mut window: Window) {
        // A very large group had it grow: not for ever.
        window.shrink();
        *lock(&self.window) = Some(window);
    }

    pub(crate) fn hints(&self) -> MutexGuard<'_, Hints> {
        lock(&self.hints)
    }

    pub(crate) fn gaps(&self) -> MutexGuard<'_, GapList> {
        lock(&self.gaps)
    }

    pub(crate) fn copies(&self) -> MutexGuard<'_, CopyTable> {
        lock(&self.copies)
    }

    /// When boots really began.
    pub(crate) fn clocks(&self) -> RwLockReadGuard<'_, BootClocks> {
        self.clocks.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Groups that are decoded from now on are corrected by these.
    pub(crate) fn set_clocks(&self, clocks: BootClocks) {
        // Locked until the pool is empty: a group that is corrected by the old ones does not get in behind.
        let mut known = self.clocks.write().unwrap_or_else(PoisonError::into_inner);
        *known = clocks;
        self.cache().forget_before(JournalPosition { segment: u64::MAX, byte: 0 });
    }

    pub(crate) fn stats(&self) -> MutexGuard<'_, LaneStats> {
        lock(&self.stats)
    }

    /// A reader found damage: maintenance will name what is lost.
    pub(crate) fn note_damage(&self, at: JournalPosition) {
        let mut damage = lock(&self.damage);
        if damage.len() < DAMAGE_MAX {
            damage.insert(at);
        }
    }

    /// A side index was made anew: maintenance will write it.
    pub(crate) fn note_rebuilt(&self, sequence: u64) {
        lock(&self.rebuilt).insert(sequence);
    }

    pub(crate) fn take_rebuilt(&self) -> BTreeSet<u64> {
        std::mem::take(&mut *lock(&self.rebuilt))
    }

    pub(crate) fn take_damage(&self) -> BTreeSet<JournalPosition> {
        std::mem::take(&mut *lock(&self.damage))
    }
}

/// Path of a slot's segment file.
pub(crate) fn slot_path(dir: &str, slot: u32) -> String {
    format!("{dir}/slot-{slot:04}.seg")
}

/// Path of a slot's side index.
pub(crate) fn side_path(dir: &str, slot: u32) -> String {
    format!("{dir}/slot-{slot:04}.idx")
}

/// Path of a slot that is being zeroed.
pub(crate) fn blank_path(dir: &str, slot: u32) -> String {
    format!("{dir}/slot-{slot:04}.tmp")
}
