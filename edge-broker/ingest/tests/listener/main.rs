//! The MQTT listener over real sockets, on an engine whose disk is simulated.
//!
//! "Nothing has arrived" is never a matter of time here: a PINGREQ is answered in order, so what is not
//! there before its PINGRESP was not sent before it.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod clients;
mod dead_letters;
mod durability;
mod ending;
mod fan_out;
mod full_lane;
mod garbage;
mod gate;
mod lasting;
mod limits;
mod records;
mod sessions;
mod support;
mod websocket;
