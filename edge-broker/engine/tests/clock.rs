//! The clock cases on the whole engine: no battery-backed clock, jumps, restarts; a simulated disk and a clock that
//! shows what it is told.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use edge_engine::clock::{BUILD_FLOOR_US, Clock, ClockSource, RawTime};
use edge_engine::{
    Body, Completion, CompletionSink, Engine, EngineConfig, FlashSetup, Holding, LaneSetup,
    Outcome, RecordChunk, RecordTime, Submission, TopicConfig, TopicSpec,
};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{LaneConfig, Storage};
use edge_wire::Envelope;
use tokio::sync::mpsc;

const SECOND_US: i64 = 1_000_000;
const NOW_US: i64 = BUILD_FLOOR_US + 300 * 86_400 * SECOND_US;

#[derive(Clone)]
struct Told {
    boot_id: u64,
    time: Arc<Mutex<RawTime>>,
}

impl ClockSource for Told {
    fn boot_id(&self) -> u64 {
        self.boot_id
    }

    fn now(&self) -> RawTime {
        *self.time.lock().unwrap()
    }
}

impl Told {
    fn boot(boot_id: u64) -> Self {
        let time = RawTime { boottime_us: 0, wall_us: 0, is_vouched: false };
        Self { boot_id, time: Arc::new(Mutex::new(time)) }
    }

    fn show(&self, seconds: i64, wall_us: i64, is_vouched: bool) {
        let boottime_us = (seconds * SECOND_US).cast_unsigned();
        *self.time.lock().unwrap() = RawTime { boottime_us, wall_us, is_vouched };
    }
}

struct Gateway {
    engine: Arc<Engine>,
    told: Told,
}

struct Done(mpsc::UnboundedSender<()>);

impl CompletionSink for Done {
    fn complete(&self, _ticket: u64, outcome: &Outcome<'_>) {
        assert!(outcome.result.is_ok());
        let _ = self.0.send(());
    }
}

fn lane(name: &str) -> LaneSetup {
    let log = LaneConfig {
        name: name.to_owned(),
        budget_bytes: 4 << 20,
        segment_bytes: 64 << 10,
        commit_window_us: 0,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: 1 << 20, holding: Holding::default() }
}

fn engine_config() -> EngineConfig {
    EngineConfig {
        system: lane("system"),
        lanes: vec![lane("normal")],
        default_lane: "normal".into(),
        lane_retentions: Default::default(),
        flash: FlashSetup::default(),
    }
}

impl Gateway {
    async fn start(disk: &SimStorage, told: Told) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(disk.clone());
        let clock = Clock::with_source(Box::new(told.clone()));
        let (engine, _) = Engine::open_with_clock(&storage, engine_config(), clock).unwrap();
        if engine.topic("t").is_none() {
            let config = TopicConfig::default();
            let spec = TopicSpec { name: "t".into(), partitions: 1, lane: None, config };
            engine.create_topic(spec).await.unwrap();
        }
        Self { engine, told }
    }

    async fn publish(&self) {
        let topic = self.engine.topic("t").unwrap();
        let mut chunk = RecordChunk::default();
        chunk.push_envelope(Envelope::new(Some(b"key"), &[0]).view());
        let arrived = RecordTime::arrived(self.engine.clock().boottime_us());
        chunk.push(topic.streams()[0], 0, arrived, b"value");
        let (sender, mut done) = mpsc::unbounded_channel();
        let completion = Some(Completion { sink: Arc::new(Done(sender)), ticket: 0 });
        let body = Body::Chunk(Arc::new(chunk));
        let submission = Submission { body, completion, droppable: false, give_back_at_us: None };
        assert!(self.engine.lane_of(&topic).submit(submission).await.is_ok());
        done.recv().await.unwrap();
    }

    fn times_us(&self) -> Vec<i64> {
        let topic = self.engine.topic("t").unwrap();
        let reader = self.engine.lane_of(&topic).reader();
        let stream = topic.streams()[0];
        let mut times = Vec::new();
        reader
            .read_batches(stream, reader.bounds(stream).unwrap().log_start, &mut |batch| {
                batch
                    .for_each_record(&mut |record| times.push(record.timestamp_ms * 1_000))
                    .unwrap();
                ControlFlow::Continue(())
            })
            .unwrap();
        times
    }

    async fn stop(self) {
        let engine = self.engine;
        tokio::task::spawn_blocking(move || engine.shut_down()).await.unwrap();
    }
}

#[tokio::test]
async fn records_of_1970_never_get_out_and_are_corrected_for_good_once_the_clock_is_set() {
    let disk = SimStorage::new(1);
    let told = Told::boot(1);
    told.show(5, 5 * SECOND_US, false);
    let gateway = Gateway::start(&disk, told).await;
    gateway.publish().await;
    gateway.engine.tend_clock().await.unwrap();
    assert_eq!(gateway.times_us(), [BUILD_FLOOR_US + 5 * SECOND_US]);

    gateway.told.show(20, NOW_US, true);
    gateway.engine.tend_clock().await.unwrap();
    gateway.publish().await;
    let truth = [NOW_US - 15 * SECOND_US, NOW_US];
    assert_eq!(gateway.times_us(), truth);
    let after = disk.crash_image(CrashPolicy::DropAll, 1);
    gateway.stop().await;

    // The power was cut, and the next boot begins in 1970 again: it goes on from the last good time.
    let told = Told::boot(2);
    told.show(3, 3 * SECOND_US, false);
    let gateway = Gateway::start(&after, told).await;
    assert_eq!(gateway.times_us(), truth, "what was corrected stays corrected");
    gateway.publish().await;
    let invented = *gateway.times_us().last().unwrap();
    assert!((NOW_US..NOW_US + 60 * SECOND_US).contains(&invented), "{invented}");
    // Never set in this boot; and not the boot before is moved by the next one's clock.
    let after = after.crash_image(CrashPolicy::DropAll, 2);
    gateway.stop().await;
    let told = Told::boot(3);
    told.show(1, NOW_US + 86_400 * SECOND_US, true);
    let gateway = Gateway::start(&after, told).await;
    gateway.engine.tend_clock().await.unwrap();
    assert_eq!(gateway.times_us(), [truth[0], truth[1], invented]);
    gateway.stop().await;
}

#[tokio::test]
async fn jumps_that_nobody_vouches_for_move_nothing_once_the_clock_was_set() {
    let disk = SimStorage::new(2);
    let told = Told::boot(1);
    told.show(10, NOW_US, true);
    let gateway = Gateway::start(&disk, told).await;
    let year_us = 365 * 86_400 * SECOND_US;
    for (seconds, wall_us) in
        [(11, NOW_US + 10 * year_us), (12, NOW_US - year_us), (13, 0), (14, NOW_US + 4 * SECOND_US)]
    {
        gateway.told.show(seconds, wall_us, false);
        gateway.engine.tend_clock().await.unwrap();
        gateway.publish().await;
    }
    let expected: Vec<_> = (1..=4).map(|seconds| NOW_US + seconds * SECOND_US).collect();
    assert_eq!(gateway.times_us(), expected);
    gateway.stop().await;
}

#[tokio::test]
async fn a_program_that_is_restarted_in_the_same_boot_still_corrects_what_it_wrote_before() {
    let disk = SimStorage::new(3);
    let told = Told::boot(1);
    told.show(5, 5 * SECOND_US, false);
    let gateway = Gateway::start(&disk, told.clone()).await;
    gateway.publish().await;
    gateway.stop().await;
    told.show(50, NOW_US, true);
    let gateway = Gateway::start(&disk, told).await;
    gateway.engine.tend_clock().await.unwrap();
    assert_eq!(gateway.times_us(), [NOW_US - 45 * SECOND_US]);
    let found = {
        let topic = gateway.engine.topic("t").unwrap();
        let reader = gateway.engine.lane_of(&topic).reader();
        reader.offset_at_time(topic.streams()[0], (NOW_US - 60 * SECOND_US) / 1_000).unwrap()
    };
    assert_eq!(
        found.map(|(offset, ms)| (offset.0, ms * 1_000)),
        Some((0, NOW_US - 45 * SECOND_US))
    );
    gateway.stop().await;
}
