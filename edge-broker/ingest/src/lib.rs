//! The MQTT listener: sockets around the session machine, records into lanes, fan-out to subscribers.
