//! A record as one JSON object.
//!
//! Keys, values and header values are texts where they are UTF-8; else they come as Base64 (RFC 4648) in a field of
//! the same name with `_base64` behind it. Headers keep their order and duplicates.

use serde::Serialize;
use uplink::client::FetchedRecord;

#[derive(Serialize)]
pub(super) struct RecordJson<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp_ms: i64,
    #[serde(skip_serializing_if = "is_binary")]
    key: Option<Content<'a>>,
    #[serde(skip_serializing_if = "is_not_binary")]
    key_base64: Option<Content<'a>>,
    #[serde(skip_serializing_if = "is_binary")]
    value: Option<Content<'a>>,
    #[serde(skip_serializing_if = "is_not_binary")]
    value_base64: Option<Content<'a>>,
    headers: Vec<HeaderJson<'a>>,
}

#[derive(Serialize)]
struct HeaderJson<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "is_binary")]
    value: Option<Content<'a>>,
    #[serde(skip_serializing_if = "is_not_binary")]
    value_base64: Option<Content<'a>>,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Base64(String),
}

/// A header's name and value.
pub(super) type NamedValue<'a> = (&'a str, Option<&'a [u8]>);

impl<'a> RecordJson<'a> {
    pub(super) fn new(topic: &'a str, partition: u32, record: &'a FetchedRecord) -> Self {
        let headers = record.headers.iter().map(|header| (&*header.key, header.value.as_deref()));
        let place = (record.offset.0, record.timestamp_ms);
        Self::from_parts(
            topic,
            partition,
            place,
            record.key.as_deref(),
            record.value.as_deref(),
            headers,
        )
    }

    /// `place`: offset and timestamp in ms.
    pub(super) fn from_parts(
        topic: &'a str,
        partition: u32,
        (offset, timestamp_ms): (u64, i64),
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        headers: impl Iterator<Item = NamedValue<'a>>,
    ) -> Self {
        let (key, value) = (key.map(content), value.map(content));
        let headers = headers.map(header_json);
        Self {
            topic,
            partition,
            offset,
            timestamp_ms,
            key: key.clone(),
            key_base64: key,
            value: value.clone(),
            value_base64: value,
            headers: headers.collect(),
        }
    }
}

fn header_json<'a>((name, value): NamedValue<'a>) -> HeaderJson<'a> {
    let value = value.map(content);
    HeaderJson { name, value: value.clone(), value_base64: value }
}

/// Headers as a JSON list, as they stand in a record.
pub(super) fn headers_json<'a>(headers: impl Iterator<Item = NamedValue<'a>>) -> String {
    let headers: Vec<HeaderJson<'a>> = headers.map(header_json).collect();
    // Texts and lists of them always serialise.
    serde_json::to_string(&headers).unwrap_or_default()
}

fn is_binary(content: &Option<Content<'_>>) -> bool {
    matches!(content, Some(Content::Base64(_)))
}

fn is_not_binary(content: &Option<Content<'_>>) -> bool {
    !is_binary(content)
}

fn content(bytes: &[u8]) -> Content<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Content::Text(text),
        Err(_) => Content::Base64(base64(bytes)),
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for position in 0..4 {
            if position <= chunk.len() {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * position) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use edge_wire::Offset;
    use uplink::client::FetchedHeader;

    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn nothing_of_a_record_is_lost_in_json() {
        let header = |key: &str, value: Option<&'static [u8]>| FetchedHeader {
            key: key.to_owned(),
            value: value.map(Bytes::from_static),
        };
        let record = FetchedRecord {
            offset: Offset(7),
            timestamp_ms: -1,
            key: None,
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![header("a", Some(b"1")), header("a", None), header("b", Some(b"\x80"))],
        };
        assert_eq!(
            serde_json::to_string(&RecordJson::new("t", 3, &record)).unwrap(),
            r#"{"topic":"t","partition":3,"offset":7,"timestamp_ms":-1,"key":null,"value_base64":"/wA=","headers":[{"name":"a","value":"1"},{"name":"a","value":null},{"name":"b","value_base64":"gA=="}]}"#
        );
    }
}
