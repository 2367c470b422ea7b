//! What to do next.

use std::sync::Arc;

use edge_wire::PartitionId;

use super::idempotent::{Producer, Replicator};
use super::target::{ItemState, Mode};
use super::topics::TopicState;
use super::{Action, Now};

impl Replicator {
    /// The next action; call it until it yields `None`.
    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        if let Some(released) = self.released.pop_front() {
            return Some(released);
        }
        if self.link.is_stalled(now.mono_us) {
            let random = (self.random)();
            let seconds = self.config.watchdog_us / 1_000_000;
            self.link.handle_failed(
                format!("nothing was acknowledged for {seconds} s"),
                now.mono_us,
                random,
            );
            return Some(Action::Disconnect);
        }
        if self.link.poll_connect(now.mono_us) {
            return Some(Action::Connect);
        }
        self.wake_recovered(now);
        self.wake_resting(now);
        if !self.link.is_up() {
            // Progress is made durable without a link, too.
            return self.poll_plan(now);
        }
        self.poll_producer(now)
            .or_else(|| self.poll_topics(now))
            .or_else(|| self.poll_send(now))
            .or_else(|| self.poll_plan(now))
    }

    /// When to call [`poll_action`](Self::poll_action) again at the latest, in microseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let mut at = self.link.poll_timeout();
        let mut earlier = |time: u64| at = Some(at.map_or(time, |at| at.min(time)));
        if self.link.is_up() {
            if let Producer::Absent { ask_at_us } = self.producer {
                earlier(ask_at_us);
            }
            for topic in &self.topics {
                match topic.state {
                    TopicState::Unknown { ask_at_us } => earlier(ask_at_us),
                    TopicState::Refused { retry_at_us } => earlier(retry_at_us),
                    TopicState::Asking | TopicState::Ready { .. } => {}
                }
            }
            for target in &self.recovering {
                let target = &self.targets[target.0];
                if let Mode::Recover { retry_at_us } = target.mode
                    && target.in_flight == 0
                {
                    earlier(retry_at_us);
                }
            }
        }
        if let Some((rest_at, _)) = self.resting.first() {
            earlier(*rest_at);
        }
        if self.persisting.is_none() {
            if !self.unplanned.is_empty() && self.link.is_up() && !self.sends.is_empty() {
                earlier(self.plan_rest_until_us);
            }
            if let Some(since) = self.progress_since_us
                && self.sends.is_empty()
            {
                earlier(
                    since
                        .saturating_add(self.config.progress_flush_us)
                        .max(self.persist_retry_at_us),
                );
            }
            if self.is_plan_lost {
                earlier(self.persist_retry_at_us);
            }
        }
        at
    }

    fn poll_producer(&mut self, now: Now) -> Option<Action> {
        if self.is_renewing
            && self.sends.is_empty()
            && matches!(self.producer, Producer::Known(..))
            && self.persisting.is_none()
        {
            self.producer = Producer::Absent { ask_at_us: now.mono_us };
        }
        match self.producer {
            Producer::Absent { ask_at_us } if now.mono_us >= ask_at_us => {
                self.producer = Producer::Requested;
                Some(Action::InitProducer)
            }
            _ => None,
        }
    }

    fn poll_topics(&mut self, now: Now) -> Option<Action> {
        let topic = self.topics.iter_mut().find(|topic| match topic.state {
            TopicState::Unknown { ask_at_us } => now.mono_us >= ask_at_us,
            TopicState::Refused { retry_at_us } => now.mono_us >= retry_at_us,
            TopicState::Asking | TopicState::Ready { .. } => false,
        })?;
        topic.state = TopicState::Asking;
        Some(Action::EnsureTopic {
            topic: topic.name.to_string(),
            partitions: topic.partitions_wanted,
            create: self.config.create_topics,
        })
    }

    fn poll_send(&mut self, now: Now) -> Option<Action> {
        let Producer::Known(id, epoch) = self.producer else { return None };
        if self.is_renewing {
            return None;
        }
        while let Some(index) = self.woken.front().copied() {
            let target = &mut self.targets[index.0];
            let topic = &self.topics[target.topic.0];
            let next = match topic.state {
                TopicState::Ready { .. } => {
                    target.next_to_send(self.durable_plan, self.config.in_flight_max)
                }
                _ => None,
            };
            let Some(next) = next else {
                target.is_woken = false;
                self.woken.pop_front();
                continue;
            };
            let send = self.next_send;
            self.next_send += 1;
            let item = &mut target.queue[next];
            item.state = ItemState::InFlight(send);
            let batch = item.stamped((id, epoch));
            target.in_flight += 1;
            self.sends.insert(send, index);
            self.link.handle_sent(now.mono_us);
            let partition = PartitionId(target.partition);
            return Some(Action::Send { send, topic: Arc::clone(&topic.name), partition, batch });
        }
        None
    }

    /// Targets whose wait is over and that have nothing in flight send again from the front.
    fn wake_recovered(&mut self, now: Now) {
        let due: Vec<_> = self
            .recovering
            .iter()
            .copied()
            .filter(|target| {
                let target = &self.targets[target.0];
                let is_due = match target.mode {
                    Mode::Flow => true,
                    Mode::Recover { retry_at_us } => now.mono_us >= retry_at_us,
                };
                is_due && target.in_flight == 0
            })
            .collect();
        for target in due {
            self.targets[target.0].mode = Mode::Flow;
            self.recovering.remove(&target);
            self.wake(target);
        }
    }
}
