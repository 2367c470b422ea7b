//! FindCoordinator: for consumer groups it is this node. There are no transactions and no share groups here.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::session::Session;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// From this version on several keys can be asked for at once.
const BATCHED_FROM_VERSION: i16 = 4;

pub(super) fn handle(
    session: &Session,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let refusal = refusal(request.key_type).map(StrBytes::from_static_str);
    let code = if refusal.is_some() { ResponseError::InvalidRequest.code() } else { 0 };
    let node = if refusal.is_some() { BrokerId(-1) } else { BrokerId(session.options().node_id) };
    let (host, port) = match refusal {
        Some(_) => (StrBytes::default(), -1),
        None => (session.host.clone(), session.port),
    };
    if version < BATCHED_FROM_VERSION {
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_error_message(refusal)
            .with_node_id(node)
            .with_host(host)
            .with_port(port);
    }
    let coordinator = |key: StrBytes| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code)
            .with_error_message(refusal.clone())
            .with_node_id(node)
            .with_host(host.clone())
            .with_port(port)
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(coordinator).collect())
}

fn refusal(key_type: i8) -> Option<&'static str> {
    match key_type {
        GROUP => None,
        TRANSACTION => Some("transactions are not supported by this gateway"),
        _ => Some("only consumer groups have a coordinator on this gateway"),
    }
}
