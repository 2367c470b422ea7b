//! The will of a client that is gone: a publish of its own, on nobody's connection.

use std::sync::Arc;
use std::time::Instant;

use crate::intake::{Blocked, HandOver, Intake};
use crate::mailbox::{Fate, Mailbox};
use crate::registry::fan_out_all;
use crate::sessions::LateWill;
use crate::shared::Shared;

/// Publishes a will as its client would have, and gives it to subscribers when it may.
pub(crate) async fn publish(shared: Arc<Shared>, late: LateWill) {
    use edge_mqtt::SessionSink;

    let LateWill { will, identity, session } = late;
    let mailbox = Arc::new(Mailbox::new(session.0, shared.lanes.len()));
    let mut intake = Intake::of_will(shared.clone(), mailbox.clone(), identity, session);
    let publish = will.publish();
    intake.begin(Instant::now(), shared.targets.boottime_us(), publish.payload.len(), 0);
    let _verdict = intake.publish(&publish);
    if let Some(Blocked::NoTopic(route)) = intake.blocked.take()
        && shared.targets.create(route).await.is_ok()
    {
        let _verdict = intake.publish(&publish);
    }
    let mut hand_overs = Vec::new();
    intake.finish(|hand_over| hand_overs.push(hand_over));
    for HandOver { lane, submission, waits } in hand_overs {
        if lane.submit(submission).await.is_err() {
            return;
        }
        let Some(waits) = waits else { continue };
        let fate = std::future::poll_fn(|cx| {
            mailbox.register(cx.waker());
            mailbox.look();
            match mailbox.fate(waits.ticket) {
                Fate::Open if mailbox.failure().is_none() => std::task::Poll::Pending,
                fate => std::task::Poll::Ready(fate),
            }
        });
        if fate.await == Fate::Durable {
            fan_out_all(&shared, &waits.held);
        }
    }
}
