//! MQTT 3.1.1 and 5: frame validation, packets, session state machine, subscriptions. No I/O.

pub mod topic_filter;
pub use topic_filter::{FilterError, TopicError, matches, validate_filter, validate_topic};
