//! The streams of a lane, as its owner sees them: found by id without hashing.

use std::sync::Arc;

use edge_wire::{Offset, ProducerTable, StreamId};
use hashbrown::HashMap;

use super::pending::NONE;
use crate::shared::StreamShared;
use crate::stream::{Retention, StreamDefinition};

const PAGE: usize = 256;
/// Ids below this are looked up in pages, others in a map: ids are given out one after the other, so there are
/// others only after a million streams.
const PAGED_IDS: u32 = 1 << 20;

/// One stream. What every record and every commit needs stands in front: with thousands of streams it is far away.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Stream {
    /// Next offset to give out, pending records included.
    pub(crate) next: u64,
    pub(crate) shared: Arc<StreamShared>,
    /// Segment that has the definition.
    pub(crate) defined_in: u64,
    /// Last batch in the pending group.
    pub(crate) last_draft: u32,
    pub(crate) definition: StreamDefinition,
    /// Idempotent producers, pending batches included.
    pub(crate) live: Option<Box<ProducerTable>>,
    /// The same without pending batches: what a checkpoint says.
    pub(crate) durable: Option<Box<ProducerTable>>,
    pub(crate) retention: Retention,
    /// Up to here the stream was cleaned ahead of the ring; told in checkpoints.
    pub(crate) clean_home: Offset,
    /// It has or had copies: below its log start a restart may find some of them again.
    pub(crate) was_copied: bool,
    /// A frame on disk tells at least this log start.
    pub(crate) told_start: Offset,
}

impl Stream {
    pub(crate) fn new(
        definition: StreamDefinition,
        shared: Arc<StreamShared>,
        next: Offset,
        producers: Option<Box<ProducerTable>>,
    ) -> Self {
        Self {
            definition,
            shared,
            next: next.0,
            defined_in: 0,
            last_draft: NONE,
            live: producers.clone(),
            durable: producers,
            retention: Retention::default(),
            clean_home: Offset(0),
            was_copied: false,
            told_start: Offset(0),
        }
    }
}

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    pages: Vec<Option<Box<[u32; PAGE]>>>,
    others: HashMap<u32, u32>,
    streams: Vec<Option<Stream>>,
    /// Removed, but perhaps in the pending group still.
    removed: Vec<u32>,
    free: Vec<u32>,
}

impl StreamTable {
    /// The place of a stream.
    #[inline]
    pub(crate) fn find(&self, stream: StreamId) -> Option<u32> {
        let id = stream.0 as usize;
        if stream.0 >= PAGED_IDS {
            return self.others.get(&stream.0).copied();
        }
        let page = self.pages.get(id / PAGE)?.as_ref()?;
        let local = page[id % PAGE];
        (local != NONE).then_some(local)
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> u32 {
        let id = stream.definition.stream;
        let local = match self.free.pop() {
            Some(local) => {
                self.streams[local as usize] = Some(stream);
                local
            }
            None => {
                self.streams.push(Some(stream));
                self.streams.len() as u32 - 1
            }
        };
        self.set(id, local);
        local
    }

    /// Forgets a stream's id; its place stays until [`StreamTable::bury`].
    pub(crate) fn remove(&mut self, stream: StreamId) -> Option<u32> {
        let local = self.find(stream)?;
        self.set(stream, NONE);
        self.removed.push(local);
        Some(local)
    }

    /// Frees the places of removed streams: no pending group names them any more.
    pub(crate) fn bury(&mut self) {
        for local in self.removed.drain(..) {
            self.streams[local as usize] = None;
            self.free.push(local);
        }
    }

    fn set(&mut self, stream: StreamId, local: u32) {
        let id = stream.0 as usize;
        if stream.0 >= PAGED_IDS {
            if local == NONE {
                self.others.remove(&stream.0);
            } else {
                self.others.insert(stream.0, local);
            }
            return;
        }
        if self.pages.len() <= id / PAGE {
            self.pages.resize_with(id / PAGE + 1, || None);
        }
        self.pages[id / PAGE].get_or_insert_with(|| Box::new([NONE; PAGE]))[id % PAGE] = local;
    }

    /// The stream at a place that `find` or `insert` gave.
    #[inline]
    pub(crate) fn get(&self, local: u32) -> &Stream {
        self.streams[local as usize].as_ref().expect("a place in use holds a stream")
    }

    /// The stream at a place that `find` or `insert` gave.
    #[inline]
    pub(crate) fn get_mut(&mut self, local: u32) -> &mut Stream {
        self.streams[local as usize].as_mut().expect("a place in use holds a stream")
    }

    /// All streams, in no order; those that were removed are left out.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().enumerate().filter_map(|(local, stream)| {
            let stream = stream.as_ref()?;
            (self.find(stream.definition.stream) == Some(local as u32)).then_some(stream)
        })
    }

    /// All places in use, removed streams included.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.streams.iter_mut().flatten()
    }

    /// All streams by id.
    pub(crate) fn by_id(&self) -> Vec<&Stream> {
        let mut all: Vec<_> = self.iter().collect();
        all.sort_unstable_by_key(|stream| stream.definition.stream);
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len() - self.free.len() - self.removed.len()
    }
}
