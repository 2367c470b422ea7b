//! Bytes from outside never panic and never unpack beyond their cap.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use edge_wire::compression::Compression;
use edge_wire::headers::HeadersView;
use edge_wire::produced::{ProducedLimits, check_produced};
use edge_wire::record_batch::{ATTRIBUTES_AT, CRC_AT};
use edge_wire::{
    Batches, DecompressError, Envelope, Offset, ProducerTable, RecordBatchBuilder, RecordBatchView,
    Records,
};
use proptest::prelude::*;

const PACKED: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn batch(compression: Compression) -> Vec<u8> {
    let mut builder = RecordBatchBuilder::new();
    builder.start(Offset(0), 1_000);
    for index in 0..20u8 {
        builder.push(1_000 + i64::from(index), Some(&[index]), Some(&[index; 50]), &[]);
    }
    let mut out = Vec::new();
    builder.finish(None, compression, None, &mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn random_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..400), count: u32) {
        let _ = RecordBatchView::parse(&bytes);
        let _ = Batches::new(&bytes).count();
        prop_assert!(Records::new(&bytes, count).count() <= bytes.len() + 1);
        let _ = HeadersView::parse(&bytes).map(|headers| headers.iter().count());
        let _ = Envelope::decode(&bytes);
        let _ = ProducerTable::decode(&mut &bytes[..], 10);
        for compression in PACKED {
            let mut out = Vec::new();
            let _ = compression.decompress(&bytes, 1_000, &mut out);
            prop_assert!(out.len() <= 1_001);
        }
    }

    #[test]
    fn a_damaged_batch_with_a_valid_crc_does_not_panic(
        codec in 0u8..5,
        damage in prop::collection::vec((ATTRIBUTES_AT..2_000, any::<u8>()), 1..6),
    ) {
        let mut bytes = batch(Compression::from_bits(codec).unwrap());
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if bytes.len() > ATTRIBUTES_AT {
            let crc = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
            bytes[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
        }
        let limits = ProducedLimits { unpacked_bytes_max: 4_096, key_required: false, timestamps_ms: None };
        let mut scratch = Vec::new();
        let _ = check_produced(&bytes, limits, &mut scratch);
        prop_assert!(scratch.len() <= 4_097);
    }
}

#[test]
fn a_bomb_stops_at_the_cap() {
    let zeros = vec![0u8; 8 << 20];
    for compression in PACKED {
        let mut packed = Vec::new();
        compression.compress(None, &zeros, &mut packed).unwrap();
        let mut out = Vec::new();
        let result = compression.decompress(&packed, 100_000, &mut out);
        let refused = matches!(result, Err(DecompressError::TooLarge { max_bytes: 100_000 }));
        assert!(refused, "{}: {result:?}", compression.name());
        assert!(out.len() <= 100_001, "{}", compression.name());
    }
}

#[test]
fn exactly_the_cap_is_allowed() {
    let input = vec![7u8; 100_000];
    for compression in PACKED {
        let mut packed = Vec::new();
        compression.compress(None, &input, &mut packed).unwrap();
        let mut out = Vec::new();
        compression.decompress(&packed, input.len(), &mut out).unwrap();
        assert!(out == input, "{}", compression.name());
    }
}

#[test]
fn raw_snappy_is_read_as_well_as_framed() {
    let input = b"snappy snappy snappy".repeat(10);
    let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
    let mut out = Vec::new();
    Compression::Snappy.decompress(&raw, 1_000, &mut out).unwrap();
    assert_eq!(out, input);
}

#[test]
fn a_snappy_block_that_claims_too_much_is_refused_before_memory_is_taken() {
    // Varint 64 MiB, then nothing that could make it.
    let claim = [0x80, 0x80, 0x80, 0x20, 0x00];
    let mut out = Vec::new();
    assert!(Compression::Snappy.decompress(&claim, usize::MAX, &mut out).is_err());
    assert_eq!(out.capacity(), 0);
}

#[test]
fn a_zstd_frame_with_a_huge_window_is_refused() {
    // Magic, a descriptor without content size, a window of 2^31: more than is allowed.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x01, 0x00, 0x00];
    let mut out = Vec::new();
    assert!(Compression::Zstd.decompress(&frame, 1_000, &mut out).is_err());
}

#[test]
fn a_claimed_record_count_is_checked_against_the_bytes() {
    let mut records = Records::new(&[0; 10], u32::MAX);
    assert!(records.next().unwrap().is_err());
    assert!(records.next().is_none());
}
