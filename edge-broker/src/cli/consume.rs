//! `edge-broker consume`: records to lines.
//!
//! Without `--follow` it ends at the records that were there when it began. Partitions are read by a few workers, each
//! with a connection of its own, since Kafka answers one connection in order; within a partition the order is that of
//! the log. Memory: a fetch for each worker and a few answers that wait to be printed.

use std::time::Duration;

use edge_wire::{Offset, PartitionId};
use tokio::sync::mpsc;
use tokio::time::Instant;
use uplink::client::{
    At, Client, ErrorCode, FetchLimits, FetchedRecord, PartitionReader, RequestError,
};

use crate::args::{BrokerArgs, ConsumeArgs, StartOffset};
use crate::cli::Failure;
use crate::cli::broker::{self, PATIENCE, RETRY_PAUSE};
use crate::cli::output::{Output, tell};
use crate::cli::record_json::RecordJson;

const WORKERS_MAX: usize = 4;
/// How long an idle round over all partitions of a worker may take.
const ROUND_WAIT: Duration = Duration::from_millis(500);
const FETCH_BYTES: u32 = 1 << 20;
/// Answers without records below the end after which the rest counts as lost: the offsets there hold nothing.
const EMPTY_ANSWERS_MAX: u32 = 3;

pub(super) async fn run(args: &ConsumeArgs) -> Result<(), Failure> {
    if args.count == Some(0) {
        return Ok(());
    }
    let client = broker::connect(&args.broker).await?;
    let mut partitions = wanted_partitions(&client, args).await?;
    let workers = partitions.len().min(WORKERS_MAX);
    let (sender, answers) = mpsc::channel(workers.max(1));
    for worker in 0..workers {
        let share = partitions.split_off(partitions.len() - partitions.len() / (workers - worker));
        tokio::task::spawn_local(work(
            Work {
                broker: args.broker.clone(),
                topic: args.topic.clone(),
                partitions: share,
                start: start(args),
                follow: args.follow,
            },
            sender.clone(),
        ));
    }
    drop(sender);
    print_records(args, answers).await
}

/// Records of one partition.
struct Answer {
    partition: u32,
    records: Vec<FetchedRecord>,
}

type Answers = mpsc::Sender<Result<Answer, Failure>>;

struct Work {
    broker: BrokerArgs,
    topic: String,
    partitions: Vec<u32>,
    start: Start,
    follow: bool,
}

#[derive(Clone, Copy)]
enum Start {
    Offset(StartOffset),
    Time(i64),
}

fn start(args: &ConsumeArgs) -> Start {
    args.since.map_or(Start::Offset(args.offset), |moment| Start::Time(moment.0))
}

async fn wanted_partitions(client: &Client, args: &ConsumeArgs) -> Result<Vec<u32>, Failure> {
    let mut wanted = broker::chosen(client, &args.topic, &args.partition).await?;
    wanted.sort_unstable();
    wanted.dedup();
    Ok(wanted)
}

async fn print_records(
    args: &ConsumeArgs,
    mut answers: mpsc::Receiver<Result<Answer, Failure>>,
) -> Result<(), Failure> {
    let mut output = Output::new();
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        // Whoever reads along sees everything before we wait.
        let answer = match answers.try_recv() {
            Ok(answer) => answer,
            Err(mpsc::error::TryRecvError::Disconnected) => break,
            Err(mpsc::error::TryRecvError::Empty) => {
                output.flush()?;
                match answers.recv().await {
                    Some(answer) => answer,
                    None => break,
                }
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                output.finish()?;
                return Err(failure);
            }
        };
        for record in &answer.records {
            if left == 0 {
                break;
            }
            left -= 1;
            print_record(&mut output, args, answer.partition, record)?;
        }
    }
    output.finish()
}

fn print_record(
    output: &mut Output,
    args: &ConsumeArgs,
    partition: u32,
    record: &FetchedRecord,
) -> Result<(), Failure> {
    if args.json {
        let text = serde_json::to_string(&RecordJson::new(&args.topic, partition, record))
            .map_err(|error| Failure::Failed(format!("cannot write JSON: {error}")))?;
        return output.line(&text);
    }
    if args.keys {
        output.write(record.key.as_deref().unwrap_or_default())?;
        output.write(b"\t")?;
    }
    output.write(record.value.as_deref().unwrap_or_default())?;
    output.write(b"\n")
}

/// Reads its partitions in turn and hands on what it finds, until the end or until nobody takes it.
async fn work(work: Work, answers: Answers) {
    if let Err(failure) = read_partitions(&work, &answers).await {
        let _ = answers.send(Err(failure)).await;
    }
}

async fn read_partitions(work: &Work, answers: &Answers) -> Result<(), Failure> {
    let client = broker::connect(&work.broker).await?;
    let share = u32::try_from(work.partitions.len()).unwrap_or(u32::MAX).max(1);
    let limits = FetchLimits { max_wait: ROUND_WAIT / share, min_bytes: 1, max_bytes: FETCH_BYTES };
    let mut reading = Vec::new();
    for partition in &work.partitions {
        let reading_one = Reading::begin(&client, work, PartitionId(*partition), limits).await?;
        if !reading_one.is_done() {
            reading.push(reading_one);
        }
    }
    while !reading.is_empty() {
        for one in &mut reading {
            let records = one.read(work).await?;
            let partition = one.reader.partition().0;
            if !records.is_empty() && answers.send(Ok(Answer { partition, records })).await.is_err()
            {
                return Ok(());
            }
        }
        if answers.is_closed() {
            return Ok(());
        }
        reading.retain(|one| !one.is_done());
    }
    Ok(())
}

/// One partition being read.
struct Reading {
    reader: PartitionReader,
    /// Where to stop; none with `--follow`.
    end: Option<Offset>,
    empty_answers: u32,
}

impl Reading {
    async fn begin(
        client: &Client,
        work: &Work,
        partition: PartitionId,
        limits: FetchLimits,
    ) -> Result<Self, Failure> {
        let look = async |at| {
            broker::patiently(async || client.list_offsets(&work.topic, partition, at).await).await
        };
        let end = look(At::Latest).await?.map_or(Offset(0), |found| found.offset);
        let earliest = look(At::Earliest).await?.map_or(Offset(0), |found| found.offset);
        let from = match work.start {
            Start::Offset(StartOffset::Earliest) => earliest,
            Start::Offset(StartOffset::Latest) => end,
            Start::Offset(StartOffset::At(offset)) => {
                let wanted = Offset(offset);
                if wanted > end {
                    return Err(Failure::Failed(format!(
                        "partition {partition} of {} ends at {end}; there is no offset {wanted} yet",
                        work.topic
                    )));
                }
                if wanted < earliest {
                    tell(&format!(
                        "partition {partition} begins at {earliest}: {wanted} is no longer kept"
                    ));
                }
                wanted.max(earliest)
            }
            // No record is that late: what follows is.
            Start::Time(ms) => look(At::Time(ms)).await?.map_or(end, |found| found.offset),
        };
        Ok(Self {
            reader: PartitionReader::new(client.clone(), &work.topic, partition, from, limits),
            end: (!work.follow).then_some(end),
            empty_answers: 0,
        })
    }

    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.reader.next_offset() >= end)
            || (self.end.is_some() && self.empty_answers >= EMPTY_ANSWERS_MAX)
    }

    async fn read(&mut self, work: &Work) -> Result<Vec<FetchedRecord>, Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.reader.read().await {
                Ok(mut records) => {
                    self.empty_answers =
                        if records.is_empty() { self.empty_answers + 1 } else { 0 };
                    if let Some(end) = self.end {
                        records.retain(|record| record.offset < end);
                    }
                    return Ok(records);
                }
                Err(error) if error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                    return Err(Failure::Failed(format!(
                        "offset {} of partition {} of {} was removed while reading; begin again with --offset earliest",
                        self.reader.next_offset(),
                        self.reader.partition(),
                        work.topic
                    )));
                }
                // Who follows waits for a broker that restarts; who does not has something better to do.
                Err(error) if is_passing(&error) && (work.follow || Instant::now() < deadline) => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn is_passing(error: &RequestError) -> bool {
    error.is_retriable() && !broker::is_unknown_topic(error)
}
