//! `edge-broker repair`: what verify named, and only that, with a copy of the damaged files kept.
//!
//! What a repair can do in a log whose groups are checksummed: make what is lost a gap that every reader is told,
//! put a checkpoint behind the damage so that no later start meets it, write segment headers and side indexes anew,
//! and move aside what is no part of the log. Damaged groups stay where they are until their segment is recycled;
//! that they were dealt with stands in `repaired.json`. Nothing readable is given up, no offset is given out again.
//!
//! Exit code 0: sound now; 1: damage remains; 2: a gateway runs here, or it cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edge_engine::tools::{LaneRepair, repair_lane};
use edge_ingest::SessionKeeper;
use edge_log::Storage;
use edge_log::inspect::{DamageKind, LaneReport, mend};
use edge_log::storage::FileStorage;
use serde::Serialize;

use crate::card_args::RepairArgs;
use crate::cli::Failure;
use crate::cli::backup::Backup;
use crate::cli::card::{Card, CardReport, Dealt, unreadable};
use crate::cli::output::{print, print_json};
use crate::cli::verify::verdict;
use crate::data_dir::{DataDir, DataDirError};

/// One thing to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
enum Action {
    /// Write a segment's header anew.
    RestoreHeader { file: String },
    /// Move a file out of the way.
    MoveAside { file: String, why: String },
    /// Remove a damaged side index; a new one is written.
    RenewIndex { file: String },
    /// Remove an unfinished segment.
    RemoveUnfinished { file: String },
    /// Tell what is lost, put a checkpoint behind it, stop in order.
    Settle { lane: String, segments: Vec<u64>, indexes_only: bool },
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RestoreHeader { file } => write!(f, "write the header of {file} anew"),
            Self::MoveAside { file, why } => write!(f, "move {file} aside: {why}"),
            Self::RenewIndex { file } => write!(f, "make the index {file} anew"),
            Self::RemoveUnfinished { file } => write!(f, "remove {file}: an unfinished segment"),
            Self::Settle { lane, indexes_only: true, .. } => {
                write!(f, "write the missing indexes of lane {lane}")
            }
            Self::Settle { lane, segments, .. } => {
                let segments: Vec<String> = segments.iter().map(u64::to_string).collect();
                write!(
                    f,
                    "lane {lane}: tell what is lost in segment {} as gaps and go on behind it",
                    segments.join(", ")
                )
            }
        }
    }
}

#[derive(Serialize)]
struct Outcome {
    sound: bool,
    dry_run: bool,
    /// Where the copies are.
    backup: Option<PathBuf>,
    actions: Vec<Action>,
    /// What verify says: after the repair, or without one.
    report: CardReport,
}

pub(super) fn run(args: &RepairArgs) -> Result<(), Failure> {
    let card = Card::open(&args.data_dir)?;
    // A dry run writes nothing, not even its id into the lock; what runs meanwhile is asked once more behind it.
    let _held = if args.dry_run { None } else { Some(hold(&args.data_dir)?) };
    if args.dry_run {
        refuse_running(&card)?;
    }
    let before = card.verify_stopped()?;
    if args.dry_run {
        refuse_running(&card)?;
    }
    let actions = plan(&before);
    let mut outcome = Outcome {
        sound: before.sound,
        dry_run: args.dry_run,
        backup: None,
        actions,
        report: before,
    };
    if !args.dry_run && !outcome.actions.is_empty() {
        let mut backup = Backup::new(&args.data_dir, args.backup.as_deref());
        carry_out(&card, &outcome, &mut backup)?;
        outcome.backup = backup.path();
        outcome.report = card.verify_stopped()?;
        outcome.sound = outcome.report.sound;
    }
    if args.json {
        print_json(&outcome)?
    } else {
        print(&to_text(&outcome))?
    }
    verdict(&outcome.report)
}

fn hold(path: &Path) -> Result<DataDir, Failure> {
    let place = path.display().to_string();
    DataDir::open(path, &place).map_err(|error| match error {
        DataDirError::InUse { holder, .. } => runs_here(&place, &holder),
        other @ DataDirError::Unusable { .. } => Failure::Usage(other.to_string()),
    })
}

/// The same for who only looks.
fn refuse_running(card: &Card) -> Result<(), Failure> {
    if !card.is_running()? {
        return Ok(());
    }
    let holder = std::fs::read_to_string(card.path.join("lock")).unwrap_or_default();
    Err(runs_here(&card.path.display().to_string(), holder.trim()))
}

fn runs_here(place: &str, holder: &str) -> Failure {
    Failure::Usage(format!(
        "{place}: a gateway runs here (process {holder}); stop it first: what is damaged while it runs it tells as gaps by itself"
    ))
}

/// What is to be done about a report.
fn plan(report: &CardReport) -> Vec<Action> {
    let mut actions = Vec::new();
    for lane in &report.lanes {
        plan_lane(lane, &mut actions);
    }
    actions
}

fn plan_lane(lane: &LaneReport, actions: &mut Vec<Action>) {
    let (mut segments, mut indexes) = (BTreeSet::new(), false);
    let mut settle = lane.damage_omitted > 0;
    let mut aside = Vec::new();
    for damage in lane.damage.iter().filter(|damage| !damage.known) {
        let file = damage.file.clone();
        match damage.kind {
            // Nothing is left to repair; the next start tells the loss.
            DamageKind::MissingLane => {}
            DamageKind::SideIndex => {
                indexes = true;
                actions.push(Action::RenewIndex { file });
            }
            DamageKind::SegmentHeader if damage.segment > 0 => {
                actions.push(Action::RestoreHeader { file });
            }
            DamageKind::SegmentHeader
            | DamageKind::ForeignSegment
            | DamageKind::DoubleSegment
            | DamageKind::Unreadable => {
                settle |= damage.kind == DamageKind::Unreadable;
                aside.push(Action::MoveAside { file, why: damage.what.clone() });
            }
            _ => {
                settle = true;
                segments.extend((damage.segment > 0).then_some(damage.segment));
            }
        }
    }
    if settle || indexes {
        let lane = lane.lane.clone();
        let segments = segments.into_iter().collect();
        actions.push(Action::Settle { lane, segments, indexes_only: !settle });
    }
    // Only now: while the slot was there nobody knew what it held, and offsets jumped past it.
    actions.append(&mut aside);
    if !actions.is_empty() {
        let unfinished = lane.notes.iter().filter(|note| note.file.ends_with(".tmp"));
        actions.extend(unfinished.map(|note| Action::RemoveUnfinished { file: note.file.clone() }));
    }
}

fn carry_out(card: &Card, outcome: &Outcome, backup: &mut Backup) -> Result<(), Failure> {
    let storage: Arc<dyn Storage> = Arc::new(
        FileStorage::open(&card.path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", card.path.display())))?,
    );
    for lane in &outcome.report.lanes {
        for damage in lane.damage.iter().filter(|damage| !damage.known) {
            let is_moved = outcome.actions.iter().any(
                |action| matches!(action, Action::MoveAside { file, .. } if *file == damage.file),
            );
            if !is_moved {
                backup.copy(&damage.file)?;
            }
        }
    }
    backup.settle()?;
    for action in &outcome.actions {
        match action {
            Action::RestoreHeader { file } => {
                let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
                mend::restore_headers(&*storage, dir, std::slice::from_ref(file))
                    .map_err(|error| unreadable(&card.path, &error))?;
            }
            Action::MoveAside { file, .. } => backup.move_aside(file)?,
            Action::RenewIndex { file } | Action::RemoveUnfinished { file } => {
                backup.remove(file)?;
            }
            Action::Settle { lane, segments, indexes_only } => {
                let found = outcome.report.lanes.iter().find(|found| found.lane == *lane);
                let (segment_bytes, used_bytes) =
                    found.map_or((0, 0), |found| (found.segment_bytes, found.used_bytes));
                let repair = LaneRepair {
                    lane: lane.clone(),
                    segment_bytes,
                    used_bytes,
                    segments: segments.clone(),
                    indexes_only: *indexes_only,
                };
                repair_lane(&storage, &repair, Some(Arc::new(SessionKeeper::default()))).map_err(
                    |error| Failure::Failed(format!("{}: {}", card.path.display(), chain(&error))),
                )?;
            }
        }
    }
    backup.settle()?;
    note_dealt_with(card, &outcome.report)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = next.source();
    }
    text
}

/// What stays damaged on the disk until it is recycled is known from now on, unless its loss is told nowhere.
fn note_dealt_with(card: &Card, report: &CardReport) -> Result<(), Failure> {
    let places: BTreeSet<Dealt> = report
        .lanes
        .iter()
        .flat_map(|lane| {
            let left = lane.damage.iter().filter(|damage| damage.segment > 0);
            left.map(|damage| Dealt {
                lane: lane.lane.clone(),
                segment: damage.segment,
                byte: damage.byte,
            })
        })
        .collect();
    let starts: BTreeMap<String, u64> =
        report.lanes.iter().map(|lane| (lane.lane.clone(), lane.start.segment)).collect();
    card.deal_with(&places, &starts).map_err(|error| {
        Failure::Failed(format!("{}: the repair cannot be noted: {error}", card.path.display()))
    })
}

fn to_text(outcome: &Outcome) -> String {
    let mut text = String::new();
    if outcome.actions.is_empty() {
        let text_of = if outcome.sound {
            "nothing to repair"
        } else {
            "nothing that a repair can do: see edge-broker verify"
        };
        text.push_str(text_of);
        text.push('\n');
        return text;
    }
    text.push_str(if outcome.dry_run { "to be done:\n" } else { "done:\n" });
    for action in &outcome.actions {
        text.push_str(&format!("  {action}\n"));
    }
    if let Some(path) = &outcome.backup {
        text.push_str(&format!("copies of the damaged files: {}\n", path.display()));
    }
    if !outcome.dry_run {
        let lost: u64 = outcome
            .report
            .lanes
            .iter()
            .flat_map(|lane| &lane.gaps)
            .map(|gap| gap.range.to.saturating_sub(gap.range.from))
            .sum();
        let state =
            if outcome.sound { "sound now" } else { "damage remains: see edge-broker verify" };
        text.push_str(&format!("{state}; {lost} offsets are told as gaps in all\n"));
    }
    text
}
