//! Finished batches: compressed where that saves bytes.

use bytes::Bytes;
use edge_wire::compression::ZSTD_LEVEL_MAX;
use edge_wire::record_batch::complete_header;
use edge_wire::{Attributes, BATCH_HEADER_BYTES, BatchHeader, Compression, RecordBatchBuilder};

use super::RebatchLimits;

/// Below this many bytes a batch is not compressed: the frame would cost more than it saves.
const COMPRESS_BYTES_MIN: usize = 200;

/// Makes batches; keeps its zstd context (about a megabyte) for the length of a round.
pub(super) struct Packer {
    pub(super) limits: RebatchLimits,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    plain: Vec<u8>,
}

impl Packer {
    pub(super) fn new(limits: RebatchLimits) -> Self {
        Self { limits, zstd: None, plain: Vec::new() }
    }

    /// The batch, compressed where that helps. A codec that refuses costs compression, not the batch.
    pub(super) fn pack(&mut self, builder: &RecordBatchBuilder) -> Bytes {
        if builder.len_bytes() < COMPRESS_BYTES_MIN || self.limits.compression == Compression::None
        {
            return plain(builder);
        }
        if self.limits.compression == Compression::Zstd {
            return self.pack_zstd(builder).unwrap_or_else(|| plain(builder));
        }
        let mut out = Vec::with_capacity(builder.len_bytes() / 2);
        match builder.finish(None, self.limits.compression, self.limits.level, &mut out) {
            Ok(_) => Bytes::from(out),
            Err(_) => plain(builder),
        }
    }

    fn pack_zstd(&mut self, builder: &RecordBatchBuilder) -> Option<Bytes> {
        let level =
            self.limits.level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).min(ZSTD_LEVEL_MAX);
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(zstd::bulk::Compressor::new(level).ok()?),
        };
        self.plain.clear();
        // Without a codec nothing can fail.
        let header = builder.finish(None, Compression::None, None, &mut self.plain).ok()?;
        let records = self.plain.get(BATCH_HEADER_BYTES..)?;
        let mut out = vec![0; BATCH_HEADER_BYTES + zstd::zstd_safe::compress_bound(records.len())];
        let packed = zstd.compress_to_buffer(records, out.get_mut(BATCH_HEADER_BYTES..)?).ok()?;
        out.truncate(BATCH_HEADER_BYTES + packed);
        out.shrink_to_fit();
        complete_header(
            &mut out,
            &BatchHeader { attributes: Attributes::new(Compression::Zstd), ..header },
        );
        Some(Bytes::from(out))
    }

    /// Gives memory back between rounds.
    pub(super) fn rest(&mut self) {
        self.zstd = None;
        self.plain = Vec::new();
    }
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("limits", &self.limits).finish_non_exhaustive()
    }
}

fn plain(builder: &RecordBatchBuilder) -> Bytes {
    let mut out = Vec::with_capacity(builder.len_bytes());
    // Without a codec nothing can fail.
    let _ = builder.finish(None, Compression::None, None, &mut out);
    Bytes::from(out)
}
