//! OffsetFetch: what groups have committed. A partition without a commit is answered with offset -1.

use edge_engine::CommittedOffset;
use edge_wire::PartitionId;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::session::Session;

/// From this version on several groups can be asked for at once.
const BATCHED_FROM_VERSION: i16 = 8;

pub(super) fn handle(
    session: &Session,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= BATCHED_FROM_VERSION {
        let groups = request.groups.into_iter().map(|group| {
            let topics = topics_of(session, &group);
            OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_topics(topics)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let asked = request.topics.map(|topics| {
        let asked = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        });
        asked.collect()
    });
    let group =
        OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(asked);
    let topics = topics_of(session, &group).into_iter().map(single);
    OffsetFetchResponse::default().with_topics(topics.collect())
}

fn topics_of(session: &Session, group: &OffsetFetchRequestGroup) -> Vec<OffsetFetchResponseTopics> {
    let engine = session.engine();
    let Some(asked) = &group.topics else { return everything(session, &group.group_id) };
    let topics = asked.iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().map(|index| {
            let committed = u32::try_from(*index).ok().and_then(|partition| {
                engine.committed_offset(&group.group_id, &topic.name, PartitionId(partition))
            });
            answer(*index, committed)
        });
        OffsetFetchResponseTopics::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    topics.collect()
}

fn everything(session: &Session, group: &str) -> Vec<OffsetFetchResponseTopics> {
    let all = session.engine().committed_offsets(group);
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    // They come by topic.
    for (name, partition, committed) in all {
        let index = i32::try_from(partition.0).unwrap_or(i32::MAX);
        let answer = answer(index, Some(committed));
        match topics.last_mut() {
            Some(topic) if **topic.name == *name => topic.partitions.push(answer),
            _ => topics.push(
                OffsetFetchResponseTopics::default()
                    .with_name(TopicName(StrBytes::from_string(name)))
                    .with_partitions(vec![answer]),
            ),
        }
    }
    topics
}

fn answer(index: i32, committed: Option<CommittedOffset>) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match committed {
        Some(committed) => answer
            .with_committed_offset(i64::try_from(committed.offset).unwrap_or(i64::MAX))
            .with_committed_leader_epoch(committed.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(committed.metadata))),
        None => answer
            .with_committed_offset(-1)
            .with_committed_leader_epoch(-1)
            .with_metadata(Some(StrBytes::default())),
    }
}

/// The older form of the same answer.
fn single(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition.partition_index)
            .with_committed_offset(partition.committed_offset)
            .with_committed_leader_epoch(partition.committed_leader_epoch)
            .with_metadata(partition.metadata)
            .with_error_code(partition.error_code)
    });
    OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
}
