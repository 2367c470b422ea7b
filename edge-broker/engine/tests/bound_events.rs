//! Events that go with a record: one is durable exactly if the other is, whatever becomes of the group.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use edge_engine::{
    Body, Completion, CompletionSink, EVENT_TAGS_FROM, Engine, EngineConfig, EventOwner,
    FlashSetup, Holding, LaneEvents, LaneSetup, LaneState, Outcome, RecordChunk, Submission, Topic,
    TopicConfig, TopicSpec,
};
use edge_log::storage::{CrashPolicy, SimStorage};
use edge_log::{LaneConfig, Storage, WhenFull};
use edge_wire::envelope::Envelope;
use tokio::sync::mpsc;

const TAG: u16 = EVENT_TAGS_FROM + 7;
const PATIENCE: Duration = Duration::from_secs(20);

/// Remembers the numbers of all events, as records have them.
#[derive(Default)]
struct Numbers(Mutex<Vec<u32>>);

impl Numbers {
    fn add<'e>(&self, events: impl Iterator<Item = &'e [u8]>) {
        let numbers = events.map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four")));
        self.0.lock().expect("no panic").extend(numbers);
    }

    fn sorted(&self) -> Vec<u32> {
        let mut all = self.0.lock().expect("no panic").clone();
        all.sort_unstable();
        all.dedup();
        all
    }
}

impl EventOwner for Numbers {
    fn recovered(&self, lane: &str, found: &LaneEvents<'_>) {
        if lane == "normal" {
            self.0.lock().expect("no panic").clear();
            self.add(found.checkpoint.chunks(4));
            self.add(found.with_tag(TAG));
        }
    }

    fn committed(&self, lane: &str, events: &[(u16, Vec<u8>)]) {
        if lane == "normal" {
            self.add(events.iter().map(|(_, bytes)| bytes.as_slice()));
        }
    }

    fn checkpoint(&self, lane: &str, out: &mut Vec<u8>) {
        if lane == "normal" {
            out.extend(self.sorted().into_iter().flat_map(u32::to_le_bytes));
        }
    }
}

fn lane(name: &str, when_full: WhenFull) -> LaneSetup {
    let log = LaneConfig {
        name: name.into(),
        budget_bytes: 3 << 16,
        segment_bytes: 1 << 16,
        group_bytes_max: 2 << 10,
        commit_window_us: 0,
        when_full,
        protect_unsent: when_full == WhenFull::Refuse,
        ..LaneConfig::default()
    };
    LaneSetup { log, queue_bytes: 256 << 10, holding: Holding::default() }
}

fn open(disk: &SimStorage, when_full: WhenFull) -> (Arc<Engine>, Arc<Numbers>) {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let config = EngineConfig {
        system: lane("system", WhenFull::DropOldest { unsent: true }),
        lanes: vec![lane("normal", when_full)],
        default_lane: "normal".into(),
        flash: FlashSetup::default(),
        lane_retentions: Default::default(),
    };
    let numbers = Arc::new(Numbers::default());
    let opened = Engine::open_with_owner(&storage, config, None, Some(numbers.clone()));
    (opened.expect("a simulated disk opens").0, numbers)
}

async fn topic(engine: &Engine) -> Arc<Topic> {
    let config = TopicConfig::default();
    let spec = TopicSpec { name: "t".into(), partitions: 1, lane: None, config };
    engine.create_topic(spec).await.expect("the topic can be made")
}

/// Records with an event each; the value begins with its number.
fn chunk(topic: &Topic, numbers: std::ops::Range<u32>, value_bytes: usize) -> Body {
    let mut chunk = RecordChunk::default();
    chunk.push_envelope(Envelope::new(None, &[0]).view());
    for number in numbers {
        let mut value = number.to_le_bytes().to_vec();
        value.resize(value_bytes, b'x');
        chunk.push(topic.streams()[0], 0, 1_000, &value);
        chunk.push_event(TAG, &number.to_le_bytes());
    }
    Body::Chunk(Arc::new(chunk))
}

struct Told(mpsc::UnboundedSender<bool>);

impl CompletionSink for Told {
    fn complete(&self, _ticket: u64, outcome: &Outcome<'_>) {
        let _ = self.0.send(outcome.result.is_ok());
    }
}

fn stored(engine: &Engine) -> Vec<u32> {
    let Some(topic) = engine.topic("t") else { return Vec::new() };
    let reader = engine.lane_of(&topic).reader();
    let stream = topic.streams()[0];
    let Some(bounds) = reader.bounds(stream) else { return Vec::new() };
    let mut numbers = Vec::new();
    let read = reader.read_batches(stream, bounds.log_start, &mut |batch| {
        let visited = batch.for_each_record(&mut |record| {
            let value = record.value.unwrap_or_default();
            numbers.push(u32::from_le_bytes(value[..4].try_into().expect("four")));
        });
        visited.expect("a batch of ours");
        ControlFlow::Continue(())
    });
    read.expect("the stream can be read");
    numbers
}

fn stop(engine: &Engine) {
    engine.shut_down();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_power_cut_a_record_has_its_event_and_an_event_its_record() {
    let disk = SimStorage::new(3);
    let images: Arc<Mutex<Vec<SimStorage>>> = Arc::default();
    let (engine, _) = open(&disk, WhenFull::DropOldest { unsent: true });
    let topic = topic(&engine).await;
    let kept = images.clone();
    let mut seed = 0;
    disk.on_operation(Box::new(move |_, disk| {
        seed += 1;
        let policy = CrashPolicy::ALL[seed as usize % CrashPolicy::ALL.len()];
        kept.lock().expect("no panic").push(disk.crash_image(policy, seed));
    }));
    let (sender, mut told) = mpsc::unbounded_channel();
    let sink = Arc::new(Told(sender));
    let mut next = 0;
    // Chunks of many sizes, most of them larger than what a group has left.
    for count in [1, 30, 7, 90, 2, 55] {
        let completion = Some(Completion { sink: sink.clone(), ticket: 0 });
        let body = chunk(&topic, next..next + count, 4 + (count as usize * 13) % 200);
        next += count;
        assert!(engine.lane_of(&topic).try_submit(Submission::new(body, completion)).is_ok());
    }
    for _ in 0..6 {
        let told = tokio::time::timeout(PATIENCE, told.recv()).await;
        assert_eq!(told.expect("an outcome comes"), Some(true));
    }
    stop(&engine);
    let images = std::mem::take(&mut *images.lock().expect("no panic"));
    let mut lengths = std::collections::BTreeSet::new();
    for image in &images {
        let (engine, numbers) = open(image, WhenFull::DropOldest { unsent: true });
        let stored = stored(&engine);
        assert_eq!(numbers.sorted(), stored);
        lengths.insert(stored.len());
        stop(&engine);
    }
    assert!(lengths.len() > 6, "{lengths:?}: cuts between the groups of one chunk");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_lane_gives_back_leaves_no_event_behind() {
    let disk = SimStorage::new(4);
    let (engine, numbers) = open(&disk, WhenFull::Refuse);
    let topic = topic(&engine).await;
    let lane = engine.lane_of(&topic).clone();
    let (sender, mut told) = mpsc::unbounded_channel();
    let sink = Arc::new(Told(sender));
    let mut next = 0;
    let mut submit = |count: u32, give_back_at_us| {
        let completion = Some(Completion { sink: sink.clone(), ticket: 0 });
        let body = chunk(&topic, next..next + count, 1_500);
        next += count;
        let submission = Submission { give_back_at_us, ..Submission::new(body, completion) };
        assert!(lane.try_submit(submission).is_ok());
    };
    loop {
        submit(1, None);
        match tokio::time::timeout(Duration::from_millis(20), told.recv()).await {
            Ok(told) => assert_eq!(told, Some(true)),
            Err(_nothing) if lane.state() == LaneState::Full => break,
            Err(_nothing) => assert_eq!(told.recv().await, Some(true)),
        }
    }
    // The one that filled it waits; these two are given back.
    submit(1, Some(1));
    assert_eq!(tokio::time::timeout(PATIENCE, told.recv()).await, Ok(Some(false)));
    submit(2, Some(1));
    assert_eq!(tokio::time::timeout(PATIENCE, told.recv()).await, Ok(Some(false)));
    // Something that is no record makes a group: what was given back is not in it.
    let (sender, mut event_told) = mpsc::unbounded_channel();
    let completion = Some(Completion { sink: Arc::new(Told(sender)), ticket: 0 });
    let event = Body::Events(vec![(TAG, 9_999_u32.to_le_bytes().to_vec())]);
    assert!(lane.try_submit(Submission::new(event, completion)).is_ok());
    while lane.state() == LaneState::Full {
        lane.handle_upstream(lane.reader().end());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(tokio::time::timeout(PATIENCE, told.recv()).await, Ok(Some(true)));
    assert_eq!(tokio::time::timeout(PATIENCE, event_told.recv()).await, Ok(Some(true)));
    let held = next - 4;
    let mut expected: Vec<u32> = (0..=held).chain([9_999]).collect();
    assert_eq!(numbers.sorted(), expected);
    stop(&engine);
    let (again, numbers) = open(&disk.crash_image(CrashPolicy::DropAll, 1), WhenFull::Refuse);
    assert_eq!(numbers.sorted(), expected, "nor after a restart");
    expected.pop();
    assert!(expected.ends_with(&stored(&again)), "records go with the ring, from the front");
    stop(&again);
}
