//! DescribeCluster: this node is all there is.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::session::Session;

/// The endpoint type of brokers, as opposed to controllers.
const BROKERS: i8 = 1;

pub(super) fn handle(
    session: &Session,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        let error = ResponseError::MismatchedEndpointType;
        let message = "this listener serves brokers, not controllers";
        return DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(message)));
    }
    let node = BrokerId(session.options().node_id);
    let broker = DescribeClusterBroker::default()
        .with_broker_id(node)
        .with_host(session.host.clone())
        .with_port(session.port);
    DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(session.options().cluster_id.clone()))
        .with_controller_id(node)
        .with_brokers(vec![broker])
}
