//! Retained messages that subscriptions of this connection ask for, one at a time.

use std::collections::VecDeque;
use std::time::Instant;

use edge_auth::Action;
use edge_mqtt::{Delivery, SubscriptionOptions};

use super::Intake;

/// Retained messages that a subscription asks for.
pub(crate) struct WantsRetained {
    pub(crate) filter: Box<str>,
    pub(crate) options: SubscriptionOptions,
    /// The topic of the last one that was given.
    pub(crate) after: Option<Box<str>>,
}

impl Intake {
    /// The next retained message that a subscription asks for, if this client may get it.
    pub(crate) fn next_retained(&mut self, now: Instant) -> Option<Delivery> {
        while let Some(wanted) = self.wants_retained.front_mut() {
            let next = self.shared.retained.next(&wanted.filter, &mut wanted.after, now);
            let Some(message) = next else {
                self.wants_retained.pop_front();
                continue;
            };
            let topic = wanted.after.as_deref().unwrap_or_default();
            if !self.access.topic(&self.identity, Action::Subscribe, topic).is_allowed() {
                continue;
            }
            let qos = wanted.options.qos.min(message.qos);
            let subscription_ids = wanted.options.subscription_id.into_iter().collect();
            return Some(Delivery {
                retain: true,
                subscription_ids,
                ..Delivery::live(message, qos)
            });
        }
        self.wants_retained = VecDeque::new();
        None
    }
}
