//! ApiVersions: what this node answers (KIP-35, KIP-511).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use crate::api_versions::{APIS, Api};

/// All APIs.
pub(super) fn handle() -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(entry).collect())
}

/// The client asked in a version we do not know: the error, and in which versions it may ask.
pub(super) fn unsupported() -> ApiVersionsResponse {
    let own = APIS.iter().filter(|api| api.key == kafka_protocol::messages::ApiKey::ApiVersions);
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(own.map(entry).collect())
}

fn entry(api: &Api) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(api.key as i16)
        .with_min_version(api.version_min)
        .with_max_version(api.version_max)
}
