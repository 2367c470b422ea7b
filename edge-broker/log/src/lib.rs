//! Crash-safe lanes of partitioned logs: journal, recovery, index, retention. No tokio, no clock.
