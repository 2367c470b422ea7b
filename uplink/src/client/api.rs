//! The requests we send and the versions we speak of each. Kept below the versions whose answers carry arrays in
//! tagged fields (see [`super::shape`]) or name topics by id only.

/// Versions of one request, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// Name for errors.
    pub(crate) name: &'static str,
    /// Oldest.
    pub(crate) min: i16,
    /// Newest.
    pub(crate) max: i16,
}

/// What a broker said about one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ApiRange {
    /// Key of the request.
    pub(crate) key: i16,
    /// Oldest version.
    pub(crate) min: i16,
    /// Newest version.
    pub(crate) max: i16,
}

const fn range(name: &'static str, min: i16, max: i16) -> Range {
    Range { name, min, max }
}

/// v4: automatic creation can be refused. v13 adds nothing for us.
pub(crate) const METADATA: Range = range("Metadata", 4, 12);
/// v3: record batches v2. v10 puts node endpoints into a tag.
pub(crate) const PRODUCE: Range = range("Produce", 3, 9);
/// v4: record batches v2. v13 names topics by id only.
pub(crate) const FETCH: Range = range("Fetch", 4, 12);
/// v1: one offset for each partition. v10 adds a timeout.
pub(crate) const LIST_OFFSETS: Range = range("ListOffsets", 1, 9);
/// v2: validate-only.
pub(crate) const CREATE_TOPICS: Range = range("CreateTopics", 2, 7);
/// v6: topics by id as well.
pub(crate) const DELETE_TOPICS: Range = range("DeleteTopics", 1, 6);
/// v5 belongs to transactions v2, v6 to two-phase commit.
pub(crate) const INIT_PRODUCER_ID: Range = range("InitProducerId", 0, 4);
/// v1: where a value comes from.
pub(crate) const DESCRIBE_CONFIGS: Range = range("DescribeConfigs", 1, 4);

/// v2: flexible.
pub(crate) const DELETE_RECORDS: Range = range("DeleteRecords", 0, 2);
/// v1: flexible.
pub(crate) const INCREMENTAL_ALTER_CONFIGS: Range = range("IncrementalAlterConfigs", 0, 1);

/// Reads an ApiVersions answer as far as we need it: the error code and the table. By hand, because its tagged
/// fields hold arrays and the first answer of a stranger should cost nothing.
pub(crate) fn decode_api_versions(body: &[u8], is_flexible: bool) -> Result<Vec<ApiRange>, String> {
    const SHORT: &str = "the table of versions ends too early";
    let mut rest = body;
    let mut take = |bytes: usize| -> Result<&[u8], String> {
        let (head, tail) = rest.split_at_checked(bytes).ok_or(SHORT)?;
        rest = tail;
        Ok(head)
    };
    let number =
        |bytes: &[u8]| bytes.iter().fold(0i32, |value, byte| (value << 8) | i32::from(*byte));
    let code = number(take(2)?) as i16;
    if code != 0 {
        return Err(super::ErrorCode(code).to_string());
    }
    let count = if is_flexible {
        // Brokers know fewer than 16,384 requests: two bytes at most.
        let low = take(1)?[0];
        let high = if low & 0x80 == 0 { 0 } else { take(1)?[0] };
        if high & 0x80 != 0 {
            return Err("too many versions".to_owned());
        }
        (i32::from(low & 0x7f) | (i32::from(high) << 7)) - 1
    } else {
        number(take(4)?)
    };
    let mut table = Vec::new();
    for _ in 0..count {
        let entry = take(6)?;
        table.push(ApiRange {
            key: number(&entry[..2]) as i16,
            min: number(&entry[2..4]) as i16,
            max: number(&entry[4..]) as i16,
        });
        if is_flexible && take(1)?[0] != 0 {
            return Err("unexpected tagged fields in the table of versions".to_owned());
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::messages::api_versions_response::{ApiVersion, SupportedFeatureKey};
    use kafka_protocol::protocol::Encodable;

    use super::*;

    #[test]
    fn the_table_of_versions_is_read_in_both_layouts() {
        let keys: Vec<_> = (0..200)
            .map(|key| {
                ApiVersion::default().with_api_key(key).with_min_version(1).with_max_version(9)
            })
            .collect();
        for version in [0, 3] {
            let mut response = ApiVersionsResponse::default().with_api_keys(keys.clone());
            if version == 3 {
                response = response.with_supported_features(vec![SupportedFeatureKey::default()]);
            }
            let mut bytes = BytesMut::new();
            response.encode(&mut bytes, version).unwrap();
            let table = decode_api_versions(&bytes, version == 3).unwrap();
            assert_eq!(table.len(), 200);
            assert_eq!((table[199].key, table[199].min, table[199].max), (199, 1, 9));
            assert!(decode_api_versions(&bytes[..300], version == 3).is_err());
        }
    }
}
