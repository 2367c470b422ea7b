//! InitProducerId: an id that was never given out before, for an idempotent producer (KIP-98).
//!
//! A producer that comes back with an id and an epoch gets a new id, as Kafka does without transactions.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::fault::Fault;
use crate::session::Session;

pub(super) async fn handle(
    session: &Session,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let none =
        InitProducerIdResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    if let Some(id) = request.transactional_id {
        tracing::warn!(transactional_id = %**id, "kafka: transactions are not supported by this gateway");
        // Fatal to the Java client and to librdkafka: a producer must not go on as if it had transactions.
        return none.with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code());
    }
    match session.engine().allocate_producer_id().await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(i64::try_from(id.0).unwrap_or(i64::MAX)))
            .with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "kafka: no producer id could be given out");
            // Retried by clients, where the code of a failed change may not be.
            let fault = Fault::new(ResponseError::CoordinatorNotAvailable, error.to_string());
            none.with_error_code(fault.code())
        }
    }
}
