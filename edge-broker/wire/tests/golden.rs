//! Batches that Apache Kafka wrote are read, record for record; see `golden/README.md`.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use edge_wire::produced::{ProducedLimits, check_produced};
use edge_wire::{
    Compression, HeadersBuilder, Offset, ProducerId, ProducerStamp, RecordBatchBuilder, Records,
    record_batch,
};

const BASE_TIMESTAMP: i64 = 1_700_000_000_000;

fn golden(compression: Compression) -> &'static [u8] {
    match compression {
        Compression::None => include_bytes!("golden/kafka-4.3.0-none.batch"),
        Compression::Gzip => include_bytes!("golden/kafka-4.3.0-gzip.batch"),
        Compression::Snappy => include_bytes!("golden/kafka-4.3.0-snappy.batch"),
        Compression::Lz4 => include_bytes!("golden/kafka-4.3.0-lz4.batch"),
        Compression::Zstd => include_bytes!("golden/kafka-4.3.0-zstd.batch"),
    }
}

fn key(index: usize) -> Option<Vec<u8>> {
    (index % 5 != 4).then(|| format!("sensor-{}", index % 5).into_bytes())
}

fn value(index: usize) -> Option<Vec<u8>> {
    let value = format!("{{\"temperature\":{},\"unit\":\"°C\"}}", 20 + index);
    (index != 49).then_some(value.into_bytes())
}

fn headers(index: usize) -> Vec<u8> {
    let mut headers = HeadersBuilder::new();
    if index % 2 == 1 {
        headers.push("mqtt.topic", Some(format!("plant/{index}").as_bytes())).push("nüll", None);
    }
    headers.finish()
}

const STAMP: ProducerStamp = ProducerStamp { id: ProducerId(4_242), epoch: 3, base_sequence: 77 };

#[test]
fn every_codec_of_kafka_is_read() {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let limits = ProducedLimits {
            unpacked_bytes_max: 100_000,
            key_required: false,
            timestamps_ms: None,
        };
        let mut scratch = Vec::new();
        let batch = check_produced(golden(compression), limits, &mut scratch).unwrap();
        let header = *batch.header();
        assert_eq!(header.attributes.compression(), compression);
        assert_eq!(header.base_offset, Offset(1_234_567));
        assert_eq!(header.partition_leader_epoch, 5);
        assert_eq!(header.base_timestamp, BASE_TIMESTAMP);
        assert_eq!(header.max_timestamp, BASE_TIMESTAMP + 49 * 7);
        assert_eq!(header.producer, Some(STAMP));
        assert_eq!(header.end_offset(), Offset(1_234_617));
        let section = batch.unpack(100_000, &mut scratch).unwrap();
        let mut seen = 0;
        for (index, record) in Records::new(section, header.record_count).enumerate() {
            let record = record.unwrap();
            assert_eq!(record.timestamp_delta, 7 * index as i64);
            assert_eq!(record.key, key(index).as_deref());
            assert_eq!(record.value, value(index).as_deref());
            assert_eq!(record.headers.section(), headers(index));
            seen += 1;
        }
        assert_eq!(seen, 50, "{}", compression.name());
    }
}

#[test]
fn an_uncompressed_batch_of_ours_has_the_bytes_of_kafkas() {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(1_234_567), BASE_TIMESTAMP);
    for index in 0..50 {
        builder.push(
            BASE_TIMESTAMP + 7 * index as i64,
            key(index).as_deref(),
            value(index).as_deref(),
            &headers(index),
        );
    }
    let mut out = Vec::new();
    builder.finish(Some(STAMP), Compression::None, None, &mut out).unwrap();
    record_batch::set_partition_leader_epoch(&mut out, 5);
    assert_eq!(out, golden(Compression::None));
}
