//! Changes to what is there: settings of topics, and where their logs start.

use std::time::Duration;

use edge_wire::{Offset, PartitionId};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{DeleteRecordsRequest, IncrementalAlterConfigsRequest};
use kafka_protocol::protocol::StrBytes;

use super::admin::{RESOURCE_TOPIC, millis, topic_name};
use super::error::{BrokerError, RequestError};
use super::types::SettingChange;
use super::{Client, api};

const SET: i8 = 0;
const DELETE: i8 = 1;
/// Stands for the high watermark.
const TO_THE_END: i64 = -1;

impl Client {
    /// Changes settings of a topic, all of them or none.
    ///
    /// # Errors
    /// Refused, with the broker's reason, or no answer.
    pub async fn alter_topic(
        &self,
        topic: &str,
        changes: &[SettingChange],
    ) -> Result<(), RequestError> {
        let range = api::INCREMENTAL_ALTER_CONFIGS;
        let configs = changes.iter().map(|change| {
            AlterableConfig::default()
                .with_name(text(&change.name))
                .with_config_operation(if change.value.is_some() { SET } else { DELETE })
                .with_value(change.value.as_deref().map(text))
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(RESOURCE_TOPIC)
            .with_resource_name(text(topic))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let response = self.call_any(range, &request).await?;
        let Some(answer) = response.responses.into_iter().next() else {
            let reason = "the topic asked for is not in the answer".to_owned();
            return Err(RequestError::Decode { api: range.name, reason });
        };
        BrokerError::check(answer.error_code, answer.error_message.as_deref())
            .map_err(|error| RequestError::Broker { api: range.name, error })
    }

    /// Deletes the records of a partition below an offset, or all of them with `None`. Gives its first offset then.
    ///
    /// # Errors
    /// `OFFSET_OUT_OF_RANGE` beyond the end; otherwise refused or no answer.
    pub async fn delete_records(
        &self,
        topic: &str,
        partition: PartitionId,
        before: Option<Offset>,
        limit: Duration,
    ) -> Result<Offset, RequestError> {
        let range = api::DELETE_RECORDS;
        let node = self.leader(topic, partition).await?;
        let connection = self.cluster.node(node).await?;
        let version =
            connection.version::<DeleteRecordsRequest>(range.name, range.min, range.max)?;
        let offset =
            before.map_or(TO_THE_END, |before| i64::try_from(before.0).unwrap_or(i64::MAX));
        let asked = DeleteRecordsPartition::default()
            .with_partition_index(i32::try_from(partition.0).unwrap_or(i32::MAX))
            .with_offset(offset);
        let asked =
            DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![asked]);
        let request =
            DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(millis(limit));
        let response = connection.call(range.name, version, &request, limit).await?;
        let found = response.topics.into_iter().next();
        let Some(found) = found.and_then(|topic| topic.partitions.into_iter().next()) else {
            let reason = "the partition asked for is not in the answer".to_owned();
            return Err(RequestError::Decode { api: range.name, reason });
        };
        BrokerError::check(found.error_code, None)
            .map_err(|error| RequestError::Broker { api: range.name, error })?;
        Ok(Offset(u64::try_from(found.low_watermark).unwrap_or(0)))
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
