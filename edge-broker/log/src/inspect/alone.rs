//! Reading records from one segment file, wherever it is.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use edge_wire::{Offset, StreamId};

use super::InspectError;
use super::slots::{SegmentSeen, survey_file};
use crate::decoded::{BatchRef, GroupKind};
use crate::journal::directory::may_hold;
use crate::journal::frame::HeaderAt;
use crate::journal::scan::{Window, directories, frame, header_at, resync};
use crate::journal::unpack::Unpacker;
use crate::storage::{OpenMode, Storage, StorageFile};

/// A segment file that is read without its lane.
pub struct SegmentReader {
    file: Arc<dyn StorageFile>,
    segment: SegmentSeen,
    unpacker: Unpacker,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SegmentReader").field("path", &self.segment.path).finish_non_exhaustive()
    }
}

impl SegmentReader {
    /// Opens a segment file.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn open(storage: &dyn Storage, path: &str) -> Result<Self, InspectError> {
        let mut survey = survey_file(storage, path)?;
        let Some(segment) = survey.segments.pop() else {
            return Err(InspectError::NotASegment { path: path.to_owned() });
        };
        let file = storage.open(path, OpenMode::Read).map_err(|source| InspectError::Io {
            operation: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { file, segment, unpacker: Unpacker::default() })
    }

    /// Visits the batches of a stream that end behind `from`, in offset order: first those that were copied here from
    /// older segments. Damaged groups are left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read_batches(
        &self,
        stream: StreamId,
        from: Offset,
        visit: &mut dyn FnMut(BatchRef<'_>) -> ControlFlow<()>,
    ) -> io::Result<()> {
        for copied in [true, false] {
            if self.pass(stream, from, copied, visit)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn pass(
        &self,
        stream: StreamId,
        from: Offset,
        copied: bool,
        visit: &mut dyn FnMut(BatchRef<'_>) -> ControlFlow<()>,
    ) -> io::Result<ControlFlow<()>> {
        let (file, id) = (&*self.file, &self.segment.id);
        let mut window = Window::forgiving();
        let (mut byte, mut group) = (id.first_frame(), 0);
        while byte < id.segment_bytes {
            let header = match header_at(&mut window, file, id, byte)? {
                HeaderAt::Frame(header) if header.sequence > group => header,
                _ => {
                    let behind = byte.saturating_add(id.sector_bytes);
                    match resync(&mut window, file, id, behind, id.segment_bytes, group)? {
                        Some(header) => header,
                        None => break,
                    }
                }
            };
            byte = header.end().byte;
            group = header.sequence;
            if (header.kind == GroupKind::Copied) != copied || !header.kind.has_entries() {
                continue;
            }
            let own = directories(&mut window, file, &header)?.own;
            if !own.is_some_and(|own| may_hold(own, stream, from)) {
                continue;
            }
            let bytes = frame(&mut window, file, &header)?;
            let Ok(decoded) = self.unpacker.decode(&header, bytes) else { continue };
            for batch in decoded.batches_of(stream).filter(|batch| batch.end_offset() > from) {
                if visit(batch).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            self.unpacker.recycle(decoded);
        }
        Ok(ControlFlow::Continue(()))
    }
}
