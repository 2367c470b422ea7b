//! From the bytes of a frame to a group: checksums, decompression, tables.

use std::sync::{Mutex, PoisonError};

use super::format::{Malformed, malformed};
use super::frame::{BodyCodec, Directories, FrameHeader};
use crate::decoded::DecodedGroup;

/// Most buffers and contexts that are kept for the next group.
const SPARE_MAX: usize = 4;
/// Larger buffers are given back.
const SPARE_BYTES_MAX: usize = 512 << 10;

/// Decompression contexts and buffers, shared by all readers of a lane.
#[derive(Default)]
pub(crate) struct Unpacker {
    spare: Mutex<Spare>,
}

#[derive(Default)]
struct Spare {
    contexts: Vec<zstd::bulk::Decompressor<'static>>,
    buffers: Vec<Vec<u8>>,
}

impl Unpacker {
    /// Checks a frame and decodes it. `frame` holds all its bytes but the padding.
    pub(crate) fn decode(
        &self,
        header: &FrameHeader,
        frame: &[u8],
    ) -> Result<DecodedGroup, Malformed> {
        if !is_intact(header, frame) {
            return malformed("the body of a group is damaged");
        }
        let Some(directory) = Directories::own(header, frame) else {
            return malformed("the directory of a group is damaged");
        };
        let (mut body, mut raw) = (Vec::new(), Vec::new());
        if header.kind.has_entries() {
            body = self.buffer();
            self.unpack_body(header, frame, &mut body)?;
            raw.extend_from_slice(&frame[header.raw_at()..header.raw_end()]);
        }
        DecodedGroup::parse(header, directory, body, raw)
    }

    /// Unpacks the body of a frame whose CRC was checked.
    pub(crate) fn unpack_body(
        &self,
        header: &FrameHeader,
        frame: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        out.clear();
        let stored = &frame[header.body_at()..header.raw_at()];
        match header.codec {
            BodyCodec::Plain => out.extend_from_slice(stored),
            BodyCodec::Zstd => {
                // Bounded by the segment: checked when the header was decoded.
                out.reserve_exact(header.body_bytes as usize);
                let mut context = match self.lock().contexts.pop() {
                    Some(context) => context,
                    None => zstd::bulk::Decompressor::new()
                        .map_err(|_| Malformed { what: "no memory to unpack a group" })?,
                };
                let unpacked = context.decompress_to_buffer(stored, out);
                let mut spare = self.lock();
                if spare.contexts.len() < SPARE_MAX {
                    spare.contexts.push(context);
                }
                if unpacked.is_err() {
                    return malformed("the body of a group cannot be unpacked");
                }
            }
        }
        if out.len() != header.body_bytes as usize {
            return malformed("the body of a group is not as long as its header says");
        }
        Ok(())
    }

    /// An empty buffer, with the memory of an older group if there is one.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.lock().buffers.pop().unwrap_or_default()
    }

    /// Takes the memory of a group that nobody reads any more.
    pub(crate) fn recycle(&self, group: DecodedGroup) {
        self.recycle_buffers(group.into_buffers());
    }

    /// Takes the memory of body and raw section.
    pub(crate) fn recycle_buffers(&self, buffers: [Vec<u8>; 2]) {
        let mut spare = self.lock();
        for mut buffer in buffers {
            let fits = (1..=SPARE_BYTES_MAX).contains(&buffer.capacity());
            if fits && spare.buffers.len() < SPARE_MAX {
                buffer.clear();
                spare.buffers.push(buffer);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the stored body and the raw section are as they were written.
pub(crate) fn is_intact(header: &FrameHeader, frame: &[u8]) -> bool {
    frame
        .get(header.body_at()..header.raw_end())
        .is_some_and(|bytes| crc32c::crc32c(bytes) == header.body_crc)
}
