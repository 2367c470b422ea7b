//! A plain MQTT client over `std::net`, independent of the code under test.
//!
//! It writes 3.1.1 and 5 from the standards' tables, and hands back packets nearly raw, so that a
//! test can send what no library would and see exactly what came back.

mod client;
mod packet;

pub use client::{ConnectOptions, MqttClient};
pub use packet::{
    Incoming, Received, Version, connect_frame, put_publish, remaining_length, subscribe_frame,
};
