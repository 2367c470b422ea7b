//! A segment that is given up while it is read hides nothing: at every read of the device in turn, the ring goes on
//! under a reader by some segments, just before or just behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io;
use std::sync::{Arc, Mutex};

use edge_log::{
    GroupCompression, IoMode, Lane, LaneConfig, LaneReader, OpenMode, Retention, SimStorage,
    Storage, StorageFile, StreamRead,
};
use edge_wire::{Batches, Envelope, Offset, StreamId};

use super::common::{DIR, Random, clock, config, definition};

/// Fills the ring, and is not kept beyond it.
const FILLER: StreamId = StreamId(0);
/// Is kept beyond the ring, as copies.
const KEPT: StreamId = StreamId(1);
/// Looks at the device that the ring overtakes in turn.
const LOOKS: usize = 10;

type Hook = Arc<Mutex<Option<Box<dyn FnMut() + Send>>>>;

fn call(hook: &Hook) {
    // Taken out: what it reads itself does not call it.
    let taken = hook.lock().unwrap().take();
    if let Some(mut taken) = taken {
        taken();
        hook.lock().unwrap().get_or_insert(taken);
    }
}

/// A disk that calls a hook before and after each read.
struct Watched {
    disk: SimStorage,
    hook: Hook,
}

struct WatchedFile {
    file: Arc<dyn StorageFile>,
    hook: Hook,
}

impl Storage for Watched {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.create_dir(dir)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }
    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.disk.open(path, mode)?;
        Ok(Arc::new(WatchedFile { file, hook: Arc::clone(&self.hook) }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn will_read_heads(&self, paths: &[String], bytes: usize) {
        self.disk.will_read_heads(paths, bytes);
    }
}

impl StorageFile for WatchedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        call(&self.hook);
        let read = self.file.read_at(buf, position);
        call(&self.hook);
        read
    }
    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.file.write_at(buf, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn io_mode(&self) -> IoMode {
        self.file.io_mode()
    }
}

struct Writer {
    lane: Lane,
    random: Random,
    tick: u64,
}

impl Writer {
    /// Writes until so many more segments were given up.
    fn give_up(&mut self, segments: u64) {
        let until = self.lane.reader().stats().segments_recycled + segments;
        while self.lane.reader().stats().segments_recycled < until {
            self.tick += 50_000;
            for _ in 0..8 {
                let stream = if self.random.below(8) == 0 { KEPT } else { FILLER };
                let envelope = self.lane.envelope(&Arc::new(Envelope::new(Some(b"k"), &[])));
                self.lane.append_record(stream, envelope, 0, Some(&[7; 100])).unwrap();
            }
            self.lane.commit(&clock(self.tick), self.tick, &mut ()).unwrap();
            self.lane.maintain(&clock(self.tick), self.tick).unwrap();
        }
    }
}

/// Reads the kept stream from `from` on, alone or behind the other one.
fn read(reader: &LaneReader, from: Offset, among_many: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if among_many {
        let one = |stream, from| StreamRead {
            stream,
            from,
            max_bytes: 1 << 20,
            out: Vec::new(),
            error: None,
        };
        // Only the second one is in the common walk; the first is short.
        let end = reader.bounds(FILLER).unwrap().durable_end;
        let mut reads = [one(FILLER, Offset(end.0 - 1)), one(KEPT, from)];
        reader.read_many(&mut reads, 4 << 20);
        out.append(&mut reads[1].out);
    } else {
        // Fails if it fell out of the log before the first look at it.
        let _ = reader.read(KEPT, from, 1 << 20, &mut out);
    }
    out
}

#[test]
fn what_is_given_up_under_a_reader_is_read_from_its_copies() {
    let hook = Hook::default();
    let config = LaneConfig {
        budget_bytes: 6 * (16 << 10),
        segment_bytes: 16 << 10,
        group_bytes_max: 2 << 10,
        compression: GroupCompression::None,
        decoded_cache_bytes: 0,
        ..config()
    };
    let disk = Watched { disk: SimStorage::new(0), hook: Arc::clone(&hook) };
    let (mut lane, _) = Lane::open(Arc::new(disk), DIR, config, &clock(1)).unwrap();
    lane.define_stream(definition(FILLER.0));
    let retention = Retention { bytes: Some(20_000), ..Retention::default() };
    lane.define_stream(definition(KEPT.0));
    lane.set_retention(KEPT, retention);
    let reader = lane.reader();
    let writer = Arc::new(Mutex::new(Writer { lane, random: Random(3), tick: 1 }));
    writer.lock().unwrap().give_up(12);

    let (mut overtaken, mut seen, mut holes) = (0, 0, Vec::new());
    for round in 0..LOOKS * 3 * 4 * 2 {
        let (look, rest) = (round % LOOKS, round / LOOKS);
        let (segments, rest) = (1 + rest as u64 % 3, rest / 3);
        let (part, among_many) = (rest as u64 % 4, rest / 4 == 0);
        let bounds = reader.bounds(KEPT).unwrap();
        let (start, end) = (bounds.log_start.0, bounds.durable_end.0);
        let from = start + (end - start) * part / 4;
        let (theirs, mut looks) = (Arc::clone(&writer), 0);
        let done = Arc::new(Mutex::new(false));
        let is_done = Arc::clone(&done);
        *hook.lock().unwrap() = Some(Box::new(move || {
            if looks == look {
                theirs.lock().unwrap().give_up(segments);
                *is_done.lock().unwrap() = true;
            }
            looks += 1;
        }));
        let out = read(&reader, Offset(from), among_many);
        *hook.lock().unwrap() = None;
        overtaken += usize::from(*done.lock().unwrap());
        // What is below the log start by now is missed by nobody.
        let mut next = from.max(reader.bounds(KEPT).unwrap().log_start.0);
        for batch in Batches::new(&out) {
            let header = *batch.unwrap().header();
            if header.base_offset.0 > next {
                holes.push((round, next, header.base_offset.0));
            }
            next = next.max(header.end_offset().0);
            seen += 1;
        }
    }
    assert_eq!(holes, [], "{overtaken} reads were overtaken; (round, from, to)");
    assert_eq!(reader.gaps(), []);
    // Else nothing was tried.
    assert!(overtaken > 100 && seen > 5000, "{overtaken} overtaken, {seen} batches");
}
