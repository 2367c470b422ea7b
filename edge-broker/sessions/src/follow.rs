//! The way of one session through one lane.

use std::collections::BTreeMap;

use crate::place::Place;

/// Where a session stands in a lane while it is connected: what was handed over and is not done, and what is done
/// behind it. Bounded by `window`: with so many places between the cursor and what is read next, nothing is read.
#[derive(Clone, Debug)]
pub struct Follow {
    /// What is looked at next.
    next: Place,
    /// Handed over and not behind the cursor; true: done.
    window: BTreeMap<Place, bool>,
    window_max: usize,
    /// The cursor as it was last told to be made durable.
    told: Place,
    /// Something was done since then.
    is_owed: bool,
}

impl Follow {
    /// A session that is done with everything before `cursor`.
    #[must_use]
    pub fn new(cursor: Place, window_max: usize) -> Self {
        Self { next: cursor, window: BTreeMap::new(), window_max, told: cursor, is_owed: false }
    }

    /// What is to be looked at next.
    #[must_use]
    pub fn next(&self) -> Place {
        self.next
    }

    /// Whether something can be handed over.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.window.len() < self.window_max
    }

    /// Handed over and not done.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.window.values().filter(|done| !**done).count()
    }

    /// Everything before `next` was looked at.
    pub fn advance(&mut self, next: Place) {
        self.next = self.next.max(next);
    }

    /// The record at `place` was handed over. Places ascend.
    pub fn hand_over(&mut self, place: Place) {
        self.window.insert(place, false);
    }

    /// What was handed over from `place` on was not sent after all: it is looked at again.
    pub fn take_back(&mut self, place: Place) {
        self.window.split_off(&place);
        self.next = self.next.min(place);
    }

    /// The record at `place` is done: acknowledged, or not to be delivered after all.
    pub fn done(&mut self, place: Place) {
        if let Some(done) = self.window.get_mut(&place) {
            *done = true;
            self.is_owed = true;
        }
        while let Some(first) = self.window.first_entry()
            && *first.get()
        {
            first.remove();
        }
    }

    /// Everything before it is done.
    #[must_use]
    pub fn cursor(&self) -> Place {
        self.window.keys().next().copied().map_or(self.next, |first| first.min(self.next))
    }

    /// The cursor, if it is worth a write: something was done, or a segment was read through.
    pub fn take_moved(&mut self) -> Option<Place> {
        let cursor = self.cursor();
        let is_far = cursor.group.segment > self.told.group.segment;
        let moved = cursor > self.told && (self.is_owed || is_far);
        moved.then(|| {
            (self.told, self.is_owed) = (cursor, false);
            cursor
        })
    }

    /// The cursor, if it is not where it was last told to be: the session ends.
    #[must_use]
    pub fn untold(&self) -> Option<Place> {
        Some(self.cursor()).filter(|cursor| *cursor > self.told)
    }
}

#[cfg(test)]
mod tests {
    use edge_log::JournalPosition;

    use super::*;

    fn place(segment: u64, record: u32) -> Place {
        Place { group: JournalPosition { segment, byte: 512 }, record }
    }

    #[test]
    fn the_cursor_stays_before_what_is_not_done() {
        let mut follow = Follow::new(Place::START, 3);
        for record in 0..3 {
            follow.hand_over(place(1, record));
            follow.advance(place(1, record + 1));
        }
        assert!(!follow.has_room());
        follow.done(place(1, 1));
        assert_eq!((follow.cursor(), follow.in_flight()), (place(1, 0), 2));
        follow.done(place(1, 0));
        assert_eq!((follow.cursor(), follow.has_room()), (place(1, 2), true));
        follow.done(place(1, 2));
        assert_eq!(follow.cursor(), place(1, 3), "nothing waits: what was read is done");
    }

    #[test]
    fn reading_over_what_is_not_wanted_costs_a_write_per_segment_only() {
        let mut follow = Follow::new(place(1, 0), 3);
        follow.advance(place(1, 900));
        assert_eq!(follow.take_moved(), None);
        assert_eq!(follow.untold(), Some(place(1, 900)), "told when the connection ends");
        follow.advance(place(2, 0));
        assert_eq!(follow.take_moved(), Some(place(2, 0)));
        assert_eq!((follow.take_moved(), follow.untold()), (None, None));
        follow.hand_over(place(2, 5));
        follow.advance(place(2, 6));
        assert_eq!(follow.take_moved(), None);
        follow.done(place(2, 5));
        assert_eq!(follow.take_moved(), Some(place(2, 6)));
    }
}
