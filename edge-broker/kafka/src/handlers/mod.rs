//! One file for each API: a decoded request in, an answer out.

mod alter_configs;
mod api_versions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod fetch;
mod find_coordinator;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod produce;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::connection::{Answer, CloseReason, Encoded};
use crate::frame::{Frame, Head};
use crate::session::Session;

/// Starts a request. A Produce is handed to its lanes before this returns, and may answer nothing; what
/// comes back as an answer runs when it is polled.
pub(crate) async fn start(
    session: &Arc<Session>,
    frame: Frame,
) -> Result<Option<Answer>, CloseReason> {
    let Frame { head, body } = frame;
    let session = session.clone();
    let answer = match head.key {
        ApiKey::Produce => {
            let request = decode(head, body)?;
            return match produce::start(&session, request, head.version).await? {
                Some(started) => {
                    Ok(Some(later(head, async move { started.finish(&session).await })))
                }
                None => Ok(None),
            };
        }
        ApiKey::Fetch => {
            let request = decode(head, body)?;
            Box::pin(async move {
                let (response, memory) = fetch::handle(&session, request, head.version).await;
                let bytes = encode(head, &response)?;
                Ok(Encoded { bytes, memory })
            })
        }
        ApiKey::ListOffsets => {
            let request = decode(head, body)?;
            later(head, async move { list_offsets::handle(&session, request, head.version).await })
        }
        ApiKey::Metadata => {
            let request = decode(head, body)?;
            later(head, async move { metadata::handle(&session, request, head.version).await })
        }
        ApiKey::OffsetCommit => {
            let request = decode(head, body)?;
            later(head, async move { offset_commit::handle(&session, request).await })
        }
        ApiKey::OffsetFetch => {
            let request = decode(head, body)?;
            later(head, async move { offset_fetch::handle(&session, request, head.version) })
        }
        ApiKey::FindCoordinator => {
            let request = decode(head, body)?;
            later(head, async move { find_coordinator::handle(&session, request, head.version) })
        }
        ApiKey::ApiVersions => later(head, async { api_versions::handle() }),
        ApiKey::CreateTopics => {
            let request = decode(head, body)?;
            later(head, async move { create_topics::handle(&session, request).await })
        }
        ApiKey::DeleteTopics => {
            let request = decode(head, body)?;
            later(head, async move { delete_topics::handle(&session, request, head.version).await })
        }
        ApiKey::DeleteRecords => {
            let request = decode(head, body)?;
            later(head, async move { delete_records::handle(&session, request).await })
        }
        ApiKey::AlterConfigs => {
            let request = decode(head, body)?;
            later(head, async move { alter_configs::replace(&session, request).await })
        }
        ApiKey::IncrementalAlterConfigs => {
            let request = decode(head, body)?;
            later(head, async move { alter_configs::incremental(&session, request).await })
        }
        ApiKey::InitProducerId => {
            let request = decode(head, body)?;
            later(head, async move { init_producer_id::handle(&session, request).await })
        }
        ApiKey::DescribeConfigs => {
            let request = decode(head, body)?;
            later(head, async move { describe_configs::handle(&session, request) })
        }
        ApiKey::DescribeCluster => {
            let request = decode(head, body)?;
            later(head, async move { describe_cluster::handle(&session, request) })
        }
        other => {
            return Err(crate::frame::FrameError::UnknownApi { key: other as i16 }.into());
        }
    };
    Ok(Some(answer))
}

/// The answer to an ApiVersions request of an unknown version: version 0, so that any client can read it.
pub(crate) fn unknown_api_versions(correlation_id: i32) -> Answer {
    let head = Head { key: ApiKey::ApiVersions, version: 0, correlation_id };
    later(head, async { api_versions::unsupported() })
}

fn decode<R: Decodable>(head: Head, body: Bytes) -> Result<R, CloseReason> {
    let mut body = body;
    R::decode(&mut body, head.version)
        .map_err(|error| CloseReason::Undecodable { key: head.key, reason: error.to_string() })
}

fn later<R: Encodable>(head: Head, response: impl Future<Output = R> + Send + 'static) -> Answer {
    Box::pin(async move {
        let bytes = encode(head, &response.await)?;
        Ok(Encoded { bytes, memory: None })
    })
}

/// Length, header, body.
fn encode<R: Encodable>(head: Head, response: &R) -> Result<Vec<u8>, CloseReason> {
    let unencodable = |reason: String| CloseReason::Unencodable { reason };
    let mut out = vec![0; 4];
    let header_version = head.key.response_header_version(head.version);
    ResponseHeader::default()
        .with_correlation_id(head.correlation_id)
        .encode(&mut out, header_version)
        .and_then(|()| response.encode(&mut out, head.version))
        .map_err(|error| unencodable(error.to_string()))?;
    let length = i32::try_from(out.len() - 4).map_err(|error| unencodable(error.to_string()))?;
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}
