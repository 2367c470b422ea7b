//! What the program weighs: the files that `cargo xtask dist` made, and an idle gateway's memory.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use system_tests::gateway::{self, workspace};

use crate::ingest::start_gateway;
use crate::report::{json_line, mib, table};

const TARGETS: [&str; 3] =
    ["aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf", "x86_64-unknown-linux-gnu"];

pub(crate) fn run() -> Result<()> {
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    let mut weigh = |name: &str, path: &std::path::Path| -> Result<()> {
        let bytes = std::fs::metadata(path)?.len();
        rows.push(vec![name.to_owned(), mib(bytes)]);
        figures.push(json!({"what": name, "bytes": bytes}));
        Ok(())
    };
    for target in TARGETS {
        let path = workspace().join("target").join(target).join("dist/edge-broker");
        if path.exists() {
            weigh(target, &path)?;
        }
    }
    weigh("the binary measured below", gateway::binary()?)?;

    let mut gateway = start_gateway(None)?;
    // Not a wait for anything: idle is what it is after a while of nothing.
    std::thread::sleep(Duration::from_secs(5));
    let before = gateway.server()?.usage()?;
    std::thread::sleep(Duration::from_secs(5));
    let after = gateway.server()?.usage()?;
    let idle_cpu_ms = (after.cpu.saturating_sub(before.cpu)).as_millis() as u64;
    rows.push(vec!["idle RSS".to_owned(), mib(after.rss_bytes)]);
    rows.push(vec!["idle CPU, ms in 5 s".to_owned(), idle_cpu_ms.to_string()]);
    rows.push(vec!["threads".to_owned(), after.threads.to_string()]);
    table(&["what", "size"], &rows);
    json_line(&json!({
        "bench": "size",
        "files": figures,
        "idle_rss_bytes": after.rss_bytes,
        "idle_cpu_ms_in_5_s": idle_cpu_ms,
        "threads": after.threads,
    }));
    Ok(())
}
