use kafka_protocol::messages::{MetadataRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;

use super::*;

fn metadata(version: i16, correlation_id: i32) -> Vec<u8> {
    let mut out = vec![0; 4];
    RequestHeader::default()
        .with_request_api_key(ApiKey::Metadata as i16)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("test")))
        .encode(&mut out, ApiKey::Metadata.request_header_version(version))
        .unwrap();
    MetadataRequest::default().encode(&mut out, version).unwrap();
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn frames(bytes: &[u8]) -> Frames {
    let mut frames = Frames::new(1 << 20);
    frames.buffer.extend_from_slice(bytes);
    frames
}

#[test]
fn requests_behind_each_other_are_cut_apart() {
    let bytes = [metadata(1, 7), metadata(12, 8)].concat();
    let mut frames = frames(&bytes);
    for expected in [(1, 7), (12, 8)] {
        let Ok(Progress::Frame(frame)) = frames.next() else { panic!("a frame is there") };
        assert_eq!((frame.head.version, frame.head.correlation_id), expected);
    }
    assert!(matches!(frames.next(), Ok(Progress::More { missing_bytes: 4 })));
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let bytes = metadata(9, 3);
    let mut frames = Frames::new(1 << 20);
    for (at, byte) in bytes.iter().enumerate() {
        assert!(matches!(frames.next(), Ok(Progress::More { .. })), "at {at}");
        frames.buffer.extend_from_slice(&[*byte]);
    }
    assert!(matches!(frames.next(), Ok(Progress::Frame(_))));
}

#[test]
fn other_protocols_are_refused_at_their_first_bytes() {
    let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let mqtt = [0x10, 0x0c, 0x00, 0x04, b'M', b'Q', b'T', b'T', 4, 2, 0, 60];
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &tls, &mqtt, b"SSH-2.0-x\r\n"] {
        assert!(matches!(frames(bytes).next(), Err(FrameError::Length { .. })));
    }
}

#[test]
fn lengths_are_believed_within_limits_only() {
    for length in [i32::MIN, -1, 0, 7, 256 << 20, i32::MAX] {
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0; 8]);
        let refused = frames(&bytes).next();
        assert!(matches!(refused, Err(FrameError::Length { .. })), "{length}");
    }
}

#[test]
fn a_large_request_without_records_is_refused_before_it_arrives() {
    let mut bytes = (2i32 << 20).to_be_bytes().to_vec();
    bytes.extend_from_slice(&(ApiKey::Metadata as i16).to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
    let mut frames = Frames::new(8 << 20);
    frames.buffer.extend_from_slice(&bytes);
    let refused = FrameError::Length { found: 2 << 20, max: SMALL_REQUEST_BYTES_MAX };
    assert_eq!(frames.next().unwrap_err(), refused);
}

#[test]
fn unknown_apis_and_versions_are_named() {
    let start = |key: i16, version: i16| {
        let mut bytes = 100i32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&key.to_be_bytes());
        bytes.extend_from_slice(&version.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        frames(&bytes).next().unwrap_err()
    };
    assert_eq!(start(11, 5), FrameError::UnknownApi { key: 11 });
    assert_eq!(start(-1, 0), FrameError::UnknownApi { key: -1 });
    let version = FrameError::UnknownVersion { key: ApiKey::Produce, version: 2 };
    assert_eq!(start(0, 2), version);
}

#[test]
fn an_api_versions_request_of_the_future_is_still_answered() {
    let mut bytes = 10i32.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0, 18, 0, 99, 0, 0, 0, 5, 1, 2]);
    let progress = frames(&bytes).next().unwrap();
    assert!(matches!(progress, Progress::UnknownApiVersions { correlation_id: 5 }));
}

#[test]
fn only_an_empty_buffer_is_given_back() {
    let mut frames = Frames::new(1 << 20);
    frames.buffer.reserve(1 << 20);
    frames.release();
    assert_eq!(frames.buffer.capacity(), 0);
    frames.buffer.extend_from_slice(&[0]);
    frames.release();
    assert_eq!(frames.buffer[..], [0]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut frames = frames(&bytes);
        while let Ok(Progress::Frame(_)) = frames.next() {}
    }
}
