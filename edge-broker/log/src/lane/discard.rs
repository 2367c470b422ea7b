//! Taking back what was appended and not committed: the lane was full, and whoever sent it gets it back.
//!
//! Offsets and sequences that were given out go back with it; nobody has seen them, as nothing beyond the durable
//! end is served. What is not a record (gaps, log starts, removed streams, events) stays in the pending group: it was
//! true when it was put there, and it is true when the group is written. Events that were bound to a record go with it.

use super::Lane;
use super::pending::NONE;

impl Lane {
    /// Forgets the records and batches of the pending group. Nothing of them was written: append them again, or not.
    pub fn discard_records(&mut self) {
        for touched in self.pending.touched() {
            let stream = self.streams.get_mut(touched.local);
            stream.next = self.pending.first_base(touched).unwrap_or(stream.next);
            stream.last_draft = NONE;
        }
        for change in &self.pending.producers {
            let stream = self.streams.get_mut(change.local);
            stream.live.clone_from(&stream.durable);
        }
        self.pending.clear_records();
    }

    /// Whether the next segment is ready: a lane that was full takes records again. Found out by
    /// [`maintain`](Self::maintain).
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.slots.has_ready()
    }
}
