//! OffsetCommit for groups without members; durable before the answer.
//!
//! Groups with members have generations and member ids, which nobody has been given here: such a commit is
//! refused, so that a client learns it has no membership rather than overwriting somebody's position.

use edge_engine::CommittedOffset;
use edge_wire::PartitionId;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::fault::Fault;
use crate::session::Session;

/// Generation of a commit from outside of any membership.
const NO_GENERATION: i32 = -1;
/// Kafka's `offset.metadata.max.bytes`.
const METADATA_BYTES_MAX: usize = 4_096;

pub(super) async fn handle(
    session: &Session,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let refused = refusal(&request);
    let mut accepted = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let known = session.engine().topic(&topic.name);
        let partition_count = known.map_or(0, |known| known.partition_count());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let answer = OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index);
            let checked = match refused {
                Some(error) => Err(error),
                None => check(&partition, partition_count),
            };
            partitions.push(match checked {
                Ok((index, committed)) => {
                    accepted.push((topic.name.to_string(), index, committed));
                    answer
                }
                Err(error) => answer.with_error_code(error.code()),
            });
        }
        topics.push(
            OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions),
        );
    }
    if !accepted.is_empty() {
        let committed = session.engine().commit_offsets(&request.group_id, accepted).await;
        if let Err(error) = committed {
            tracing::warn!(group = %**request.group_id, %error, "kafka: offsets could not be committed");
            fail_accepted(&mut topics, Fault::from(&error).code());
        }
    }
    OffsetCommitResponse::default().with_topics(topics)
}

fn refusal(request: &OffsetCommitRequest) -> Option<ResponseError> {
    if request.group_id.is_empty() {
        Some(ResponseError::InvalidGroupId)
    } else if !request.member_id.is_empty() || request.group_instance_id.is_some() {
        Some(ResponseError::UnknownMemberId)
    } else if request.generation_id_or_member_epoch != NO_GENERATION {
        Some(ResponseError::IllegalGeneration)
    } else {
        None
    }
}

fn check(
    partition: &OffsetCommitRequestPartition,
    partition_count: u32,
) -> Result<(PartitionId, CommittedOffset), ResponseError> {
    let index = u32::try_from(partition.partition_index)
        .ok()
        .filter(|index| *index < partition_count)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let offset =
        u64::try_from(partition.committed_offset).map_err(|_| ResponseError::InvalidRequest)?;
    let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
    if metadata.len() > METADATA_BYTES_MAX {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    let committed = CommittedOffset {
        offset,
        metadata: metadata.to_owned(),
        leader_epoch: partition.committed_leader_epoch,
    };
    Ok((PartitionId(index), committed))
}

fn fail_accepted(topics: &mut [OffsetCommitResponseTopic], code: i16) {
    let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == 0) {
        partition.error_code = code;
    }
}
