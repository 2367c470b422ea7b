//! Plain `cargo test` needs no network, no Java and no peers, and says what it left out.

use std::io::Write;

use system_tests::gate;

/// Straight to the terminal: the test runner keeps what a passing test prints to itself.
#[test]
fn left_out_tests_are_told_in_one_line() {
    if !gate::real_peers() {
        let line = "left out: tests against mosquitto, kcat and a real Apache Kafka; \
                    run them with `cargo xtask test`\n";
        std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
    }
    assert_eq!(gate::real_peers(), std::env::var("EDGE_SYSTEM_TESTS").is_ok_and(|v| v == "1"));
}
