//! Replicates a backlog to a Kafka, reads it back and says how fast it went and whether all is there once.
//!
//! `cargo run --release -p uplink --example backlog -- 127.0.0.1:9092 [records] [partitions] [topic]`

#[path = "../tests/support/gateway.rs"]
mod gateway;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use edge_wire::{Offset, PartitionId};
use uplink::client::{At, Client, ClientOptions, FetchLimits, RecordStream};
use uplink::{Uplink, UplinkConfig};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = vec![arguments.next().unwrap_or_else(|| "127.0.0.1:9092".to_owned())];
    let records: u64 = arguments.next().map_or(Ok(2_000_000), |text| text.parse())?;
    let partitions: u32 = arguments.next().map_or(Ok(6), |text| text.parse())?;
    let stamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let topic = arguments.next().unwrap_or_else(|| format!("backlog-{stamp}"));

    let dir = tempfile::tempdir()?;
    let mut gateway = gateway::Gateway::open(dir.path(), &topic, partitions);
    let started = Instant::now();
    gateway.append(records, value);
    println!("logged {records} records of 200 bytes in {:?}", started.elapsed());

    let config = UplinkConfig { bootstrap: bootstrap.clone(), ..UplinkConfig::default() };
    let cpu = cpu_seconds();
    let started = Instant::now();
    let handle = Uplink::spawn(gateway.source(), gateway.store.clone(), config);
    let mut shown = Instant::now();
    while handle.status().counters.acked_records < records {
        tokio::time::sleep(Duration::from_millis(25)).await;
        if shown.elapsed() > Duration::from_secs(2) {
            shown = Instant::now();
            let status = handle.status();
            println!("{} {:?} {:?}", status.link, status.counters, status.error);
        }
    }
    let took = started.elapsed();
    let counters = handle.status().counters;
    println!(
        "replicated in {took:?}: {:.0} records/s, {} bytes on the wire ({:.3} of the values), {} batches, {} saves, {:.2} CPU s per million",
        records as f64 / took.as_secs_f64(),
        counters.wire_bytes,
        counters.wire_bytes as f64 / (records * 200) as f64,
        counters.sent_batches,
        gateway.store.saves.load(Ordering::Relaxed),
        (cpu_seconds() - cpu) * 1e6 / records as f64,
    );
    handle.shutdown().await;

    let client = Client::connect(&bootstrap, ClientOptions::default()).await?;
    let started = Instant::now();
    let mut read = 0;
    for partition in (0..partitions).map(PartitionId) {
        let end = client
            .list_offsets(&topic, partition, At::Latest)
            .await?
            .map_or(Offset(0), |found| found.offset);
        let mut next = Offset(0);
        let mut expected = u64::from(partition.0);
        while next < end {
            let limits = FetchLimits { max_bytes: 4 << 20, ..FetchLimits::default() };
            let fetched = client.fetch(&topic, partition, next, limits).await.map_err(|error| {
                format!("partition {} from {next} (end {end}): {error}", partition.0)
            })?;
            let mut stream = RecordStream::new(fetched.records, next);
            stream.for_each(|record| {
                let number = record
                    .value
                    .and_then(|value| value.first_chunk())
                    .map(|head| u64::from_le_bytes(*head));
                assert_eq!(
                    number,
                    Some(expected),
                    "partition {} offset {}",
                    partition.0,
                    record.offset
                );
                expected += u64::from(partitions);
                read += 1;
            })?;
            next = stream.next_offset();
        }
    }
    println!("read back in {:?}", started.elapsed());
    assert_eq!(read, records);
    println!("{read} records upstream, each once and in order");
    Ok(())
}

/// 200 bytes that vary as telemetry does.
fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let text = format!(
        r#"{{"machine":"press-{:03}","seq":{number},"temperature":{:.2},"torque":{:.3},"speed":{},"vibration":{:.5},"wear":{},"state":"running","line":"A"}}"#,
        number % 64,
        60.0 + (noise >> 56) as f64 / 16.0,
        12.0 + (noise >> 44 & 0xfff) as f64 / 1000.0,
        1400 + (noise >> 36 & 0xff),
        (noise >> 16 & 0xffff) as f64 / 65536.0,
        number / 64 % 250,
    );
    value.extend_from_slice(text.as_bytes());
    value.resize(200, b' ');
    value
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
    let mut ticks =
        || fields.next().and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (ticks() + ticks()) / 100.0
}
