//! The Kafka listener: protocol handlers over the engine.
