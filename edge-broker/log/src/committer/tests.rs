use super::*;

fn committer(change: impl FnOnce(&mut LaneConfig)) -> Committer {
    let mut config = LaneConfig { sync_burst: 3, ..LaneConfig::default() };
    change(&mut config);
    Committer::new(&config)
}

/// Commits in `seconds` when a byte arrives every millisecond.
fn commits_under_load(committer: &mut Committer, seconds: u64) -> u64 {
    let (mut commits, mut pending) = (0, 0);
    for now_us in (0..seconds * 1_000_000).step_by(1000) {
        pending += 1;
        if committer.poll(now_us, pending) == CommitDecision::Now {
            committer.handle_commit(now_us);
            (commits, pending) = (commits + 1, 0);
        }
    }
    commits
}

#[test]
fn a_lone_writer_does_not_wait() {
    let mut committer = committer(|_| {});
    for second in 0..100u64 {
        let now_us = second * 100_000;
        assert_eq!(committer.poll(now_us, 10), CommitDecision::Now);
        committer.handle_commit(now_us);
        assert_eq!(committer.poll(now_us, 0), CommitDecision::Idle);
    }
}

#[test]
fn steady_load_syncs_once_a_window() {
    let with_window = |window_us| {
        commits_under_load(&mut committer(|config| config.commit_window_us = window_us), 100)
    };
    assert!((1950..=2010).contains(&with_window(50_000)), "{}", with_window(50_000));
    assert!((395..=410).contains(&with_window(250_000)), "{}", with_window(250_000));
}

/// Commits in a second when `clients` answer each commit `after_us` later with ten bytes each.
fn commits_of_waiting_clients(committer: &mut Committer, clients: u64, after_us: u64) -> u64 {
    let (mut commits, mut now_us, mut acked_us, mut pending) = (0, 0, 0, 0);
    while now_us < 1_000_000 {
        let arrived = (1..=clients).filter(|client| acked_us + after_us + 20 * client <= now_us);
        pending = pending.max(10 * arrived.count());
        if committer.poll(now_us, pending) == CommitDecision::Now {
            committer.handle_commit(now_us);
            committer.handle_latency(500);
            now_us += 500;
            (commits, pending, acked_us) = (commits + 1, 0, now_us);
        }
        now_us += 10;
    }
    commits
}

#[test]
fn who_waits_for_us_does_not_wait_out_the_window() {
    for clients in [1, 20] {
        let commits = commits_of_waiting_clients(&mut committer(|_| {}), clients, 100);
        assert!(commits > 500, "{commits} commits of {clients} clients");
    }
}

#[test]
fn who_waits_for_us_cannot_wear_out_the_card() {
    let mut committer = committer(|_| {});
    let saved = committer.echo.tokens / TOKEN;
    let commits: u64 = (0..60).map(|_| commits_of_waiting_clients(&mut committer, 1, 100)).sum();
    // The simulated clock starts anew with every round: nothing is gained back in between.
    assert!(commits <= saved + 60 * 21, "{commits} commits with {saved} saved up");
}

#[test]
fn slow_answers_are_no_echo() {
    let commits = commits_of_waiting_clients(&mut committer(|_| {}), 20, 10_000);
    assert!(commits <= 25, "{commits}");
}

#[test]
fn waiting_ends_with_the_window_or_enough_bytes() {
    let mut committer = committer(|config| config.sync_allowance_per_second = 0);
    for _ in 0..3 {
        assert_eq!(committer.poll(0, 1), CommitDecision::Now);
        committer.handle_commit(0);
    }
    assert_eq!(committer.poll(1000, 1), CommitDecision::Wait { until_us: 51_000 });
    assert_eq!(committer.poll(50_999, 2), CommitDecision::Wait { until_us: 51_000 });
    assert_eq!(committer.poll(2000, 32 << 10), CommitDecision::Now);
    assert_eq!(committer.poll(51_000, 2), CommitDecision::Now);
}

#[test]
fn a_slow_device_stretches_the_window() {
    let mut committer = committer(|config| config.sync_allowance_per_second = 0);
    for _ in 0..50 {
        committer.handle_commit(0);
        committer.handle_latency(100_000);
    }
    assert_eq!(committer.poll(0, 1), CommitDecision::Wait { until_us: 400_000 });
    for _ in 0..50 {
        committer.handle_latency(10_000_000);
    }
    assert_eq!(committer.poll(0, 1), CommitDecision::Wait { until_us: 1_000_000 });
}

/// Share of the time that a device is busy when a sync takes `latency_us` and `bytes` come every millisecond, after
/// the burst was used up.
fn busy(committer: &mut Committer, latency_us: u64, bytes: usize) -> f64 {
    let (mut now_us, mut pending, mut busy_us, mut from_us) = (0u64, 0, 0, 0);
    while now_us < 120_000_000 {
        if now_us >= 60_000_000 && from_us == 0 {
            (busy_us, from_us) = (0, now_us);
        }
        pending += bytes;
        let mut step_us = 1000;
        if committer.poll(now_us, pending) == CommitDecision::Now {
            committer.handle_commit(now_us);
            committer.handle_latency(latency_us);
            (busy_us, step_us) = (busy_us + latency_us, latency_us.max(1000));
            pending = bytes * (step_us / 1000 - 1) as usize;
        }
        now_us += step_us;
    }
    busy_us as f64 / (now_us - from_us) as f64
}

#[test]
fn a_slow_card_is_not_synced_back_to_back() {
    for latency_ms in [5, 20, 100, 200] {
        let share = busy(&mut committer(|_| {}), latency_ms * 1000, 10);
        assert!(
            share <= 0.25,
            "a sync of {latency_ms} ms keeps the card busy {share:.2} of the time"
        );
    }
}

#[test]
fn clients_that_wait_leave_a_slow_card_time_to_rest() {
    let mut slow = committer(|_| {});
    let (mut now_us, mut syncs) = (0, 0);
    // One client with one record in flight; a sync takes 100 ms.
    while now_us < 60_000_000 {
        match slow.poll(now_us, 10) {
            CommitDecision::Now => {
                slow.handle_commit(now_us);
                slow.handle_latency(100_000);
                syncs += 1;
                now_us += 100_100;
            }
            CommitDecision::Wait { until_us } => now_us = until_us,
            CommitDecision::Idle => unreachable!("bytes are pending"),
        }
    }
    assert!((150..=330).contains(&syncs), "{syncs} syncs of 100 ms in a minute");
}

#[test]
fn a_window_of_zero_never_waits() {
    let mut committer = committer(|config| config.commit_window_us = 0);
    for _ in 0..1000 {
        assert_eq!(committer.poll(5, 1), CommitDecision::Now);
        committer.handle_commit(5);
    }
}

#[test]
fn an_interval_lane_syncs_once_an_interval() {
    let mut committer = committer(|config| config.durability = Durability::Interval { ms: 500 });
    assert_eq!(committer.poll(0, 40 << 10), CommitDecision::Wait { until_us: 500_000 });
    assert_eq!(committer.poll(1, 256 << 10), CommitDecision::Now);
    let commits = commits_under_load(&mut committer, 100);
    assert!((199..=201).contains(&commits), "{commits}");
}

/// What a load and a wear budget come to.
struct Outcome {
    window_ms: u64,
    syncs_per_day: u64,
    bytes_per_day: u64,
    pages_per_day: u64,
    p50_ms: usize,
    p99_ms: usize,
}

const LATENCY_US: u64 = 2_000;
const WARM_UP_US: u64 = 10_800_000_000;
const MEASURED_US: u64 = 21_600_000_000;

/// A group of records of 200 bytes of telemetry as it is written: header, directories, compressed records, padding.
fn frame_bytes(records: u64) -> u64 {
    (500 + 30 * records).next_multiple_of(512)
}

/// Six hours of `count` records of 200 bytes every `every_us`, after three hours of the same.
fn simulate(budget_per_day: Option<u64>, count: u64, every_us: u64) -> Outcome {
    let mut committer = committer(|config| {
        config.sync_burst = 20;
        config.wear_bytes_per_day = budget_per_day;
    });
    let (mut now_us, mut arrival_us, mut total) = (0u64, 0u64, 0u64);
    let mut waiting: Vec<u64> = Vec::new();
    let mut waits_ms = [0u64; 2_000];
    let (mut syncs, mut bytes, mut pages) = (0u64, 0u64, 0u64);
    let end_us = WARM_UP_US + MEASURED_US;
    while now_us < end_us {
        while arrival_us <= now_us {
            waiting.push(arrival_us);
            arrival_us += every_us;
        }
        let records = waiting.len() as u64 * count;
        match committer.poll(now_us, records as usize * 210) {
            CommitDecision::Idle => now_us = arrival_us,
            CommitDecision::Wait { until_us } => now_us = until_us.min(arrival_us),
            CommitDecision::Now => {
                let written = frame_bytes(records);
                total += written;
                committer.handle_commit(now_us);
                committer.handle_latency(LATENCY_US);
                committer.handle_written(total);
                now_us += LATENCY_US;
                if now_us >= WARM_UP_US {
                    (syncs, bytes) = (syncs + 1, bytes + written);
                    pages += written.next_multiple_of(16 << 10);
                    for arrived_us in &waiting {
                        waits_ms[((now_us - arrived_us) / 1000) as usize] += 1;
                    }
                }
                waiting.clear();
            }
        }
    }
    let percentile = |part: f64| {
        let wanted = (waits_ms.iter().sum::<u64>() as f64 * part) as u64;
        let mut seen = 0;
        waits_ms.iter().position(|count| {
            seen += count;
            seen > wanted
        })
    };
    let days = MEASURED_US as f64 / 86_400e6;
    let a_day = |count: u64| (count as f64 / days) as u64;
    Outcome {
        window_ms: committer.pace().window_us / 1000,
        syncs_per_day: a_day(syncs),
        bytes_per_day: a_day(bytes),
        pages_per_day: a_day(pages),
        p50_ms: percentile(0.5).unwrap(),
        p99_ms: percentile(0.99).unwrap(),
    }
}

#[test]
fn a_wear_budget_is_kept_by_longer_windows() {
    const MIB: u64 = 1 << 20;
    println!(
        "records/s  budget/day  window ms  syncs/day  MiB/day  16K pages MiB/day  p50 ms  p99 ms"
    );
    for (count, every_us, budget_mib, p99_ms) in [
        // Arrivals come in steps of 10 ms at 1,000 a second: the window of 50 ms, one step, one sync.
        (10, 10_000, None, 62),
        (10, 10_000, Some(3_000), 1_002),
        (1, 10_000, None, 62),
        (1, 10_000, Some(1_024), 1_002),
        (1, 10_000, Some(512), 1_002),
        // A lone writer within the allowance: nothing but its sync.
        (1, 100_000, None, 2),
        (1, 100_000, Some(1_024), 2),
        (1, 100_000, Some(256), 1_002),
    ] {
        let found = simulate(budget_mib.map(|mib| mib * MIB), count, every_us);
        println!(
            "{:>9}  {:>10}  {:>9}  {:>9}  {:>7}  {:>17}  {:>6}  {:>6}",
            count * 1_000_000 / every_us,
            budget_mib.map_or("none".to_owned(), |mib| format!("{mib} MiB")),
            found.window_ms,
            found.syncs_per_day,
            found.bytes_per_day / MIB,
            found.pages_per_day / MIB,
            found.p50_ms,
            found.p99_ms,
        );
        assert!(found.p99_ms <= p99_ms, "p99 is {} ms", found.p99_ms);
        if let Some(mib) = budget_mib {
            // Half an hour of it may have been saved up before.
            let most = mib * MIB / 100 * 109;
            assert!(found.bytes_per_day <= most, "{} of {mib} MiB", found.bytes_per_day / MIB);
        }
    }
}

#[test]
fn a_budget_below_the_records_themselves_is_told() {
    let mut committer = committer(|config| config.wear_bytes_per_day = Some(100 << 20));
    let mut total = 0;
    for second in 0..600u64 {
        let now_us = second * 1_000_000;
        committer.poll(now_us, 1);
        committer.handle_commit(now_us);
        total += 10_000;
        committer.handle_written(total);
    }
    let pace = committer.pace();
    assert_eq!((pace.window_us, pace.commit_bytes), (1_000_000, 256 << 10));
    assert!(pace.over_budget);
    // The load goes away: so does the widening.
    for second in 600..1_200u64 {
        committer.handle_commit(second * 1_000_000);
    }
    let pace = committer.pace();
    assert_eq!((pace.window_us, pace.commit_bytes, pace.widened), (50_000, 32 << 10, 0));
    assert!(!pace.over_budget);
}

#[test]
fn a_window_of_zero_is_not_widened() {
    let mut committer = committer(|config| {
        config.commit_window_us = 0;
        config.wear_bytes_per_day = Some(1 << 20);
    });
    for second in 0..600u64 {
        assert_eq!(committer.poll(second * 1_000_000, 1), CommitDecision::Now);
        committer.handle_commit(second * 1_000_000);
        committer.handle_written(second * 10_000);
    }
}

#[test]
fn a_spent_budget_does_not_throttle_large_groups_of_those_who_wait() {
    let mut committer = committer(|config| config.wear_bytes_per_day = Some(16 << 20));
    let (mut now_us, mut total, mut commits) = (0, 0, 0);
    while now_us < 300_000_000 {
        // A hundred clients answer within 200 microseconds, 50 KiB together.
        let arrived_us = now_us + 200;
        now_us = arrived_us;
        loop {
            match committer.poll(now_us, 50 << 10) {
                CommitDecision::Now => break,
                CommitDecision::Wait { until_us } => now_us = until_us,
                CommitDecision::Idle => unreachable!("bytes are pending"),
            }
        }
        assert!(now_us - arrived_us <= 2_000, "waited {} us", now_us - arrived_us);
        total += 10 << 10;
        committer.handle_commit(now_us);
        committer.handle_latency(500);
        committer.handle_written(total);
        now_us += 500;
        commits += 1;
    }
    assert!(committer.pace().over_budget && committer.pace().widened > 0);
    assert!(commits > 300 * 1_000, "{commits} in five minutes");
}

#[test]
fn the_first_latency_is_taken_whole_and_later_ones_by_an_eighth() {
    let mut committer = committer(|_| {});
    let latency_us = |committer: &Committer| committer.pace().latency_us;
    committer.handle_latency(8_000);
    assert_eq!(latency_us(&committer), 8_000);
    committer.handle_latency(16_000);
    assert_eq!(latency_us(&committer), 9_000);
    committer.handle_latency(u64::MAX);
    assert_eq!(latency_us(&committer), (9_000 * 7 + LATENCY_US_MAX) / 8);
}
