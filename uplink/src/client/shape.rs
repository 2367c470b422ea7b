//! Walks an answer by its schema before it is decoded, so that a hostile or broken upstream cannot make the
//! decoder reserve memory for elements that are not there: every announced element must be present.
//!
//! Only the versions that [`super::api`] asks for are described. Their tagged fields hold no arrays, so a tag is
//! skipped by its length (KIP-482). Field order and versions are those of Kafka's `*Response.json`.

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Decodable;

use super::error::RequestError;

/// Checks the layout, then decodes.
pub(crate) fn decode<T: Decodable>(
    api: &'static str,
    key: i16,
    version: i16,
    mut body: Bytes,
) -> Result<T, RequestError> {
    let fault = |reason: String| RequestError::Decode { api, reason };
    check(key, version, &body).map_err(|reason| fault(reason.to_owned()))?;
    T::decode(&mut body, version).map_err(|error| fault(error.to_string()))
}

/// One field and the versions that have it.
struct Field(Kind, i16, i16);

enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// Length and text, nullable or not.
    Text,
    /// Length (32 bits or compact) and bytes, nullable or not.
    Blob,
    /// Count and so many structures, nullable or not.
    Array(&'static [Field]),
    /// Count and so many fields of this many bytes, which carry no tags of their own.
    Numbers(usize),
}

use Kind::{Array, Blob, Fixed, Numbers, Text};

const fn always(kind: Kind) -> Field {
    Field(kind, 0, i16::MAX)
}
const fn since(version: i16, kind: Kind) -> Field {
    Field(kind, version, i16::MAX)
}

const METADATA: &[Field] = &[
    since(3, Fixed(4)),
    always(Array(&[always(Fixed(4)), always(Text), always(Fixed(4)), since(1, Text)])),
    since(2, Text),
    since(1, Fixed(4)),
    always(Array(&[
        always(Fixed(2)),
        always(Text),
        since(10, Fixed(16)),
        since(1, Fixed(1)),
        always(Array(&[
            always(Fixed(2 + 4 + 4)),
            since(7, Fixed(4)),
            always(Numbers(4)),
            always(Numbers(4)),
            since(5, Numbers(4)),
        ])),
        since(8, Fixed(4)),
    ])),
    Field(Fixed(4), 8, 10),
];

const PRODUCE: &[Field] = &[
    always(Array(&[
        always(Text),
        always(Array(&[
            always(Fixed(4 + 2 + 8)),
            since(2, Fixed(8)),
            since(5, Fixed(8)),
            since(8, Array(&[always(Fixed(4)), always(Text)])),
            since(8, Text),
        ])),
    ])),
    since(1, Fixed(4)),
];

const FETCH: &[Field] = &[
    since(1, Fixed(4)),
    since(7, Fixed(2 + 4)),
    always(Array(&[
        always(Text),
        always(Array(&[
            always(Fixed(4 + 2 + 8)),
            since(4, Fixed(8)),
            since(5, Fixed(8)),
            since(4, Array(&[always(Fixed(8 + 8))])),
            since(11, Fixed(4)),
            always(Blob),
        ])),
    ])),
];

const LIST_OFFSETS: &[Field] = &[
    since(2, Fixed(4)),
    always(Array(&[
        always(Text),
        always(Array(&[always(Fixed(4 + 2 + 8 + 8)), since(4, Fixed(4))])),
    ])),
];

const CREATE_TOPICS: &[Field] = &[
    since(2, Fixed(4)),
    always(Array(&[
        always(Text),
        since(7, Fixed(16)),
        always(Fixed(2)),
        since(1, Text),
        since(5, Fixed(4 + 2)),
        since(5, Array(&[always(Text), always(Text), always(Fixed(3))])),
    ])),
];

const DELETE_TOPICS: &[Field] = &[
    since(1, Fixed(4)),
    always(Array(&[always(Text), since(6, Fixed(16)), always(Fixed(2)), since(5, Text)])),
];

const INIT_PRODUCER_ID: &[Field] = &[always(Fixed(4 + 2 + 8 + 2))];

const DESCRIBE_CONFIGS: &[Field] = &[
    always(Fixed(4)),
    always(Array(&[
        always(Fixed(2)),
        always(Text),
        always(Fixed(1)),
        always(Text),
        always(Array(&[
            always(Text),
            always(Text),
            always(Fixed(1 + 1 + 1)),
            since(1, Array(&[always(Text), always(Text), always(Fixed(1))])),
            since(3, Fixed(1)),
            since(3, Text),
        ])),
    ])),
];

const DELETE_RECORDS: &[Field] =
    &[always(Fixed(4)), always(Array(&[always(Text), always(Array(&[always(Fixed(4 + 8 + 2))]))]))];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    always(Fixed(4)),
    always(Array(&[always(Fixed(2)), always(Text), always(Fixed(1)), always(Text)])),
];

fn check(key: i16, version: i16, body: &[u8]) -> Result<(), &'static str> {
    const fn code(key: ApiKey) -> i16 {
        key as i16
    }
    const PRODUCE_KEY: i16 = code(ApiKey::Produce);
    const FETCH_KEY: i16 = code(ApiKey::Fetch);
    const LIST_OFFSETS_KEY: i16 = code(ApiKey::ListOffsets);
    const METADATA_KEY: i16 = code(ApiKey::Metadata);
    const CREATE_TOPICS_KEY: i16 = code(ApiKey::CreateTopics);
    const DELETE_TOPICS_KEY: i16 = code(ApiKey::DeleteTopics);
    const INIT_PRODUCER_ID_KEY: i16 = code(ApiKey::InitProducerId);
    const DESCRIBE_CONFIGS_KEY: i16 = code(ApiKey::DescribeConfigs);
    const DELETE_RECORDS_KEY: i16 = code(ApiKey::DeleteRecords);
    const INCREMENTAL_ALTER_CONFIGS_KEY: i16 = code(ApiKey::IncrementalAlterConfigs);
    let (fields, first_flexible) = match key {
        PRODUCE_KEY => (PRODUCE, 9),
        FETCH_KEY => (FETCH, 12),
        LIST_OFFSETS_KEY => (LIST_OFFSETS, 6),
        METADATA_KEY => (METADATA, 9),
        CREATE_TOPICS_KEY => (CREATE_TOPICS, 5),
        DELETE_TOPICS_KEY => (DELETE_TOPICS, 4),
        INIT_PRODUCER_ID_KEY => (INIT_PRODUCER_ID, 2),
        DESCRIBE_CONFIGS_KEY => (DESCRIBE_CONFIGS, 4),
        DELETE_RECORDS_KEY => (DELETE_RECORDS, 2),
        INCREMENTAL_ALTER_CONFIGS_KEY => (INCREMENTAL_ALTER_CONFIGS, 1),
        _ => return Err("an answer of a kind we do not know"),
    };
    let mut walk = Walk { rest: body, version, flexible: version >= first_flexible };
    walk.structure(fields)
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
}

const SHORT: &str = "it ends too early";

impl Walk<'_> {
    fn structure(&mut self, fields: &'static [Field]) -> Result<(), &'static str> {
        for Field(kind, min, max) in fields {
            if !(*min..=*max).contains(&self.version) {
                continue;
            }
            match kind {
                Fixed(bytes) => self.skip(*bytes)?,
                Text => {
                    let length = self.length(2)?;
                    self.skip(length)?;
                }
                Blob => {
                    let length = self.length(4)?;
                    self.skip(length)?;
                }
                Numbers(bytes) => {
                    let count = self.length(4)?;
                    self.skip(count.checked_mul(*bytes).ok_or(SHORT)?)?;
                }
                Array(fields) => {
                    for _ in 0..self.length(4)? {
                        self.structure(fields)?;
                    }
                }
            }
        }
        if self.flexible {
            for _ in 0..self.varint()? {
                self.varint()?;
                let length = self.varint()? as usize;
                self.skip(length)?;
            }
        }
        Ok(())
    }

    /// Length of a text (2 bytes) or count of an array (4 bytes); null is 0. More than there are bytes is refused.
    fn length(&mut self, bytes: usize) -> Result<usize, &'static str> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if bytes == 2 {
            i64::from(i16::from_be_bytes(*self.rest.first_chunk().ok_or(SHORT)?))
        } else {
            i64::from(i32::from_be_bytes(*self.rest.first_chunk().ok_or(SHORT)?))
        };
        if !self.flexible {
            self.skip(bytes)?;
        }
        match length {
            -1 => Ok(0),
            length => usize::try_from(length)
                .ok()
                .filter(|length| *length <= self.rest.len())
                .ok_or("a length that cannot be"),
        }
    }

    fn varint(&mut self) -> Result<u32, &'static str> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let byte = *self.rest.first().ok_or(SHORT)?;
            self.skip(1)?;
            value |= u32::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than five bytes")
    }

    fn skip(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.rest = self.rest.get(bytes..).ok_or(SHORT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
