//! Lane threads, topic catalogue and durable state: what every listener writes to and reads from.
