//! What is built is read back, whatever the codec; what was damaged is noticed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use edge_wire::compression::Compression;
use edge_wire::produced::{ProducedError, ProducedLimits, check_produced};
use edge_wire::record_batch::{
    ATTRIBUTES_AT, BATCH_HEADER_BYTES, CRC_AT, LAST_OFFSET_DELTA_AT, RECORD_COUNT_AT,
    set_base_offset, set_log_append_time, set_partition_leader_epoch, set_producer,
};
use edge_wire::{
    Batches, Envelope, HeadersBuilder, Offset, ProducerId, ProducerStamp, RecordBatchBuilder,
    RecordBatchView, Records, TimestampType, write_batch,
};
use proptest::prelude::*;

const ALL: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];
const LIMITS: ProducedLimits =
    ProducedLimits { unpacked_bytes_max: 1 << 20, key_required: false, timestamps_ms: None };

#[derive(Clone, Debug)]
struct Sample {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

fn sample() -> impl Strategy<Value = Sample> {
    let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    let headers = prop::collection::vec(("[a-zü.]{0,12}", bytes()), 0..4);
    (0i64..2_000_000_000_000, bytes(), bytes(), headers)
        .prop_map(|(timestamp, key, value, headers)| Sample { timestamp, key, value, headers })
}

fn headers_section(sample: &Sample) -> Vec<u8> {
    let mut headers = HeadersBuilder::new();
    for (key, value) in &sample.headers {
        headers.push(key, value.as_deref());
    }
    headers.finish()
}

fn build(samples: &[Sample], compression: Compression) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), samples[0].timestamp);
    for (index, sample) in samples.iter().enumerate() {
        let headers = headers_section(sample);
        if index % 2 == 0 {
            let (key, value) = (sample.key.as_deref(), sample.value.as_deref());
            builder.push(sample.timestamp, key, value, &headers);
        } else {
            let envelope = Envelope::new(sample.key.as_deref(), &headers);
            builder.push_enveloped(sample.timestamp, &envelope, sample.value.as_deref());
        }
    }
    let mut out = Vec::new();
    builder.finish(None, compression, None, &mut out).unwrap();
    if compression == Compression::None {
        assert_eq!(out.len(), builder.len_bytes());
    }
    out
}

fn small() -> Vec<u8> {
    let sample = |value: &str| Sample {
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
    };
    build(&[sample("one"), sample("two"), sample("three")], Compression::None)
}

/// Gives bytes that were changed on purpose a CRC that fits.
fn with_crc(mut batch: Vec<u8>) -> Vec<u8> {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// Why these bytes are refused.
fn refusal(bytes: &[u8], limits: ProducedLimits) -> ProducedError {
    check_produced(bytes, limits, &mut Vec::new()).unwrap_err()
}

proptest! {
    #[test]
    fn every_codec_gives_back_what_was_put_in(samples in prop::collection::vec(sample(), 1..20)) {
        for compression in ALL {
            let bytes = build(&samples, compression);
            let mut scratch = Vec::new();
            let batch = check_produced(&bytes, LIMITS, &mut scratch).unwrap();
            prop_assert_eq!(batch.header().attributes.compression(), compression);
            prop_assert_eq!(batch.header().record_count as usize, samples.len());
            let max = samples.iter().map(|sample| sample.timestamp).max().unwrap();
            prop_assert_eq!(batch.header().max_timestamp, max);
            let base = batch.header().base_timestamp;
            let section = batch.unpack(1 << 20, &mut scratch).unwrap();
            let mut records = Records::new(section, batch.header().record_count);
            for sample in &samples {
                let record = records.next().unwrap().unwrap();
                prop_assert_eq!(base + record.timestamp_delta, sample.timestamp);
                prop_assert_eq!(record.key, sample.key.as_deref());
                prop_assert_eq!(record.value, sample.value.as_deref());
                let section = headers_section(sample);
                prop_assert_eq!(record.headers.section(), &section[..]);
                let found: Vec<_> = record.headers.iter()
                    .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
                    .collect();
                prop_assert_eq!(&found, &sample.headers);
            }
            prop_assert!(records.next().is_none());
        }
    }

    #[test]
    fn a_header_in_front_of_stored_records_gives_the_same_bytes(samples in prop::collection::vec(sample(), 1..5)) {
        let bytes = build(&samples, Compression::Zstd);
        let batch = RecordBatchView::parse(&bytes).unwrap();
        let mut again = Vec::new();
        write_batch(batch.header(), batch.records_section(), &mut again);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn an_envelope_survives_its_bytes(sample in sample()) {
        let envelope = Envelope::new(sample.key.as_deref(), &headers_section(&sample));
        let again = Envelope::decode(envelope.as_bytes()).unwrap();
        prop_assert_eq!(again.key(), sample.key.as_deref());
        prop_assert_eq!(again.headers().len(), sample.headers.len());
        prop_assert_eq!(again, envelope);
    }

    #[test]
    fn one_flipped_bit_is_noticed(at in BATCH_HEADER_BYTES.., bit in 0u8..8) {
        let mut bytes = small();
        let at = ATTRIBUTES_AT + at % (bytes.len() - ATTRIBUTES_AT);
        bytes[at] ^= 1 << bit;
        prop_assert!(check_produced(&bytes, LIMITS, &mut Vec::new()).is_err());
    }
}

#[test]
fn patches_outside_the_crc_leave_it_valid() {
    let mut bytes = small();
    set_base_offset(&mut bytes, Offset(4_711));
    set_partition_leader_epoch(&mut bytes, 3);
    let batch = RecordBatchView::parse(&bytes).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().base_offset, Offset(4_711));
    assert_eq!(batch.header().partition_leader_epoch, 3);
    assert_eq!(batch.header().end_offset(), Offset(4_714));
}

#[test]
fn patches_inside_the_crc_renew_it() {
    let mut bytes = small();
    set_log_append_time(&mut bytes, 99);
    let stamp = ProducerStamp { id: ProducerId(5), epoch: 2, base_sequence: 77 };
    set_producer(&mut bytes, Some(stamp));
    let batch = RecordBatchView::parse(&bytes).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().attributes.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(batch.header().max_timestamp, 99);
    assert_eq!(batch.header().producer, Some(stamp));
}

#[test]
fn batches_behind_each_other_are_walked_and_a_cut_one_ends_the_walk() {
    let one = small();
    let bytes = [one.clone(), one.clone(), one[..70].to_vec()].concat();
    let mut batches = Batches::new(&bytes);
    assert_eq!(batches.next().unwrap().unwrap().bytes(), &one[..]);
    assert_eq!(batches.next().unwrap().unwrap().bytes(), &one[..]);
    assert!(batches.next().is_none());
}

#[test]
fn two_batches_for_one_partition_are_refused() {
    let bytes = [small(), small()].concat();
    let result = refusal(&bytes, LIMITS);
    assert!(matches!(result, ProducedError::SecondBatch { .. }));
}

#[test]
fn transactional_and_control_batches_are_refused() {
    for bit in [4, 5] {
        let mut bytes = small();
        bytes[ATTRIBUTES_AT + 1] |= 1 << bit;
        let result = refusal(&with_crc(bytes), LIMITS);
        assert!(matches!(result, ProducedError::Forbidden { .. }), "attribute {bit}");
    }
}

#[test]
fn counts_that_disagree_are_refused() {
    let mut fewer = small();
    fewer[LAST_OFFSET_DELTA_AT + 3] = 7;
    let result = refusal(&with_crc(fewer), LIMITS);
    assert!(matches!(result, ProducedError::Count { .. }));

    // Count and last delta agree with each other, but not with the records.
    for count in [2u8, 4] {
        let mut lie = small();
        lie[LAST_OFFSET_DELTA_AT + 3] = count - 1;
        lie[RECORD_COUNT_AT + 3] = count;
        let result = refusal(&with_crc(lie), LIMITS);
        assert!(matches!(result, ProducedError::Record(_)), "{count}: {result:?}");
    }
}

#[test]
fn a_compacted_topic_wants_keys() {
    let limits = ProducedLimits { key_required: true, ..LIMITS };
    let result = refusal(&small(), limits);
    assert!(matches!(result, ProducedError::MissingKey { index: 0 }));
}

#[test]
fn timestamps_beyond_the_topics_limits_are_refused() {
    let time = 1_700_000_000_000;
    let within =
        |earliest, latest| ProducedLimits { timestamps_ms: Some((earliest, latest)), ..LIMITS };
    assert!(check_produced(&small(), within(time, time), &mut Vec::new()).is_ok());
    for limits in [within(time + 1, i64::MAX), within(i64::MIN, time - 1)] {
        let result = refusal(&small(), limits);
        assert!(
            matches!(result, ProducedError::Timestamp { index: 0, timestamp_ms, .. } if timestamp_ms == time)
        );
    }
}
