//! `edge-broker verify`: every byte of the log, of a stopped or a running gateway, or of one segment file.
//!
//! Reads only. Exit code 0: sound, whatever rules of its lanes have thinned or dropped (it is listed); 1: damage that
//! nothing tells of yet; 2: it cannot be read.

use std::path::Path;

use edge_config::units::human_bytes;
use edge_log::inspect::{
    Damage, LaneReport, Lost, StreamReport, ToldGap, VerifyOptions, verify_segment,
};
use edge_log::storage::FileStorage;

use crate::card_args::VerifyArgs;
use crate::cli::Failure;
use crate::cli::card::{Card, CardReport, unreadable};
use crate::cli::output::{print, print_json};
use crate::cli::progress::Progress;
use crate::cli::table::table;

/// Ranges shown with one damaged place; `--json` has all.
const LOST_SHOWN: usize = 8;

pub(super) fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let report = match &args.segment {
        Some(file) => {
            let lane = look_at_segment(file)?;
            let sound = lane.is_sound();
            CardReport { sound, running: false, lanes: vec![lane], notes: Vec::new() }
        }
        None => Card::open(&args.data_dir)?.verify()?,
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(&to_text(&report))?;
    }
    verdict(&report)
}

/// Exit code 1 with one line if anything is damaged.
pub(super) fn verdict(report: &CardReport) -> Result<(), Failure> {
    if report.sound {
        return Ok(());
    }
    let places: u64 = report
        .lanes
        .iter()
        .map(|lane| {
            let new = lane.damage.iter().filter(|damage| !damage.known).count() as u64;
            new + lane.damage_omitted
        })
        .sum();
    let places = if places == 1 { "1 place".to_owned() } else { format!("{places} places") };
    Err(Failure::Failed(format!("damage in {places}")))
}

fn look_at_segment(file: &Path) -> Result<LaneReport, Failure> {
    let (storage, name) = beside(file)?;
    let mut progress = Progress::new(file.display().to_string());
    verify_segment(&storage, &name, &VerifyOptions::default(), &mut progress)
        .map_err(|error| unreadable(file.parent().unwrap_or(file), &error))
}

/// The folder of a file as a storage, and the file's name in it.
pub(super) fn beside(file: &Path) -> Result<(FileStorage, String), Failure> {
    let failed = |what: &str| Failure::Usage(format!("{}: {what}", file.display()));
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed("not the name of a file"))?.to_owned();
    if file.is_dir() {
        return Err(failed("a directory; name one segment file of it (slot-NNNN.seg)"));
    }
    if !file.is_file() {
        return Err(failed("there is no such file"));
    }
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let storage = FileStorage::open(folder).map_err(|error| failed(&error.to_string()))?;
    Ok((storage, name))
}

/// What people read.
pub(super) fn to_text(report: &CardReport) -> String {
    let mut text = String::new();
    if report.running {
        text.push_str("a gateway runs here: judged up to its durable end\n");
    }
    for lane in &report.lanes {
        text.push_str(&heading(lane));
        for damage in &lane.damage {
            text.push_str(&damage_text(lane, damage));
        }
        if lane.damage_omitted > 0 {
            text.push_str(&format!("  and {} more damaged places\n", lane.damage_omitted));
        }
        for note in &lane.notes {
            text.push_str(&format!("  note: {}: {}\n", note.file, note.what));
        }
    }
    for note in &report.notes {
        text.push_str(&format!("note: {}: {}\n", note.file, note.what));
    }
    let rows: Vec<Vec<String>> = report.lanes.iter().flat_map(stream_rows).collect();
    if !rows.is_empty() {
        text.push('\n');
        let heading = [
            "topic",
            "partition",
            "lane",
            "log start",
            "first",
            "end",
            "records",
            "bytes",
            "missing",
        ];
        text.push_str(&table(&heading, &rows));
    }
    let rows: Vec<Vec<String>> = report.lanes.iter().flat_map(gap_rows).collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &["missing of topic", "partition", "from", "to", "records", "told"],
            &rows,
        ));
    }
    text.push_str(if report.sound { "\nsound\n" } else { "\ndamaged\n" });
    text
}

fn heading(lane: &LaneReport) -> String {
    let name =
        if lane.lane.is_empty() { "segment".to_owned() } else { format!("lane {}", lane.lane) };
    let mut text = format!(
        "{name}: {} segments, {} frames, {} read, journal {} to {}",
        lane.segments,
        lane.frames,
        human_bytes(lane.read_bytes),
        lane.start,
        lane.end
    );
    if lane.clean_shutdown {
        text.push_str(", stopped in order");
    }
    if let Some(at) = lane.torn_tail {
        text.push_str(&format!(", a write at {at} was cut off (not acknowledged)"));
    }
    text.push('\n');
    text
}

fn damage_text(lane: &LaneReport, damage: &Damage) -> String {
    let state = if damage.known { "known" } else { "damage" };
    let mut text = format!("  {state}: {}, byte {}", damage.file, damage.byte);
    if damage.bytes > 0 {
        text.push_str(&format!(" ({} bytes)", damage.bytes));
    }
    text.push_str(&format!(
        ": {}\n    lane {}, segment {}",
        damage.what, lane.lane, damage.segment
    ));
    if let Some(group) = damage.group {
        text.push_str(&format!(", group {group}"));
    }
    let shown: Vec<String> = damage.lost.iter().take(LOST_SHOWN).map(range).collect();
    if !shown.is_empty() {
        let more = (damage.lost.len() - shown.len()) as u64 + damage.lost_more;
        text.push_str(&format!("; lost: {}", shown.join(", ")));
        if more > 0 {
            text.push_str(&format!(" and {more} more ranges"));
        }
    } else if damage.blind {
        text.push_str("; what it held is not known");
    } else {
        text.push_str("; no record is lost");
    }
    text.push('\n');
    if !damage.known {
        text.push_str(&format!("    {}\n", damage.remedy));
    }
    text
}

fn range(lost: &Lost) -> String {
    match (&lost.topic, lost.partition) {
        (Some(topic), Some(partition)) => {
            format!("{topic}/{partition} offsets {}..{}", lost.from, lost.to)
        }
        _ => format!("stream {} offsets {}..{}", lost.stream, lost.from, lost.to),
    }
}

fn stream_rows(lane: &LaneReport) -> impl Iterator<Item = Vec<String>> {
    lane.streams.iter().map(|stream| {
        let missing: u64 = stream.missing.iter().map(|hole| hole.to - hole.from).sum();
        vec![
            stream.topic.clone().unwrap_or_else(|| format!("(stream {})", stream.stream)),
            stream.partition.map_or_else(|| "-".to_owned(), |partition| partition.to_string()),
            lane.lane.clone(),
            stream.log_start.to_string(),
            stream.first.to_string(),
            stream.end.to_string(),
            stream.records.to_string(),
            stream.bytes.to_string(),
            missing.to_string(),
        ]
    })
}

fn gap_rows(lane: &LaneReport) -> impl Iterator<Item = Vec<String>> {
    lane.streams.iter().flat_map(|stream| {
        holes(lane, stream).into_iter().map(|hole| {
            vec![
                stream.topic.clone().unwrap_or_else(|| format!("(stream {})", stream.stream)),
                stream.partition.map_or_else(|| "-".to_owned(), |partition| partition.to_string()),
                hole.from.to_string(),
                hole.to.to_string(),
                hole.records.to_string(),
                hole.told,
            ]
        })
    })
}

/// What is missing of a stream, and what is said of it.
struct Hole {
    from: u64,
    to: u64,
    records: u64,
    told: String,
    policy: bool,
}

/// The holes of a stream. Those that one rule of the lane made are one: thinning leaves a hole before every record.
fn holes(lane: &LaneReport, stream: &StreamReport) -> Vec<Hole> {
    let gaps: Vec<_> = lane.gaps.iter().filter(|gap| gap.range.stream == stream.stream).collect();
    let mut holes: Vec<Hole> = Vec::new();
    for missing in &stream.missing {
        let (from, to) = (missing.from, missing.to);
        let overlaps = |gap: &&&ToldGap| gap.range.from < to && gap.range.to > from;
        let gap = gaps.iter().find(overlaps).filter(|_| missing.told);
        let policy = gap.is_some_and(|gap| gap.policy);
        let told = match gap {
            Some(gap) => gap.reason.clone(),
            None if missing.told => "yes".to_owned(),
            None => "no".to_owned(),
        };
        match holes.last_mut() {
            Some(last) if policy && last.policy && last.told == told => {
                last.to = to;
                last.records += to - from;
            }
            _ => holes.push(Hole { from, to, records: to - from, told, policy }),
        }
    }
    holes
}
