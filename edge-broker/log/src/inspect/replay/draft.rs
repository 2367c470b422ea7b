//! A damaged place of which is not known yet what it cost.

use edge_wire::StreamId;

use crate::inspect::report::{Damage, DamageKind, LOST_MAX};
use crate::position::JournalPosition;

/// Damage whose consequences are known when everything was read.
pub(crate) struct Draft {
    pub(crate) damage: Damage,
    pub(crate) position: JournalPosition,
    /// What it held, as far as a directory tells; at most [`LOST_MAX`] ranges.
    pub(crate) held: Vec<(StreamId, u64, u64)>,
    /// More than that.
    pub(crate) held_more: u64,
    /// A recovery judged it and told so.
    pub(crate) judged: bool,
    /// An intact checkpoint stands behind it.
    pub(crate) superseded: bool,
}

impl Draft {
    /// More that it held; joined to what it is known to have held where they touch.
    pub(crate) fn hold(&mut self, stream: StreamId, from: u64, to: u64) {
        let of_stream = |held: &&mut (StreamId, u64, u64)| held.0 == stream;
        for held in self.held.iter_mut().filter(of_stream) {
            if held.2 == from {
                held.2 = to;
                return;
            }
            if held.1 == to {
                held.1 = from;
                return;
            }
        }
        if self.held.len() < LOST_MAX {
            self.held.push((stream, from, to));
        } else {
            self.held_more += 1;
        }
    }
}

/// Damage of a kind, to be filled in.
pub(crate) fn empty(kind: DamageKind) -> Damage {
    Damage {
        kind,
        file: String::new(),
        byte: 0,
        bytes: 0,
        segment: 0,
        group: None,
        what: String::new(),
        lost: Vec::new(),
        lost_more: 0,
        blind: false,
        known: false,
        remedy: kind.remedy().to_owned(),
    }
}
