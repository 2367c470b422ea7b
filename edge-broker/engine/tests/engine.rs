//! The engine over a simulated disk: what it promises across restarts, power cuts and failed syncs.

use std::sync::Arc;
use std::time::Duration;

use edge_engine::{
    AlterTopicError, Body, CommittedOffset, Completion, CompletionSink, CreateTopicError, Engine,
    EngineConfig, Failure, FlashSetup, Holding, LaneRetention, LaneSetup, LaneState, Outcome,
    RecordChunk, Submission, Topic, TopicConfig, TopicKey, TopicSpec,
};
use edge_log::storage::{CrashPolicy, Fault, FaultKind, SimOperation, SimStorage};
use edge_log::{LaneConfig, Storage, WhenFull};
use edge_wire::envelope::Envelope;
use edge_wire::{Offset, PartitionId};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);

fn lane(name: &str) -> LaneSetup {
    let log = LaneConfig {
        name: name.into(),
        budget_bytes: 4 << 20,
        segment_bytes: 1 << 20,
        commit_window_us: 0,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: 256 << 10, holding: Holding::default() }
}

fn config() -> EngineConfig {
    EngineConfig {
        system: lane("system"),
        lanes: vec![lane("normal"), lane("bulk")],
        default_lane: "normal".into(),
        lane_retentions: Default::default(),
        flash: FlashSetup::default(),
    }
}

fn open(disk: &SimStorage, config: EngineConfig) -> Arc<Engine> {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    Engine::open(&storage, config).expect("a simulated disk opens").0
}

async fn topic(engine: &Engine, name: &str, partitions: u32) -> Arc<Topic> {
    let spec =
        TopicSpec { name: name.into(), partitions, lane: None, config: TopicConfig::default() };
    engine.create_topic(spec).await.expect("the topic can be made")
}

/// Sends tickets and results to the test.
struct Told(mpsc::UnboundedSender<(u64, Result<(), Failure>)>);

impl CompletionSink for Told {
    fn complete(&self, ticket: u64, outcome: &Outcome<'_>) {
        let _ = self.0.send((ticket, outcome.result));
    }
}

fn chunk(topic: &Topic, values: &[&str]) -> Body {
    let mut chunk = RecordChunk::default();
    chunk.push_envelope(Envelope::new(Some(b"key"), &[0]).view());
    for value in values {
        chunk.push(topic.streams()[0], 0, 1_000, value.as_bytes());
    }
    Body::Chunk(Arc::new(chunk))
}

async fn publish(engine: &Engine, topic: &Topic, values: &[&str]) -> Result<(), Failure> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let completion = Some(Completion { sink: Arc::new(Told(sender)), ticket: 7 });
    let submission = Submission::new(chunk(topic, values), completion);
    assert!(engine.lane_of(topic).submit(submission).await.is_ok());
    let told = tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("an outcome comes");
    let (ticket, result) = told.expect("the sink is called");
    assert_eq!(ticket, 7);
    result
}

fn values(engine: &Engine, topic: &Topic) -> Vec<String> {
    let reader = engine.lane_of(topic).reader();
    let stream = topic.streams()[0];
    let mut found = Vec::new();
    let bounds = reader.bounds(stream).expect("the stream is known");
    reader
        .read_batches(stream, bounds.log_start, &mut |batch| {
            batch
                .for_each_record(&mut |record| {
                    let value = record.value.unwrap_or_default();
                    found.push(String::from_utf8_lossy(value).into_owned());
                })
                .expect("a batch of ours can be read");
            std::ops::ControlFlow::Continue(())
        })
        .expect("the stream can be read");
    found
}

async fn stop(engine: Arc<Engine>) {
    tokio::task::spawn_blocking(move || engine.shut_down()).await.expect("the engine stops");
}

#[tokio::test]
async fn acknowledged_records_are_there_after_a_power_cut() {
    let disk = SimStorage::new(1);
    let engine = open(&disk, config());
    let telemetry = topic(&engine, "telemetry", 4).await;
    for round in 0..50 {
        publish(&engine, &telemetry, &[&format!("a{round}"), &format!("b{round}")]).await.unwrap();
    }
    let expected: Vec<String> =
        (0..50).flat_map(|round| [format!("a{round}"), format!("b{round}")]).collect();
    assert_eq!(values(&engine, &telemetry), expected);

    let after = disk.crash_image(CrashPolicy::DropAll, 3);
    let again = open(&after, config());
    let telemetry = again.topic("telemetry").expect("a topic is durable once it was made");
    assert_eq!(telemetry.partition_count(), 4);
    assert_eq!(values(&again, &telemetry), expected);
    publish(&again, &telemetry, &["c"]).await.unwrap();
    assert_eq!(values(&again, &telemetry).last().map(String::as_str), Some("c"));
    stop(again).await;
    stop(engine).await;
}

#[tokio::test]
async fn a_failed_sync_acknowledges_nothing_and_the_lane_comes_back_by_itself() {
    let disk = SimStorage::new(2);
    let engine = open(&disk, config());
    let telemetry = topic(&engine, "telemetry", 1).await;
    publish(&engine, &telemetry, &["kept"]).await.unwrap();
    disk.inject(Fault {
        operation: SimOperation::Sync,
        after: 0,
        kind: FaultKind::Device,
        sticky: true,
    });
    assert_eq!(publish(&engine, &telemetry, &["in doubt"]).await, Err(Failure::Poisoned));
    disk.heal();
    publish(&engine, &telemetry, &["after"]).await.unwrap();
    assert_eq!(engine.lane_of(&telemetry).state(), LaneState::Open);
    let found = values(&engine, &telemetry);
    assert_eq!(found.first().map(String::as_str), Some("kept"));
    assert_eq!(found.last().map(String::as_str), Some("after"));
    assert!(found.len() <= 3, "nothing is there twice: {found:?}");
    stop(engine).await;
}

#[tokio::test]
async fn state_survives_a_restart() {
    let disk = SimStorage::new(3);
    let engine = open(&disk, config());
    topic(&engine, "a", 2).await;
    topic(&engine, "b", 1).await;
    let committed = CommittedOffset { offset: 42, metadata: "note".into(), leader_epoch: -1 };
    engine
        .commit_offsets("group", vec![("a".into(), PartitionId(1), committed.clone())])
        .await
        .unwrap();
    engine.put_value(b"uplink".to_vec(), vec![1, 2, 3]).await.unwrap();
    let first = engine.allocate_producer_id().await.unwrap();
    engine.delete_topic("b").await.unwrap();
    stop(engine).await;

    let engine = open(&disk, config());
    assert!(engine.topic("a").is_some() && engine.topic("b").is_none());
    assert_eq!(engine.committed_offset("group", "a", PartitionId(1)), Some(committed));
    assert_eq!(engine.value(b"uplink"), Some(vec![1, 2, 3]));
    assert_ne!(engine.allocate_producer_id().await.unwrap(), first);
    let again = topic(&engine, "b", 1).await;
    assert!(
        again.streams()[0].0 >= 3,
        "the stream of a deleted topic is not given out again: {:?}",
        again.streams()
    );
    stop(engine).await;
}

#[tokio::test]
async fn topics_are_found_again_in_their_lane_if_the_system_lane_is_lost() {
    let disk = SimStorage::new(4);
    let engine = open(&disk, config());
    let telemetry = topic(&engine, "telemetry", 3).await;
    let producer = engine.allocate_producer_id().await.unwrap();
    publish(&engine, &telemetry, &["a", "b"]).await.unwrap();
    stop(engine).await;
    for (path, len) in disk.files() {
        if path.starts_with("lanes/system/") {
            disk.damage(&path, 0, |bytes| bytes.fill(0), usize::try_from(len).unwrap());
        }
    }
    let engine = open(&disk, config());
    let found = engine.topic("telemetry").expect("the lane knows its streams");
    assert_eq!(values(&engine, &found), ["a", "b"]);
    assert_eq!(found.partition_count(), 3, "partitions that were never written to as well");
    assert_ne!(engine.allocate_producer_id().await.unwrap(), producer, "given out before the loss");
    topic(&engine, "other", 1).await;
    stop(engine).await;

    // What was found once stays found.
    let engine = open(&disk, config());
    let found = engine.topic("telemetry").expect("the catalogue has it again");
    assert_eq!(values(&engine, &found), ["a", "b"]);
    let other = engine.topic("other").expect("made after the loss");
    assert!(found.streams().iter().all(|stream| !other.streams().contains(stream)));
    stop(engine).await;
}

#[tokio::test]
async fn a_full_lane_holds_publishes_until_the_uplink_makes_room() {
    let disk = SimStorage::new(5);
    let mut config = config();
    for lane in &mut config.lanes {
        lane.log.budget_bytes = 3 * 64 * 1024;
        lane.log.segment_bytes = 64 * 1024;
        lane.log.protect_unsent = true;
        lane.log.when_full = WhenFull::Refuse;
        lane.log.compression = edge_log::GroupCompression::None;
    }
    let engine = open(&disk, config);
    let telemetry = topic(&engine, "telemetry", 1).await;
    let lane = engine.lane_of(&telemetry).clone();
    let value = "x".repeat(8 * 1024);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let sink = Arc::new(Told(sender));
    let mut sent = 0;
    while lane.state() != LaneState::Full {
        let completion = Some(Completion { sink: sink.clone(), ticket: sent });
        let body = chunk(&telemetry, &[&value]);
        let submitted = lane.submit(Submission::new(body, completion));
        if tokio::time::timeout(Duration::from_millis(50), submitted).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 10_000, "the lane never gets full");
    }
    let dropped = lane.try_submit(Submission {
        body: chunk(&telemetry, &["qos 0"]),
        completion: None,
        droppable: true,
        give_back_at_us: None,
    });
    assert!(dropped.is_err());
    assert_eq!(lane.dropped_records(), 1);

    // Everything so far goes upstream, again and again, until the last one was acknowledged.
    let mut acknowledged = 0;
    while acknowledged < sent {
        lane.handle_upstream(lane.reader().end());
        while let Ok(told) = tokio::time::timeout(Duration::from_millis(20), receiver.recv()).await
        {
            assert_eq!(told, Some((acknowledged, Ok(()))), "in order, and none refused");
            acknowledged += 1;
        }
    }
    assert_eq!(lane.state(), LaneState::Open);
    stop(engine).await;
}

/// A lane of 256 KiB in which nothing is given up before it is upstream, full.
async fn full_lane(disk: &SimStorage) -> (Arc<Engine>, Arc<Topic>, Vec<String>) {
    let mut config = config();
    for lane in &mut config.lanes {
        lane.log.protect_unsent = true;
        lane.log.when_full = WhenFull::Refuse;
        lane.log.budget_bytes = 256 << 10;
        lane.log.segment_bytes = 64 << 10;
        lane.log.compression = edge_log::GroupCompression::None;
    }
    let engine = open(disk, config);
    let telemetry = topic(&engine, "telemetry", 1).await;
    let lane = engine.lane_of(&telemetry).clone();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let sink = Arc::new(Told(sender));
    let mut stored = Vec::new();
    // One at a time: the last is the first that waits.
    loop {
        let ticket = stored.len() as u64;
        let value = format!("{ticket:0>8000}");
        let completion = Some(Completion { sink: sink.clone(), ticket });
        lane.submit(Submission::new(chunk(&telemetry, &[&value]), completion))
            .await
            .ok()
            .expect("taken");
        stored.push(value);
        loop {
            match tokio::time::timeout(Duration::from_millis(10), receiver.recv()).await {
                Ok(told) => break assert_eq!(told, Some((ticket, Ok(())))),
                Err(_nothing) if lane.state() == LaneState::Full => {
                    return (engine, telemetry, stored);
                }
                Err(_nothing) => {}
            }
        }
    }
}

#[tokio::test]
async fn a_full_lane_gives_back_what_has_waited_long_enough_and_nothing_of_it_is_stored() {
    let disk = SimStorage::new(9);
    let (engine, telemetry, mut stored) = full_lane(&disk).await;
    let lane = engine.lane_of(&telemetry).clone();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let sink = Arc::new(Told(sender));
    let submit = |ticket, value: &str, give_back_at_us| {
        let completion = Some(Completion { sink: sink.clone(), ticket });
        let body = chunk(&telemetry, &[value]);
        lane.try_submit(Submission { give_back_at_us, ..Submission::new(body, completion) })
    };
    assert!(submit(1, "held", None).is_ok());
    assert!(submit(2, "given back", Some(1)).is_ok());
    assert!(submit(3, "patient", Some(u64::MAX)).is_ok());
    assert_eq!(receiver.recv().await, Some((2, Err(Failure::Full))));
    assert_eq!(lane.refused_records(), 1);
    assert!(lane.full_for().is_some());

    while lane.state() == LaneState::Full {
        lane.handle_upstream(lane.reader().end());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(receiver.recv().await, Some((1, Ok(()))));
    assert_eq!(receiver.recv().await, Some((3, Ok(()))));
    assert!(lane.full_for().is_none());
    stored.extend(["held".to_owned(), "patient".to_owned()]);
    let kept = values(&engine, &telemetry);
    assert!(stored.ends_with(&kept), "once, in order, and not what was given back");
    assert!(kept.len() > 2);
    stop(engine).await;
}

#[tokio::test]
async fn topics_can_be_made_while_a_lane_is_full() {
    let disk = SimStorage::new(10);
    let (engine, telemetry, _) = full_lane(&disk).await;
    let lane = engine.lane_of(&telemetry).clone();
    // The queue in front of it is full as well.
    while lane.try_submit(Submission::new(chunk(&telemetry, &["x"]), None)).is_ok() {}
    let made = tokio::time::timeout(PATIENCE, topic(&engine, "other", 2)).await;
    assert_eq!(made.unwrap().partition_count(), 2);
    assert_eq!(lane.state(), LaneState::Full);
    stop(engine).await;
}

#[tokio::test]
async fn what_is_deleted_makes_room_in_a_full_lane() {
    for whole_topic in [false, true] {
        let disk = SimStorage::new(11);
        let (engine, telemetry, _) = full_lane(&disk).await;
        let lane = engine.lane_of(&telemetry).clone();
        let deleted = async {
            if whole_topic {
                engine.delete_topic("telemetry").await.unwrap();
            } else {
                engine.delete_records(&telemetry, PartitionId(0), None).await.unwrap();
            }
            let other = topic(&engine, "other", 1).await;
            publish(&engine, &other, &["there is room"]).await.unwrap();
        };
        tokio::time::timeout(PATIENCE, deleted).await.expect("the lane takes records again");
        assert_eq!(lane.state(), LaneState::Open);
        stop(engine).await;
    }
}

#[tokio::test]
async fn what_cannot_be_a_topic_is_refused_with_the_reason() {
    let disk = SimStorage::new(6);
    let engine = open(&disk, config());
    let spec = |name: &str, partitions, lane: Option<&str>| TopicSpec {
        name: name.into(),
        partitions,
        lane: lane.map(str::to_owned),
        config: TopicConfig::default(),
    };
    let refused = |spec| {
        let engine = engine.clone();
        async move { engine.create_topic(spec).await.unwrap_err() }
    };
    assert!(matches!(refused(spec("a/b", 1, None)).await, CreateTopicError::IllegalName { .. }));
    assert!(matches!(refused(spec("a", 0, None)).await, CreateTopicError::Partitions { .. }));
    assert!(matches!(
        refused(spec("a", 1, Some("no"))).await,
        CreateTopicError::UnknownLane { .. }
    ));
    assert!(matches!(
        refused(spec("a", 1, Some("system"))).await,
        CreateTopicError::UnknownLane { .. }
    ));
    topic(&engine, "a", 1).await;
    assert!(matches!(refused(spec("a", 1, None)).await, CreateTopicError::Exists { .. }));
    stop(engine).await;
}

#[tokio::test]
async fn records_below_a_new_log_start_are_gone() {
    let disk = SimStorage::new(7);
    let engine = open(&disk, config());
    let telemetry = topic(&engine, "telemetry", 1).await;
    for value in ["a", "b", "c"] {
        publish(&engine, &telemetry, &[value]).await.unwrap();
    }
    let delete = async |before| engine.delete_records(&telemetry, PartitionId(0), before).await;
    assert_eq!(delete(Some(Offset(2))).await.unwrap(), Offset(2));
    assert_eq!(delete(Some(Offset(1))).await.unwrap(), Offset(2), "it never moves back");
    let bounds = engine.lane_of(&telemetry).reader().bounds(telemetry.streams()[0]).unwrap();
    assert_eq!(bounds.log_start, Offset(2));
    assert!(delete(Some(Offset(9))).await.is_err());
    let after = disk.crash_image(CrashPolicy::DropAll, 1);
    assert_eq!(delete(None).await.unwrap(), Offset(3), "up to the end");
    stop(engine).await;

    let again = open(&after, config());
    let telemetry = again.topic("telemetry").unwrap();
    let bounds = again.lane_of(&telemetry).reader().bounds(telemetry.streams()[0]).unwrap();
    assert_eq!(bounds.log_start, Offset(2), "what was deleted does not come back with a power cut");
    assert_eq!(values(&again, &telemetry), ["c"]);
    stop(again).await;
}

#[tokio::test]
async fn settings_that_were_changed_are_kept_and_nothing_else_of_the_topic_moves() {
    let disk = SimStorage::new(8);
    let engine = open(&disk, config());
    let before = topic(&engine, "telemetry", 2).await;
    publish(&engine, &before, &["a"]).await.unwrap();
    let changed = engine
        .alter_topic("telemetry", |config| {
            TopicKey::RetentionMs.set(config, "60000")?;
            TopicKey::CleanupPolicy.set(config, "delete")
        })
        .await
        .unwrap();
    assert_eq!(changed.config().retention_ms, Some(60_000));
    let refused = engine
        .alter_topic("telemetry", |config| {
            TopicKey::RetentionBytes.set(config, "7")?;
            TopicKey::MaxMessageBytes.set(config, "none")
        })
        .await;
    assert!(matches!(refused, Err(AlterTopicError::Value(_))));
    let unknown = engine.alter_topic("other", |_| Ok(())).await;
    assert!(matches!(unknown, Err(AlterTopicError::Unknown { .. })));

    let after = disk.crash_image(CrashPolicy::DropAll, 2);
    stop(engine).await;
    let again = open(&after, config());
    let found = again.topic("telemetry").unwrap();
    assert_eq!((found.id(), found.streams()), (before.id(), before.streams()));
    assert_eq!((found.config().retention_ms, found.config().retention_bytes), (Some(60_000), None));
    assert!(found.config().set.has(TopicKey::CleanupPolicy), "set, though to its default");
    assert_eq!(values(&again, &found), ["a"]);
    stop(again).await;
}

#[tokio::test]
async fn new_topics_keep_what_their_lane_says_unless_they_say_it_themselves() {
    let disk = SimStorage::new(1);
    let kept = LaneRetention { ms: Some(86_400_000), bytes: Some(1 << 20) };
    let lane_retentions = [("normal".to_owned(), kept)].into();
    let engine = open(&disk, EngineConfig { lane_retentions, ..config() });
    let make = async |name: &str, lane: Option<&str>, said: &[(TopicKey, &str)]| {
        let mut config = TopicConfig::default();
        for (key, value) in said {
            key.set(&mut config, value).expect("a legal value");
        }
        let (name, lane) = (name.to_owned(), lane.map(str::to_owned));
        let spec = TopicSpec { name, partitions: 1, lane, config };
        let topic = engine.create_topic(spec).await.expect("the topic can be made");
        (topic.config().retention_ms, topic.config().retention_bytes)
    };
    assert_eq!(make("a", None, &[]).await, (kept.ms, kept.bytes));
    assert_eq!(
        make("b", None, &[(TopicKey::RetentionMs, "5000")]).await,
        (Some(5_000), kept.bytes)
    );
    assert_eq!(make("c", None, &[(TopicKey::RetentionBytes, "-1")]).await, (kept.ms, None));
    assert_eq!(make("d", Some("bulk"), &[]).await, (None, None));
    engine.shut_down();
    let engine = open(&disk.crash_image(CrashPolicy::DropAll, 1), config());
    let topic = engine.topic("a").expect("it was durable");
    assert_eq!(topic.config().retention_ms, kept.ms);
}
