//! Files that cannot be opened or read, and pages that came back empty: no start is refused because of damage, and no
//! offset is given out twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::common::{DIR, Model, Random, Rig, STREAMS, clock, config, definition, records};
use edge_log::storage::{
    Fault, FaultKind, IoMode, OpenMode, SimOperation, SimStorage, Storage, StorageFile,
};
use edge_log::{Lane, OpenError, Recovery};
use edge_wire::{Envelope, StreamId};

const EIO: i32 = 5;
const EMFILE: i32 = 24;

/// A disk with one file that fails.
#[derive(Clone)]
struct Broken {
    inner: SimStorage,
    path: String,
    open_error: Option<i32>,
    /// Bytes whose reading fails.
    unreadable: Range<u64>,
}

struct BrokenFile {
    inner: Arc<dyn StorageFile>,
    unreadable: Range<u64>,
}

impl Storage for Broken {
    fn create_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.create_dir(dir)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &str, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if path != self.path {
            return self.inner.open(path, mode);
        }
        if let Some(code) = self.open_error {
            return Err(io::Error::from_raw_os_error(code));
        }
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(BrokenFile { inner, unreadable: self.unreadable.clone() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.inner.remove(path)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }

    fn will_read_heads(&self, paths: &[String], bytes: usize) {
        self.inner.will_read_heads(paths, bytes);
    }
}

impl StorageFile for BrokenFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let end = position + buf.len() as u64;
        if position < self.unreadable.end && end > self.unreadable.start {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.inner.read_at(buf, position)
    }

    fn write_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(buf, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn io_mode(&self) -> IoMode {
        self.inner.io_mode()
    }
}

struct Sample {
    model: Model,
    log_starts: Vec<u64>,
}

/// A lane of some segments, all acknowledged.
fn sample(seed: u64, groups: u64) -> (SimStorage, Sample) {
    let storage = SimStorage::new(seed);
    let (mut random, mut model) = (Random(seed), Model::default());
    let mut rig = Rig::open(&storage, 1);
    for _ in 0..groups {
        rig.append_group(&mut random, &mut model);
        rig.commit().unwrap();
        rig.acknowledge(&mut model);
        rig.maintain();
    }
    let reader = rig.lane.reader();
    let start = |stream| reader.bounds(StreamId(stream)).unwrap().log_start.0;
    let log_starts = (0..STREAMS).map(start).collect();
    (storage, Sample { model, log_starts })
}

fn slots(storage: &SimStorage) -> Vec<String> {
    let files = storage.files().into_iter().map(|(path, _)| path);
    files.filter(|path| path.ends_with(".seg")).collect()
}

fn open(storage: &dyn Fn() -> Arc<dyn Storage>, tick: u64) -> Result<(Lane, Recovery), OpenError> {
    let (mut lane, recovery) = Lane::open(storage(), DIR, config(), &clock(tick))?;
    for stream in 0..STREAMS {
        lane.define_stream(definition(stream));
    }
    Ok((lane, recovery))
}

/// Appends to every stream: nothing may get an offset that was given out before. What is lost is named. Returns the
/// values that were added.
fn check_goes_on(lane: &mut Lane, sample: &Sample, what: &str) -> Vec<u64> {
    let envelope = Arc::new(Envelope::new(None, &[]));
    let model = &sample.model;
    let mut offsets = Vec::new();
    for stream in 0..STREAMS {
        let envelope = lane.envelope(&envelope);
        let offset = lane.append_record(StreamId(stream), envelope, 1, Some(b"new")).unwrap();
        let acked = model.streams[&stream].acked;
        assert!(offset.0 >= acked, "{what}: stream {stream}: {} is given out again", offset.0);
        offsets.push(offset.0);
    }
    lane.commit(&clock(1 << 41), 1 << 41, &mut ()).unwrap();
    let reader = lane.reader();
    let gaps = reader.gaps();
    for (stream, known) in &model.streams {
        let found = records(&reader, *stream);
        assert_eq!(found.last().unwrap().1, b"new", "{what}");
        // Where nothing older is left, the log start itself says so.
        let start = reader.bounds(StreamId(*stream)).unwrap().log_start.0;
        let start = start.max(sample.log_starts[*stream as usize]);
        for offset in start..known.acked {
            let there = found.iter().any(|(at, _)| *at == offset);
            let named = gaps
                .iter()
                .any(|gap| gap.stream.0 == *stream && (gap.from.0..gap.to.0).contains(&offset));
            assert!(there || named, "{what}: stream {stream}: {offset} is lost, nobody says so");
        }
    }
    offsets
}

#[test]
fn a_process_short_of_files_does_not_open_a_lane_without_its_newest_segment() {
    let (storage, sample) = sample(5, 60);
    for path in slots(&storage) {
        let image = storage.kill_image();
        let broken =
            Broken { inner: image.clone(), path, open_error: Some(EMFILE), unreadable: 0..0 };
        let opened = open(&|| Arc::new(broken.clone()), 9);
        assert!(matches!(opened, Err(OpenError::Io { .. })));
        let (mut lane, recovery) = open(&|| Arc::new(image.clone()), 9).unwrap();
        assert!(recovery.gaps.is_empty());
        check_goes_on(&mut lane, &sample, "short of files");
    }
}

#[test]
fn a_disk_that_reads_nothing_for_a_while_costs_nothing() {
    let (storage, sample) = sample(8, 60);
    let image = storage.kill_image();
    let (operation, kind) = (SimOperation::Read, FaultKind::Device);
    image.inject(Fault { operation, after: 0, kind, sticky: true });
    let opened = open(&|| Arc::new(image.clone()), 9);
    assert!(matches!(opened, Err(OpenError::Io { .. })));
    image.heal();
    let (mut lane, recovery) = open(&|| Arc::new(image.clone()), 10).unwrap();
    assert!(recovery.gaps.is_empty());
    check_goes_on(&mut lane, &sample, "read again");
}

#[test]
fn a_slot_that_is_lost_takes_no_offset_and_no_sequence_with_it() {
    for groups in [3, 60, 100] {
        let (storage, sample) = sample(6, groups);
        for path in slots(&storage) {
            for open_error in [Some(EIO), None] {
                let what = format!("{groups} groups, {path}, {open_error:?}");
                let image = storage.kill_image();
                let unreadable = 0..u64::MAX;
                let broken =
                    Broken { inner: image.clone(), path: path.clone(), open_error, unreadable };
                let (mut lane, recovery) = open(&|| Arc::new(broken.clone()), 9).unwrap();
                assert!(open_error.is_some() || recovery.unreadable_bytes > 0, "{what}");
                let first = check_goes_on(&mut lane, &sample, &what);
                drop(lane);
                // And again, with it still lost, and when it is back.
                let (mut lane, _) = open(&|| Arc::new(broken.clone()), 10).unwrap();
                let second = check_goes_on(&mut lane, &sample, &what);
                drop(lane);
                let (mut lane, _) = open(&|| Arc::new(image.clone()), 11).unwrap();
                let third = check_goes_on(&mut lane, &sample, &what);
                for stream in 0..STREAMS as usize {
                    assert!(first[stream] < second[stream] && second[stream] < third[stream]);
                    let found = records(&lane.reader(), stream as u32);
                    for new in [&first, &second, &third] {
                        assert!(found.contains(&(new[stream], b"new".to_vec())), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_unreadable_region_costs_no_start_and_no_offset() {
    let (storage, sample) = sample(7, 60);
    let mut counted = 0;
    for path in slots(&storage) {
        for start in (0..16u64).map(|kib| kib << 10) {
            for length in [512, 4096, 1 << 20] {
                let what = format!("{path} {start}+{length}");
                let broken = Broken {
                    inner: storage.kill_image(),
                    path: path.clone(),
                    open_error: None,
                    unreadable: start..start + length,
                };
                let (mut lane, recovery) = open(&|| Arc::new(broken.clone()), 9).unwrap();
                counted += recovery.unreadable_bytes;
                lane.maintain(&clock(1 << 40), 1 << 40).unwrap();
                let envelope = Arc::new(Envelope::new(None, &[]));
                for stream in 0..STREAMS {
                    let envelope = lane.envelope(&envelope);
                    let stream_id = StreamId(stream);
                    let offset = lane.append_record(stream_id, envelope, 1, Some(b"new")).unwrap();
                    assert!(offset.0 >= sample.model.streams[&stream].acked, "{what}");
                }
                lane.commit(&clock(1 << 41), 1 << 41, &mut ()).unwrap();
            }
        }
    }
    assert!(counted > 0);
}

/// As long as there is a frame further in.
#[test]
fn a_slot_whose_first_page_came_back_empty_is_not_free() {
    for groups in [8, 20, 40, 60] {
        let (storage, sample) = sample(8, groups);
        for path in slots(&storage) {
            for page in [512, 4096] {
                let what = format!("{groups} groups, {path}, {page} bytes");
                let image = storage.kill_image();
                image.damage(&path, 0, |bytes| bytes.fill(0), page);
                let (mut lane, _) = open(&|| Arc::new(image.clone()), 9).unwrap();
                for stream in 0..STREAMS {
                    records(&lane.reader(), stream);
                }
                while lane.maintain(&clock(1 << 40), 1 << 20).unwrap() {}
                check_goes_on(&mut lane, &sample, &what);
            }
        }
    }
}
