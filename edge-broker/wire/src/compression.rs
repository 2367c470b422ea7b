//! The four codecs of Kafka batches, each with a hard cap on what it may unpack to.
//!
//! - gzip: RFC 1952.
//! - snappy: written in the xerial framing that Kafka's Java client writes; read in it or raw (librdkafka
//!   and others write raw blocks).
//! - lz4: the LZ4 frame format with independent blocks (Java refuses dependent ones).
//! - zstd: RFC 8878; a frame that asks for a window above 8 MiB is refused.
//!
//! Memory while unpacking: the output (at most the cap), plus at most 8 MiB of window or blocks.
//!
//! Source: KIP-110, `org.apache.kafka.common.compress`, <https://github.com/xerial/snappy-java>.

use std::io::{self, Read, Write};

use thiserror::Error;

/// Codec of a batch, as in the lowest three bits of its attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// Records as they are.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy in xerial framing.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// Largest window a zstd frame may ask for, as a power of two: 8 MiB, which Kafka's own levels stay within.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Highest zstd level we write with; above it the window outgrows [`ZSTD_WINDOW_LOG_MAX`].
pub const ZSTD_LEVEL_MAX: i32 = 19;

/// `0x82 "SNAPPY" 0x00`, version 1, lowest compatible version 1.
const XERIAL_HEADER: [u8; 16] =
    [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_MAGIC_BYTES: usize = 8;
/// Block size of the Java client.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;
/// No snappy element unpacks to more than 64 bytes from 3, so a stated size beyond this factor is a lie.
const SNAPPY_EXPANSION_MAX: usize = 22;

/// Why bytes could not be unpacked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DecompressError {
    /// They unpack to more than the caller allows.
    #[error("unpacks to more than {max_bytes} bytes")]
    TooLarge {
        /// The cap.
        max_bytes: usize,
    },
    /// They are not valid for their codec.
    #[error("not valid {codec}: {reason}")]
    Corrupt {
        /// Which codec.
        codec: &'static str,
        /// In the codec's words.
        reason: String,
    },
}

/// Why bytes could not be packed: the codec refused, for want of memory in practice.
#[derive(Debug, Error)]
#[error("{codec} failed: {reason}")]
pub struct CompressError {
    /// Which codec.
    pub codec: &'static str,
    /// In the codec's words.
    pub reason: String,
}

impl Compression {
    /// From the lowest three bits of a batch's attributes.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// As in a batch's attributes.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self as u8
    }

    /// The name Kafka's `compression.type` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Appends `input`, packed. `level` is the codec's own (gzip 0-9, zstd 1-19; snappy and lz4 have none),
    /// `None` its default.
    ///
    /// # Errors
    /// The codec refused; `out` may have grown.
    pub fn compress(
        self,
        level: Option<i32>,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CompressError> {
        let failed = |error: &dyn std::fmt::Display| CompressError {
            codec: self.name(),
            reason: error.to_string(),
        };
        match self {
            Self::None => out.extend_from_slice(input),
            Self::Gzip => {
                let level = flate2::Compression::new(level.unwrap_or(6).clamp(0, 9) as u32);
                let mut encoder = flate2::write::GzEncoder::new(out, level);
                encoder.write_all(input).map_err(|error| failed(&error))?;
                encoder.finish().map_err(|error| failed(&error))?;
            }
            Self::Snappy => compress_xerial(input, out).map_err(|error| failed(&error))?,
            Self::Lz4 => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(out);
                encoder.write_all(input).map_err(|error| failed(&error))?;
                encoder.finish().map_err(|error| failed(&error))?;
            }
            Self::Zstd => {
                let level = level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL).min(ZSTD_LEVEL_MAX);
                let mut compressor =
                    zstd::bulk::Compressor::new(level).map_err(|error| failed(&error))?;
                let packed = compressor.compress(input).map_err(|error| failed(&error))?;
                out.extend_from_slice(&packed);
            }
        }
        Ok(())
    }

    /// Appends `input`, unpacked, which may add at most `max_bytes` to `out`.
    ///
    /// # Errors
    /// `input` is damaged or too large; `out` may have grown.
    pub fn decompress(
        self,
        input: &[u8],
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        match self {
            Self::None if input.len() > max_bytes => Err(DecompressError::TooLarge { max_bytes }),
            Self::None => {
                out.extend_from_slice(input);
                Ok(())
            }
            Self::Gzip => self.read_all(flate2::read::MultiGzDecoder::new(input), max_bytes, out),
            Self::Snappy => decompress_snappy(input, max_bytes, out),
            Self::Lz4 => self.read_all(lz4_flex::frame::FrameDecoder::new(input), max_bytes, out),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)
                    .map_err(|error| self.corrupt(&error))?;
                decoder
                    .window_log_max(ZSTD_WINDOW_LOG_MAX)
                    .map_err(|error| self.corrupt(&error))?;
                self.read_all(decoder, max_bytes, out)
            }
        }
    }

    fn read_all(
        self,
        decoder: impl Read,
        max_bytes: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecompressError> {
        // One byte more than allowed tells "too large" from "exactly full".
        let read = decoder
            .take(max_bytes as u64 + 1)
            .read_to_end(out)
            .map_err(|error| self.corrupt(&error))?;
        if read > max_bytes { Err(DecompressError::TooLarge { max_bytes }) } else { Ok(()) }
    }

    fn corrupt(self, error: &dyn std::fmt::Display) -> DecompressError {
        DecompressError::Corrupt { codec: self.name(), reason: error.to_string() }
    }
}

fn compress_xerial(input: &[u8], out: &mut Vec<u8>) -> Result<(), snap::Error> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block)?;
        out.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(())
}

fn decompress_snappy(
    input: &[u8],
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let corrupt = |reason: &str| DecompressError::Corrupt {
        codec: Compression::Snappy.name(),
        reason: reason.to_owned(),
    };
    if !input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_BYTES]) {
        return decompress_snappy_block(input, max_bytes, out);
    }
    let mut rest = input
        .get(XERIAL_HEADER.len()..)
        .ok_or_else(|| corrupt("the framing header is cut short"))?;
    let mut left_bytes = max_bytes;
    while !rest.is_empty() {
        let (length, tail) =
            rest.split_first_chunk::<4>().ok_or_else(|| corrupt("a block length is cut short"))?;
        let (block, tail) = tail
            .split_at_checked(u32::from_be_bytes(*length) as usize)
            .ok_or_else(|| corrupt("a block is cut short"))?;
        let before = out.len();
        decompress_snappy_block(block, left_bytes, out).map_err(|error| match error {
            DecompressError::TooLarge { .. } => DecompressError::TooLarge { max_bytes },
            other => other,
        })?;
        left_bytes -= out.len() - before;
        rest = tail;
    }
    Ok(())
}

fn decompress_snappy_block(
    block: &[u8],
    max_bytes: usize,
    out: &mut Vec<u8>,
) -> Result<(), DecompressError> {
    let corrupt = |error: snap::Error| Compression::Snappy.corrupt(&error);
    let length = snap::raw::decompress_len(block).map_err(corrupt)?;
    if length > max_bytes {
        return Err(DecompressError::TooLarge { max_bytes });
    }
    if length > block.len().saturating_mul(SNAPPY_EXPANSION_MAX) {
        return Err(Compression::Snappy.corrupt(&"the stated size is impossible"));
    }
    let start = out.len();
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(corrupt)?;
    Ok(())
}

impl From<CompressError> for io::Error {
    fn from(error: CompressError) -> Self {
        Self::other(error)
    }
}
