//! Sending: batches to their leaders, in order, several partitions in one request.
//!
//! A router finds the leader of each batch; a task for each broker gathers what waits for it into requests. What
//! cannot be sent is answered with [`Answer::Unknown`]: the replicator sends it again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge_wire::PartitionId;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use uplink_core::replicator::Answer;

use super::run::Event;
use crate::client::{Acks, Client, NodeId, PartitionBatch, ProducePipe, RequestError};

/// Requests in flight to one broker. More would not make it faster, fewer would: answers come in order.
const REQUESTS_MAX: usize = 5;
/// Bytes gathered into one request.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// How long a broker may wait for its copies before it answers.
const PRODUCE_LIMIT: Duration = Duration::from_secs(20);

/// A batch to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) send: u64,
    pub(super) topic: Arc<str>,
    pub(super) partition: PartitionId,
    pub(super) batch: Bytes,
}

/// The router's end. Dropping it ends all tasks.
#[derive(Debug)]
pub(super) struct Sender {
    queue: mpsc::UnboundedSender<Outgoing>,
    _tasks: JoinSet<()>,
}

impl Sender {
    pub(super) fn start(client: Client, events: mpsc::UnboundedSender<Event>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(route(client, waiting, events));
        Self { queue, _tasks: tasks }
    }

    /// Gives the batch back if the router is gone.
    pub(super) fn send(&self, outgoing: Outgoing) -> Result<(), u64> {
        self.queue.send(outgoing).map_err(|refused| refused.0.send)
    }
}

async fn route(
    client: Client,
    mut waiting: mpsc::UnboundedReceiver<Outgoing>,
    events: mpsc::UnboundedSender<Event>,
) {
    let mut brokers: HashMap<NodeId, mpsc::UnboundedSender<Outgoing>> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(outgoing) = waiting.recv().await {
        let node = match client.leader(&outgoing.topic, outgoing.partition).await {
            Ok(node) => node,
            Err(error) => {
                fail(&events, [outgoing.send], &error);
                continue;
            }
        };
        let broker = brokers.entry(node).or_insert_with(|| {
            let (queue, waiting) = mpsc::unbounded_channel();
            tasks.spawn(serve(client.clone(), node, waiting, events.clone()));
            queue
        });
        // The task ends only with us.
        let _ = broker.send(outgoing);
    }
}

/// Sends to one broker.
async fn serve(
    client: Client,
    node: NodeId,
    mut waiting: mpsc::UnboundedReceiver<Outgoing>,
    events: mpsc::UnboundedSender<Event>,
) {
    let room = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut pipe: Option<ProducePipe> = None;
    let mut answers = JoinSet::new();
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        while answers.try_join_next().is_some() {}
        let mut request = vec![first];
        let mut bytes = request[0].batch.len();
        // What came meanwhile goes along, one batch for each partition.
        let mut taken = HashSet::from([(Arc::clone(&request[0].topic), request[0].partition)]);
        while let Ok(next) = waiting.try_recv() {
            let is_new = taken.insert((Arc::clone(&next.topic), next.partition));
            if !is_new || bytes + next.batch.len() > REQUEST_BYTES_MAX {
                left_over = Some(next);
                break;
            }
            bytes += next.batch.len();
            request.push(next);
        }
        if pipe.as_ref().is_none_or(ProducePipe::is_closed) {
            pipe = match client.produce_pipe(node).await {
                Ok(pipe) => Some(pipe),
                Err(error) => {
                    forget_leaders(&client, &request);
                    fail(&events, request.iter().map(|entry| entry.send), &error);
                    continue;
                }
            };
        }
        let Some(open) = &pipe else { continue };
        let batches = request
            .iter()
            .map(|entry| PartitionBatch {
                topic: entry.topic.to_string(),
                partition: entry.partition,
                batch: entry.batch.clone(),
            })
            .collect();
        match open.submit(batches, Acks::All, PRODUCE_LIMIT) {
            Ok(ticket) => {
                let client = client.clone();
                let events = events.clone();
                answers.spawn(async move {
                    let result = ticket.wait().await;
                    drop(permit);
                    answer(&client, &events, request, result);
                });
            }
            Err(error) => {
                pipe = None;
                forget_leaders(&client, &request);
                fail(&events, request.iter().map(|entry| entry.send), &error);
            }
        }
    }
}

fn answer(
    client: &Client,
    events: &mpsc::UnboundedSender<Event>,
    request: Vec<Outgoing>,
    result: Result<Vec<crate::client::PartitionAck>, RequestError>,
) {
    let acks = match result {
        Ok(acks) => acks,
        Err(error) => {
            forget_leaders(client, &request);
            fail(events, request.iter().map(|entry| entry.send), &error);
            return;
        }
    };
    let acks: HashMap<(&str, PartitionId), _> =
        acks.iter().map(|ack| ((ack.topic.as_str(), ack.partition), &ack.result)).collect();
    for entry in request {
        let answer = match acks.get(&(&*entry.topic, entry.partition)) {
            Some(Ok(_)) => Answer::Acknowledged,
            Some(Err(error)) => {
                if error.code.is_stale_metadata() {
                    client.forget_leaders(&entry.topic);
                }
                let reason =
                    format!("upstream refused {}/{}: {error}", entry.topic, entry.partition);
                Answer::Refused { code: error.code.0, reason }
            }
            None => Answer::Unknown { reason: "the answer leaves a partition out".to_owned() },
        };
        let _ = events.send(Event::Answered { send: entry.send, answer });
    }
}

fn forget_leaders(client: &Client, request: &[Outgoing]) {
    for entry in request {
        client.forget_leaders(&entry.topic);
    }
}

fn fail(
    events: &mpsc::UnboundedSender<Event>,
    sends: impl IntoIterator<Item = u64>,
    error: &RequestError,
) {
    for send in sends {
        // A leader that is not known is the broker's word, not a broken link.
        let answer = match error {
            RequestError::Broker { error: broker, .. } => {
                Answer::Refused { code: broker.code.0, reason: error.to_string() }
            }
            RequestError::NoLeader { .. } => Answer::Refused { code: 5, reason: error.to_string() },
            _ => Answer::Unknown { reason: error.to_string() },
        };
        let _ = events.send(Event::Answered { send, answer });
    }
}
