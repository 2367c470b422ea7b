//! Directories of lanes that were taken away: told, counted, and no offset that is known of given out twice.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_engine::tools::lost_lanes;
use edge_engine::{
    Body, CommittedOffset, Completion, CompletionSink, Engine, EngineConfig, FlashSetup, Holding,
    LaneSetup, OpenReport, Outcome, RecordChunk, StoredEnds, Submission, Topic, TopicConfig,
    TopicSpec,
};
use edge_log::storage::FileStorage;
use edge_log::{GapReason, LaneConfig, Storage};
use edge_wire::envelope::Envelope;
use edge_wire::{Offset, PartitionId, StreamId};
use tokio::sync::mpsc;

const PATIENCE: Duration = Duration::from_secs(20);
/// The value is the stream and its end, one byte each.
const ENDS: StoredEnds = StoredEnds {
    key: b"ends",
    decode: |bytes| vec![(StreamId(u32::from(bytes[0])), Offset(u64::from(bytes[1])))],
};

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

fn open(root: &Path) -> (Arc<Engine>, OpenReport) {
    let storage: Arc<dyn Storage> =
        Arc::new(FileStorage::open(root).expect("nothing fails on this disk"));
    let config = EngineConfig {
        system: lane("system"),
        lanes: vec![lane("normal"), lane("bulk")],
        default_lane: "normal".into(),
        lane_retentions: Default::default(),
        flash: FlashSetup::default(),
    };
    Engine::open_with_ends(&storage, config, &ENDS).expect("nothing fails on this disk")
}

fn lost(root: &Path) -> Vec<String> {
    let found =
        lost_lanes(&FileStorage::open(root).expect("nothing fails on this disk"), Some(&ENDS))
            .expect("nothing fails on this disk");
    found.into_iter().map(|lost| lost.lane).collect()
}

async fn topic(engine: &Engine, name: &str, lane: &str) -> Arc<Topic> {
    let config = TopicConfig::default();
    let spec = TopicSpec { name: name.into(), partitions: 1, lane: Some(lane.into()), config };
    engine.create_topic(spec).await.expect("nothing fails on this disk")
}

struct Told(mpsc::UnboundedSender<bool>);

impl CompletionSink for Told {
    fn complete(&self, _ticket: u64, outcome: &Outcome<'_>) {
        let _ = self.0.send(outcome.result.is_ok());
    }
}

async fn publish(engine: &Engine, topic: &Topic, records: usize) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut chunk = RecordChunk::default();
    chunk.push_envelope(Envelope::new(Some(b"key"), &[0]).view());
    for _ in 0..records {
        chunk.push(topic.streams()[0], 0, 1_000, b"value");
    }
    let completion = Some(Completion { sink: Arc::new(Told(sender)), ticket: 0 });
    let submission = Submission::new(Body::Chunk(Arc::new(chunk)), completion);
    assert!(engine.lane_of(topic).submit(submission).await.is_ok());
    let told =
        tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("nothing fails on this disk");
    assert_eq!(told, Some(true));
}

fn bounds(engine: &Engine, topic: &str) -> (u64, u64) {
    let topic = engine.topic(topic).expect("nothing fails on this disk");
    let bounds = engine
        .lane_of(&topic)
        .reader()
        .bounds(topic.streams()[0])
        .expect("nothing fails on this disk");
    (bounds.log_start.0, bounds.durable_end.0)
}

async fn commit(engine: &Engine, topic: &str, offset: u64) {
    let committed = CommittedOffset { offset, metadata: String::new(), leader_epoch: -1 };
    let entry = (topic.to_owned(), PartitionId(0), committed);
    engine.commit_offsets("group", vec![entry]).await.expect("nothing fails on this disk");
}

async fn stop(engine: Arc<Engine>) {
    tokio::task::spawn_blocking(move || engine.shut_down())
        .await
        .expect("nothing fails on this disk");
}

/// Ten records in each of three topics of lane bulk: consumed up to 7, sent up to 9, and nothing known.
async fn fill(root: &Path) {
    let (engine, report) = open(root);
    assert_eq!(report.lanes_lost, []);
    let kept = topic(&engine, "kept", "normal").await;
    publish(&engine, &kept, 3).await;
    for name in ["consumed", "sent", "unknown"] {
        let topic = topic(&engine, name, "bulk").await;
        publish(&engine, &topic, 10).await;
        if name == "sent" {
            let stream = u8::try_from(topic.streams()[0].0).expect("nothing fails on this disk");
            engine
                .put_value(ENDS.key.to_vec(), vec![stream, 9])
                .await
                .expect("nothing fails on this disk");
        }
    }
    commit(&engine, "consumed", 7).await;
    // No stream comes this far: whoever commits that does not move where offsets go on.
    commit(&engine, "unknown", 1 << 60).await;
    stop(engine).await;
    assert_eq!(lost(root), [""; 0]);
}

#[tokio::test]
async fn offsets_of_a_lane_that_is_gone_are_told_and_not_given_out_again() {
    for is_dir_left in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fill(root).await;
        fs::remove_dir_all(root.join("lanes/bulk")).unwrap();
        if is_dir_left {
            fs::create_dir(root.join("lanes/bulk")).unwrap();
        }
        assert_eq!(lost(root), ["bulk"]);

        let (engine, report) = open(root);
        let [found] = &report.lanes_lost[..] else { panic!("{:?}", report.lanes_lost) };
        assert_eq!(
            (found.lane.as_str(), found.lost_offsets, found.unbounded_streams),
            ("bulk", 16, 1)
        );
        assert_eq!(found.topics, ["consumed", "sent", "unknown"]);
        let status = engine.status(root);
        assert!(status.lanes["bulk"].lost.as_ref().is_some_and(|lost| lost.contains("consumed")));
        assert!(status.lanes["normal"].lost.is_none());
        assert_eq!(bounds(&engine, "kept"), (0, 3));
        assert_eq!(bounds(&engine, "consumed"), (7, 7));
        assert_eq!(bounds(&engine, "sent"), (9, 9));
        assert_eq!(bounds(&engine, "unknown"), (0, 0));
        let unknown = engine.topic("unknown").unwrap();
        publish(&engine, &unknown, 1).await;
        stop(engine).await;

        // Of what was told before its stream was used again as well.
        let (engine, report) = open(root);
        assert_eq!(report.lanes_lost, []);
        let sent = engine.topic("sent").unwrap();
        publish(&engine, &sent, 2).await;
        assert_eq!(bounds(&engine, "sent"), (9, 11));
        assert_eq!(bounds(&engine, "consumed"), (7, 7));
        let gaps = engine.lane_by_name("bulk").unwrap().reader().gaps();
        let mut ends: Vec<u64> = gaps.iter().map(|gap| gap.to.0).collect();
        ends.sort_unstable();
        assert_eq!(ends, [7, 9]);
        assert!(gaps.iter().all(|gap| gap.reason == GapReason::LaneLost && gap.from.0 == 0));
        assert_eq!(engine.lane_by_name("bulk").unwrap().stats().lost_records, 16);
        stop(engine).await;
        assert_eq!(lost(root), [""; 0]);
    }
}

#[tokio::test]
async fn topics_are_found_again_if_the_directory_of_the_system_lane_is_gone() {
    for is_dir_left in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fill(root).await;
        fs::remove_dir_all(root.join("lanes/system")).unwrap();
        if is_dir_left {
            fs::create_dir(root.join("lanes/system")).unwrap();
        }
        assert_eq!(lost(root), ["system"]);
        let (engine, report) = open(root);
        let [found] = &report.lanes_lost[..] else { panic!("{:?}", report.lanes_lost) };
        assert_eq!(found.lane, "system");
        assert_eq!(report.topics_adopted.len(), 4);
        assert_eq!((bounds(&engine, "kept"), bounds(&engine, "sent")), ((0, 3), (0, 10)));
        stop(engine).await;

        let (engine, report) = open(root);
        assert!(report.lanes_lost.is_empty() && report.topics_adopted.is_empty());
        assert_eq!(bounds(&engine, "consumed"), (0, 10));
        stop(engine).await;
        assert_eq!(lost(root), [""; 0]);
    }
}

#[tokio::test]
async fn a_lane_that_was_never_written_to_is_not_taken_for_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (engine, _) = open(folder.path());
    topic(&engine, "empty", "bulk").await;
    stop(engine).await;
    assert_eq!(lost(folder.path()), [""; 0]);
    let (engine, report) = open(folder.path());
    assert_eq!(report.lanes_lost, []);
    assert_eq!(bounds(&engine, "empty"), (0, 0));
    stop(engine).await;
}
