//! MQTT 3.1.1 and 5: frame validation, packets, session state machine, subscriptions. No I/O.
