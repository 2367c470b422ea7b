//! The engine and the flash below it: scrub, reserve, wear.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edge_engine::status::{GapStatus, Status};
use edge_engine::{
    Body, Completion, CompletionSink, Engine, EngineConfig, FlashSetup, Holding, LaneSetup,
    Outcome, RecordChunk, ReserveSize, ScrubSetup, Submission, Topic, TopicConfig, TopicSpec,
};
use edge_log::storage::SimStorage;
use edge_log::{LaneConfig, Storage};
use edge_wire::envelope::Envelope;
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

fn lane(name: &str) -> LaneSetup {
    let log = LaneConfig {
        name: name.into(),
        budget_bytes: 4 << 20,
        segment_bytes: 1 << 20,
        commit_window_us: 0,
        keep_free_bytes: if name == "system" { 0 } else { 8 << 20 },
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: 256 << 10, holding: Holding::default() }
}

fn open(disk: &SimStorage, flash: FlashSetup) -> Arc<Engine> {
    let config = EngineConfig {
        system: lane("system"),
        lanes: vec![lane("normal")],
        default_lane: "normal".into(),
        lane_retentions: Default::default(),
        flash,
    };
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    Engine::open(&storage, config).expect("a simulated disk opens").0
}

fn spec(name: &str) -> TopicSpec {
    TopicSpec { name: name.into(), partitions: 1, lane: None, config: TopicConfig::default() }
}

struct Told(mpsc::UnboundedSender<bool>);

impl CompletionSink for Told {
    fn complete(&self, _ticket: u64, outcome: &Outcome<'_>) {
        let _ = self.0.send(outcome.result.is_ok());
    }
}

async fn publish(engine: &Engine, topic: &Topic, value: &str) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut chunk = RecordChunk::default();
    chunk.push_envelope(Envelope::new(Some(b"key"), &[0]).view());
    chunk.push(topic.streams()[0], 0, 1_000, value.as_bytes());
    let completion = Some(Completion { sink: Arc::new(Told(sender)), ticket: 0 });
    let body = Body::Chunk(Arc::new(chunk));
    let submission = Submission::new(body, completion);
    assert!(engine.lane_of(topic).submit(submission).await.is_ok());
    assert_eq!(receiver.recv().await, Some(true));
}

/// Asks for the status until it is as wanted.
async fn until(engine: &Engine, wanted: impl Fn(&Status) -> bool) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = engine.status(Path::new("/proc/self"));
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "in vain: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn rot_that_nobody_reads_is_found_told_and_counted() {
    let disk = SimStorage::new(1);
    let scrub = ScrubSetup { bytes_per_s: 4 << 20, every_s: 0, first_after_s: 0 };
    let engine = open(&disk, FlashSetup { scrub: Some(scrub), ..FlashSetup::default() });
    let topic = engine.create_topic(spec("t")).await.expect("the topic can be made");
    publish(&engine, &topic, "first").await;
    let second = engine.lane_of(&topic).reader().end();
    publish(&engine, &topic, "second").await;
    publish(&engine, &topic, "third").await;
    let passes = engine.status(Path::new("/proc/self")).lanes["normal"].scrub.passes;
    let passed = until(&engine, |status| status.lanes["normal"].scrub.passes >= passes + 2).await;
    assert_eq!(passed.lanes["normal"].scrub.errors, 0);
    assert!(passed.lanes["normal"].scrub.bytes > 0 && passed.gaps.is_empty());

    let at = u64::from(second.byte) + 140;
    disk.damage("lanes/normal/slot-0000.seg", at, |bytes| bytes[0] ^= 1, 1);
    let found = until(&engine, |status| !status.gaps.is_empty()).await;
    let GapStatus { topic: name, from, to, reason, .. } = &found.gaps[0];
    assert_eq!((name.as_str(), *from, *to, reason.as_str()), ("t", 1, 2, "rot"));
    let again = found.lanes["normal"].scrub.passes + 2;
    let later = until(&engine, |status| status.lanes["normal"].scrub.passes >= again).await;
    assert_eq!((later.lanes["normal"].scrub.errors, later.gaps.len()), (1, 1), "told once");
    engine.shut_down();
}

#[tokio::test]
async fn metadata_gets_the_reserve_when_the_disk_has_nothing_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SimStorage::new(1);
    disk.set_free_bytes(512 << 10);
    let flash = FlashSetup {
        data_dir: Some(dir.path().to_owned()),
        reserve: Some(ReserveSize::Exactly(4 << 20)),
        ..FlashSetup::default()
    };
    let engine = open(&disk, flash);
    let held = |status: &Status| status.disk.as_ref().is_some_and(|disk| disk.reserve_held);
    assert!(held(&engine.status(dir.path())));
    let making = tokio::spawn({
        let engine = engine.clone();
        async move { engine.create_topic(spec("t")).await.map(|_| ()) }
    });
    until(&engine, |status| !held(status)).await;
    // On a real disk that is what the reserve was.
    disk.set_free_bytes(4 << 20);
    tokio::time::timeout(PATIENCE, making).await.unwrap().unwrap().expect("the topic is made");
    // Records do not get what they have to leave free.
    let topic = engine.topic("t").expect("it was made");
    let mut chunk = RecordChunk::default();
    chunk.push_envelope(Envelope::new(None, &[0]).view());
    chunk.push(topic.streams()[0], 0, 1_000, b"value");
    let body = Body::Chunk(Arc::new(chunk));
    let submission = Submission::new(body, None);
    assert!(engine.lane_of(&topic).submit(submission).await.is_ok());
    let status = until(&engine, |status| status.lanes["normal"].error.is_some()).await;
    let error = status.lanes["normal"].error.clone().unwrap_or_default();
    assert!(error.starts_with("the disk is full: "), "{error}");
    assert!(error.contains("9.0 MiB needed"), "{error}");
    disk.set_free_bytes(64 << 20);
    until(&engine, |status| status.lanes["normal"].records == 1).await;
    engine.shut_down();
}

#[tokio::test]
async fn wear_is_counted_and_the_budget_reaches_the_lanes() {
    let disk = SimStorage::new(1);
    let flash = FlashSetup { wear_bytes_per_day: Some(1 << 30), ..FlashSetup::default() };
    let engine = open(&disk, flash);
    let topic = engine.create_topic(spec("t")).await.expect("the topic can be made");
    for _ in 0..10 {
        publish(&engine, &topic, "value").await;
    }
    let status = engine.status(Path::new("/proc/self"));
    let (written, lane) = (&status.wear.since_start, &status.lanes["normal"]);
    assert_eq!(written.payload_bytes, 50);
    // Ten groups and the head of the segment, a sector each at least; hardly anything of them is content.
    assert!(written.journal_bytes >= 11 * 512 && written.padding_bytes > written.journal_bytes / 3);
    assert!(written.page_bytes >= 11 * (16 << 10) && written.syncs >= 11, "{written:?}");
    assert_eq!(lane.pace.budget_bytes_per_day, Some(1 << 30));
    assert_eq!(status.lanes["system"].pace.budget_bytes_per_day, None);
    assert_eq!(status.wear.budget_bytes_per_day, Some(1 << 30));
    assert!(status.device.is_none() && status.device_unknown.is_some(), "/proc is on no device");
    engine.shut_down();
}
