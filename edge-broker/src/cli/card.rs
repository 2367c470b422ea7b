//! The files of a gateway, perhaps on a card taken out of it: what is where, and what was found damaged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_engine::LostLane;
use edge_engine::status::{Status, inspect};
use edge_engine::tools::{SYSTEM_LANE, StateCheck, lost_lanes};
use edge_log::inspect::{
    Damage, DamageKind, InspectError, LaneReport, Live, Note, Observer, StreamReport,
    VerifyOptions, verify_lane,
};
use edge_log::storage::FileStorage;
use edge_log::{JournalPosition, Storage};
use serde::{Deserialize, Serialize};

use crate::cli::Failure;
use crate::cli::progress::Progress;
use crate::uplink_bridge::STORED_ENDS;
use crate::{control_socket, data_dir};

/// What repairs have dealt with, in the data directory.
const LEDGER_FILE: &str = "repaired.json";
/// Folders that repairs keep copies in.
pub(super) const BACKUP_PREFIX: &str = "repair-";
/// Names in a data directory that are ours.
const OURS: [&str; 8] = [
    "auth.toml",
    "auth.toml.lock",
    "auth.toml.new",
    "lanes",
    "lock",
    "reserve",
    "status.sock",
    LEDGER_FILE,
];

/// A data directory that is only read.
pub(super) struct Card {
    pub(super) path: PathBuf,
    pub(super) storage: FileStorage,
}

/// What was found in it.
#[derive(Debug, Serialize)]
pub(super) struct CardReport {
    pub(super) sound: bool,
    /// A gateway runs on it.
    pub(super) running: bool,
    pub(super) lanes: Vec<LaneReport>,
    pub(super) notes: Vec<Note>,
}

/// Damage that a repair dealt with and that stays where it is until its segment is recycled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Dealt {
    pub(super) lane: String,
    pub(super) segment: u64,
    pub(super) byte: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Ledger {
    version: u32,
    places: Vec<Dealt>,
}

impl Card {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        if !path.join("lanes").is_dir() {
            return Err(Failure::Usage(format!(
                "{shown}: no gateway has written here; name its data directory with --data-dir"
            )));
        }
        let storage =
            FileStorage::open(path).map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
        Ok(Self { path: path.to_owned(), storage })
    }

    /// Whether a gateway runs on it.
    pub(super) fn is_running(&self) -> Result<bool, Failure> {
        data_dir::is_held(&self.path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", self.path.display())))
    }

    /// What the running gateway says of itself, if it answers.
    pub(super) fn ask(&self) -> Option<Status> {
        control_socket::ask_status(&self.path).ok().flatten()
    }

    pub(super) fn lanes(&self) -> Result<Vec<String>, Failure> {
        let mut names = self
            .storage
            .list("lanes")
            .map_err(|error| Failure::Usage(format!("{}/lanes: {error}", self.path.display())))?;
        names.retain(|name| self.path.join("lanes").join(name).is_dir());
        names.sort_unstable();
        Ok(names)
    }

    /// Looks at everything.
    pub(super) fn verify(&self) -> Result<CardReport, Failure> {
        let mut running = self.is_running()?;
        loop {
            let report = self.verify_as(running)?;
            // A gateway that was started meanwhile makes a half-read lane look damaged.
            if running || report.sound || !self.is_running()? {
                return Ok(report);
            }
            running = true;
        }
    }

    /// Looks at everything; the caller holds the data directory.
    pub(super) fn verify_stopped(&self) -> Result<CardReport, Failure> {
        self.verify_as(false)
    }

    fn verify_as(&self, running: bool) -> Result<CardReport, Failure> {
        let status = if running { self.ask() } else { None };
        let mut report =
            CardReport { sound: true, running, lanes: Vec::new(), notes: self.strangers() };
        let dealt = self.dealt_with();
        for name in self.lanes()? {
            let end = status.as_ref().and_then(|status| status.lanes.get(&name)?.journal_end);
            let options = VerifyOptions {
                live: running.then_some(Live { end }),
                dealt_with: dealt
                    .iter()
                    .filter(|place| place.lane == name)
                    .map(|place| (place.segment, place.byte))
                    .collect(),
            };
            let lane = self.verify_lane(&name, &options)?;
            report.sound &= lane.is_sound();
            report.lanes.push(lane);
        }
        if let Ok((catalogue, _)) = inspect(&self.storage, &self.path) {
            add_empty(&mut report, &catalogue);
        }
        if !running {
            self.add_lost(&mut report)?;
        }
        Ok(report)
    }

    /// Lanes that are gone altogether.
    fn add_lost(&self, report: &mut CardReport) -> Result<(), Failure> {
        let lost = lost_lanes(&self.storage, Some(&STORED_ENDS));
        let lost =
            lost.map_err(|error| Failure::Usage(format!("{}: {error}", self.path.display())))?;
        for lost in lost {
            report.sound = false;
            let damage = missing_lane(&lost);
            match report.lanes.iter_mut().find(|lane| lane.lane == lost.lane) {
                Some(lane) => lane.add(damage),
                None => {
                    let mut lane = LaneReport { lane: lost.lane, ..LaneReport::default() };
                    lane.add(damage);
                    report.lanes.push(lane);
                }
            }
        }
        Ok(())
    }

    fn verify_lane(&self, name: &str, options: &VerifyOptions) -> Result<LaneReport, Failure> {
        let mut watch = Watch {
            progress: Progress::new(format!("lane {name}")),
            state: (name == SYSTEM_LANE).then(StateCheck::default),
        };
        let dir = format!("lanes/{name}");
        let mut report = verify_lane(&self.storage, &dir, options, &mut watch)
            .map_err(|error| unreadable(&self.path, &error))?;
        let check = watch.state.unwrap_or_default();
        if let Some(error) = check.newer {
            return Err(Failure::Usage(format!("{}: {dir}: {error}", self.path.display())));
        }
        for (at, what) in check.wrong {
            report.add(owner_state(&dir, at, &what));
        }
        report.damage_omitted += check.wrong_more;
        Ok(report)
    }

    /// Names beside ours.
    fn strangers(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let mut note = |file: String| {
            notes.push(Note { file, what: "not a file of the gateway".to_owned() });
        };
        for name in names_in(&self.path) {
            if !OURS.contains(&name.as_str()) && !name.starts_with(BACKUP_PREFIX) {
                note(name);
            }
        }
        for name in names_in(&self.path.join("lanes")) {
            if !self.path.join("lanes").join(&name).is_dir() {
                note(format!("lanes/{name}"));
            }
        }
        notes
    }

    /// What repairs have dealt with. A ledger that cannot be read makes verify say more, never less.
    pub(super) fn dealt_with(&self) -> BTreeSet<Dealt> {
        let bytes = fs::read(self.path.join(LEDGER_FILE)).unwrap_or_default();
        let ledger: Ledger = serde_json::from_slice(&bytes).unwrap_or_default();
        if ledger.version == 1 { ledger.places.into_iter().collect() } else { BTreeSet::new() }
    }

    /// Adds places to the ledger and leaves out those whose segment is gone; whole or not at all.
    pub(super) fn deal_with(
        &self,
        places: &BTreeSet<Dealt>,
        starts: &BTreeMap<String, u64>,
    ) -> io::Result<()> {
        let mut all = self.dealt_with();
        all.extend(places.iter().cloned());
        all.retain(|place| starts.get(&place.lane).is_none_or(|start| place.segment >= *start));
        let ledger = Ledger { version: 1, places: all.into_iter().collect() };
        let temporary = self.path.join(format!("{LEDGER_FILE}.tmp"));
        fs::write(&temporary, serde_json::to_vec(&ledger)?)?;
        fs::File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, self.path.join(LEDGER_FILE))?;
        fs::File::open(&self.path)?.sync_all()
    }
}

/// Partitions that nothing was written to are known to the catalogue alone.
fn add_empty(report: &mut CardReport, status: &Status) {
    for told in status.streams.iter().filter(|told| told.durable_end == 0) {
        let Some(lane) = report.lanes.iter_mut().find(|lane| lane.lane == told.lane) else {
            continue;
        };
        let is_known = |stream: &StreamReport| {
            stream.topic.as_ref() == Some(&told.topic) && stream.partition == Some(told.partition)
        };
        let (Some(stream), false) = (told.stream, lane.streams.iter().any(is_known)) else {
            continue;
        };
        lane.streams.push(StreamReport {
            stream: stream.0,
            topic: Some(told.topic.clone()),
            partition: Some(told.partition),
            log_start: 0,
            first: 0,
            end: 0,
            records: 0,
            bytes: 0,
            missing: Vec::new(),
        });
    }
}

fn names_in(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

fn owner_state(dir: &str, at: JournalPosition, what: &str) -> Damage {
    Damage {
        kind: DamageKind::OwnerState,
        file: dir.to_owned(),
        byte: u64::from(at.byte),
        bytes: 0,
        segment: at.segment,
        group: None,
        what: what.to_owned(),
        lost: Vec::new(),
        lost_more: 0,
        blind: false,
        known: false,
        remedy: "if a newer program wrote it, use that; else edge-broker repair takes the topics from the lanes"
            .to_owned(),
    }
}

fn missing_lane(lost: &LostLane) -> Damage {
    Damage {
        kind: DamageKind::MissingLane,
        file: format!("lanes/{}", lost.lane),
        byte: 0,
        bytes: 0,
        segment: 0,
        group: None,
        what: lost.to_string(),
        lost: Vec::new(),
        lost_more: 0,
        blind: true,
        known: false,
        remedy: "put the directory back if there is a copy of it, before the next start: the gateway tells the loss and goes on without it"
            .to_owned(),
    }
}

/// Exit code 2: nothing can be said.
pub(super) fn unreadable(path: &Path, error: &InspectError) -> Failure {
    let place = match path.as_os_str().is_empty() {
        true => Path::new("."),
        false => path,
    };
    Failure::Usage(format!("{}: {error}", place.display()))
}

/// Progress, and the state as it goes by.
struct Watch {
    progress: Progress,
    state: Option<StateCheck>,
}

impl Observer for Watch {
    fn progress(&mut self, bytes: u64, of_bytes: u64) {
        Observer::progress(&mut self.progress, bytes, of_bytes);
    }

    fn checkpoint(&mut self, at: JournalPosition, owner: Option<&[u8]>) {
        if let Some(state) = &mut self.state {
            state.checkpoint(at, owner);
        }
    }

    fn event(&mut self, at: JournalPosition, tag: u16, bytes: &[u8]) {
        if let Some(state) = &mut self.state {
            state.event(at, tag, bytes);
        }
    }
}
