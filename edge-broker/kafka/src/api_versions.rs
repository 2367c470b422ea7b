//! Which Kafka APIs are answered, in which versions. This table is what ApiVersions tells clients, what the
//! frame reader lets pass, and the only place where either is said.

use kafka_protocol::messages::ApiKey;

use crate::request_layout::{self as layout, Layout};

/// One API.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) key: ApiKey,
    pub(crate) version_min: i16,
    pub(crate) version_max: i16,
    pub(crate) layout: &'static Layout,
}

const fn api(key: ApiKey, version_min: i16, version_max: i16, layout: &'static Layout) -> Api {
    Api { key, version_min, version_max, layout }
}

/// All APIs. Consumer groups with members (JoinGroup and so on) and transactions are not here.
pub(crate) static APIS: [Api; 16] = [
    // 13 names topics by id only; a client that cached an id would not see its topic made anew.
    api(ApiKey::Produce, 3, 12, &layout::PRODUCE),
    api(ApiKey::Fetch, 4, 17, &layout::FETCH),
    api(ApiKey::ListOffsets, 1, 10, &layout::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &layout::METADATA),
    api(ApiKey::OffsetCommit, 2, 9, &layout::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1, 9, &layout::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 6, &layout::FIND_COORDINATOR),
    api(ApiKey::ApiVersions, 0, 4, &layout::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &layout::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &layout::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &layout::DELETE_RECORDS),
    api(ApiKey::InitProducerId, 0, 5, &layout::INIT_PRODUCER_ID),
    api(ApiKey::DescribeConfigs, 1, 4, &layout::DESCRIBE_CONFIGS),
    api(ApiKey::AlterConfigs, 0, 2, &layout::ALTER_CONFIGS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, &layout::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::DescribeCluster, 0, 1, &layout::DESCRIBE_CLUSTER),
];

/// The API of this number, if it is answered.
pub(crate) fn find(key: i16) -> Option<&'static Api> {
    APIS.iter().find(|api| api.key as i16 == key)
}

impl Api {
    /// Whether this version is answered.
    pub(crate) fn has(&self, version: i16) -> bool {
        (self.version_min..=self.version_max).contains(&version)
    }

    /// Whether requests of this version have tagged fields.
    pub(crate) fn is_flexible(&self, version: i16) -> bool {
        self.key.request_header_version(version) >= 2
    }
}
