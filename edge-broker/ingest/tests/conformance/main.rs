//! One test for each normative statement of MQTT 5.0 and 3.1.1 that a server can break, in raw bytes
//! against the listener. Names begin with the statement's number: `mqtt5_3_3_2_8_...` is [MQTT-3.3.2-8]
//! of 5.0, `mqtt311_...` of 3.1.1. `tests/conformance.md` lists the statements and what stands for each.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]
#![allow(dead_code, unused_imports, reason = "the rig is shared with the tests of the listener")]

#[path = "../listener/gate.rs"]
mod gate;
#[path = "../listener/support.rs"]
mod support;

/// One body for both standards.
macro_rules! both {
    ($($(#[$attribute:meta])* $five:ident, $three:ident => $body:expr;)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $five() {
            let body: fn(edge_mqtt::Version) = $body;
            body(edge_mqtt::Version::V5);
        }

        $(#[$attribute])*
        #[test]
        fn $three() {
            let body: fn(edge_mqtt::Version) = $body;
            body(edge_mqtt::Version::V311);
        }
    )*};
}

mod connack;
mod connect;
mod data;
mod ending;
mod flow;
mod peer;
mod publish;
mod qos;
mod retained;
mod session;
mod shared;
mod subscribe;
mod topics;
mod will;
