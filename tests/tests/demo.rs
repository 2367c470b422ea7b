//! The README's first command: a short run ends with a good verdict, and says so by its exit code.

use std::time::Duration;

use anyhow::Result;
use system_tests::gateway::run_cli;

#[test]
fn a_short_demo_ends_with_every_acked_record_upstream_once() -> Result<()> {
    let output = run_cli(&["demo", "--seconds", "8", "--rate", "500"], Duration::from_secs(120))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stdout}\n{stderr}");
    assert!(stdout.to_lowercase().contains("exactly once"), "no verdict in {stdout}");
    Ok(())
}
