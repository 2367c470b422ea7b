//! System tests: one promise a file, run against the real binary and real peers.
