//! The part of `edge-broker status` that is about flash: how full, how fast it wears, what the scrub found.

use edge_config::units::human_bytes;
use edge_engine::status::Status;
use edge_engine::{DiskLevel, DiskStatus, PerDay, WearStatus};

const GIB: f64 = (1_u64 << 30) as f64;

/// A few lines; empty ones are left out.
pub(super) fn flash_text(status: &Status) -> String {
    let mut lines = Vec::new();
    lines.extend(status.disk.as_ref().map(disk));
    lines.push(device(status));
    lines.extend(rates(&status.wear));
    lines.extend(life(&status.wear));
    lines.extend(scrub(status));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn disk(disk: &DiskStatus) -> String {
    let mut text = format!(
        "disk: {} % of {} used, {} free",
        disk.used_percent,
        human_bytes(disk.total_bytes),
        human_bytes(disk.free_bytes)
    );
    match (disk.reserve_bytes, disk.reserve_held) {
        (0, _) => {}
        (bytes, true) => text.push_str(&format!(", reserve {}", human_bytes(bytes))),
        (bytes, false) => {
            text.push_str(&format!(
                ", reserve of {} given back: the disk is full",
                human_bytes(bytes)
            ));
        }
    }
    match disk.level {
        DiskLevel::Ok => {}
        DiskLevel::Warn => text.push_str(" (fills up)"),
        DiskLevel::High => text.push_str(" (make room)"),
        DiskLevel::Critical => text.push_str(" (make room now)"),
    }
    text
}

fn device(status: &Status) -> String {
    let Some(device) = &status.device else {
        let why = status.device_unknown.as_deref().unwrap_or("this gateway does not tell");
        return format!("device: unknown ({why})");
    };
    let volume = &device.volume;
    let mut text = format!(
        "device: {}, {} written since boot by everybody",
        volume.name,
        human_bytes(volume.written_bytes)
    );
    if let Some(disk) = &device.disk {
        text.push_str(&format!(" ({} to all of {})", human_bytes(disk.written_bytes), disk.name));
    }
    text
}

fn rates(wear: &WearStatus) -> Option<String> {
    let per_day = wear.per_day.as_ref()?;
    let mut text = format!("wear: {}", rate(per_day));
    if wear.powered_on_s < 86_400 {
        text.push_str(&format!(" (over {} min so far)", wear.powered_on_s / 60));
    }
    if let Some(long) = wear.long_term_per_day.as_ref().filter(|_| wear.powered_on_s > 2 * 86_400) {
        let days = wear.powered_on_s / 86_400;
        text.push_str(&format!("; over {days} days powered on {}", rate(long)));
    }
    if let Some(budget) = wear.budget_bytes_per_day {
        text.push_str(&format!("; budget {} a day", gib(budget)));
        if per_day.own > budget {
            text.push_str(" (exceeded)");
        }
    }
    Some(text)
}

fn rate(per_day: &PerDay) -> String {
    let device = per_day.device.map_or("unknown".to_owned(), gib);
    format!(
        "{} a day by lanes ({} in 16 KiB pages), device {device}, for {} of payload",
        gib(per_day.own),
        gib(per_day.pages),
        gib(per_day.payload)
    )
}

fn life(wear: &WearStatus) -> Option<String> {
    let endurance = wear.card_endurance_bytes?;
    let left = match wear.remaining_days {
        Some(days) if days > 36_500 => "more than 100 years left at this rate".to_owned(),
        Some(days) => format!("{days} days of powered-on time left at this rate"),
        None => "too early to say how long it lasts".to_owned(),
    };
    Some(format!("card: {} of endurance, {left}", human_bytes(endurance)))
}

fn scrub(status: &Status) -> Option<String> {
    let sum = |of: fn(&edge_engine::ScrubStatus) -> u64| -> u64 {
        status.lanes.values().map(|lane| of(&lane.scrub)).sum()
    };
    let (bytes, errors) = (sum(|scrub| scrub.bytes), sum(|scrub| scrub.errors));
    let finished = status.lanes.values().map(|lane| lane.scrub.finished_at_powered_on_s);
    // The lane that was done the longest time ago counts.
    let last = finished.min().flatten();
    if bytes == 0 && last.is_none() {
        return None;
    }
    let when = match last {
        None => "first pass under way".to_owned(),
        Some(at) => {
            let hours = status.wear.powered_on_s.saturating_sub(at) / 3_600;
            format!("last whole pass {hours} h of powered-on time ago")
        }
    };
    Some(format!("scrub: {} read again, {errors} damaged places, {when}", human_bytes(bytes)))
}

fn gib(bytes: u64) -> String {
    if bytes >= 1 << 30 { format!("{:.2} GiB", bytes as f64 / GIB) } else { human_bytes(bytes) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use edge_engine::status::LaneStatus;
    use edge_engine::{Device, DeviceCount, ScrubStatus, Written};

    use super::*;

    #[test]
    fn people_see_disk_wear_life_and_scrub() {
        let count = |name: &str, bytes| DeviceCount { name: name.into(), written_bytes: bytes };
        let per_day =
            PerDay { payload: 8 << 30, own: 3 << 30, pages: 5 << 30, device: Some(4 << 30) };
        let lane = LaneStatus {
            scrub: ScrubStatus {
                bytes: 12 << 20,
                errors: 1,
                finished_at_powered_on_s: Some(3_600),
                ..ScrubStatus::default()
            },
            ..LaneStatus::default()
        };
        let status = Status {
            lanes: BTreeMap::from([("normal".to_owned(), lane)]),
            device: Some(Device {
                volume: count("mmcblk0p2", 5 << 30),
                disk: Some(count("mmcblk0", 6 << 30)),
            }),
            disk: Some(DiskStatus {
                total_bytes: 32 << 30,
                free_bytes: 1 << 30,
                used_percent: 97,
                level: DiskLevel::Critical,
                reserve_bytes: 64 << 20,
                reserve_held: false,
            }),
            wear: WearStatus {
                powered_on_s: 3 * 3_600,
                since_start: Written::default(),
                per_day: Some(per_day),
                budget_bytes_per_day: Some(2 << 30),
                card_endurance_bytes: Some(50_000_000_000_000),
                remaining_days: Some(11_000),
                ..WearStatus::default()
            },
            ..Status::default()
        };
        let text = flash_text(&status);
        for expected in [
            "97 % of 32.0 GiB used, 1.0 GiB free, reserve of 64.0 MiB given back",
            "(make room now)",
            "mmcblk0p2, 5.0 GiB written",
            "6.0 GiB to all of mmcblk0",
            "3.00 GiB a day by lanes (5.00 GiB in 16 KiB pages), device 4.00 GiB, for 8.00 GiB of payload",
            "budget 2.00 GiB a day (exceeded)",
            "45.5 TiB of endurance, 11000 days",
            "12.0 MiB read again, 1 damaged places, last whole pass 2 h",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        let status = Status { device_unknown: Some("tmpfs".into()), ..Status::default() };
        assert_eq!(flash_text(&status), "device: unknown (tmpfs)\n");
    }
}
