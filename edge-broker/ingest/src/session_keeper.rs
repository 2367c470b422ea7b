//! The durable state of sessions, in step with the lanes.

use std::sync::{Mutex, PoisonError};

use edge_engine::{EventOwner, LaneEvents};
use edge_sessions::{EVENT_TAG, Limits, SYSTEM, SessionEvent, Store};

/// Keeps the [`Store`]: hands it what lanes hold when they are opened, and every event that has become durable.
#[derive(Debug, Default)]
pub struct SessionKeeper {
    store: Mutex<Store>,
    /// Lanes that began anew while sessions had places in them: to be told to `system`.
    reborn: Mutex<Vec<String>>,
}

impl SessionKeeper {
    /// Without sessions.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { store: Mutex::new(Store::new(limits)), reborn: Mutex::default() }
    }

    /// Looks at the state, or plans a change of it. Held for a moment only: the lanes' threads wait for it.
    pub fn with<T>(&self, look: impl FnOnce(&mut Store) -> T) -> T {
        look(&mut self.store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// After all lanes were opened: drops what belongs to nobody, and gives the events that are to be made durable in
    /// `system`.
    pub fn settle(&self) -> Vec<(u16, Vec<u8>)> {
        self.with(Store::settle);
        let reborn =
            std::mem::take(&mut *self.reborn.lock().unwrap_or_else(PoisonError::into_inner));
        let events = reborn.into_iter().map(|lane| SessionEvent::LaneReborn { lane });
        events.map(|event| (EVENT_TAG, event.encode())).collect()
    }
}

impl EventOwner for SessionKeeper {
    fn recovered(&self, lane: &str, found: &LaneEvents<'_>) {
        let taken = self.with(|store| {
            let taken = store.recover(lane, found.checkpoint, found.with_tag(EVENT_TAG));
            if found.is_new && lane != SYSTEM {
                store.apply(SYSTEM, SessionEvent::LaneReborn { lane: lane.to_owned() });
            }
            taken
        });
        if let Err(error) = taken {
            tracing::error!(lane, %error, "what sessions had in this lane is not all there");
        }
        let has_sessions = self.with(|store| store.sessions().next().is_some());
        if found.is_new && lane != SYSTEM && has_sessions {
            self.reborn.lock().unwrap_or_else(PoisonError::into_inner).push(lane.to_owned());
        }
    }

    fn committed(&self, lane: &str, events: &[(u16, Vec<u8>)]) {
        self.with(|store| {
            for (_, bytes) in events.iter().filter(|(tag, _)| *tag == EVENT_TAG) {
                match SessionEvent::decode(bytes) {
                    Ok(event) => store.apply(lane, event),
                    Err(error) => tracing::error!(lane, %error, "an event of ours is not one"),
                }
            }
        });
    }

    fn checkpoint(&self, lane: &str, out: &mut Vec<u8>) {
        self.with(|store| store.checkpoint(lane, out));
    }
}
