//! Loads: what a lane goes through while its disk is watched. Add one here and every proof runs it.

use std::sync::{Arc, Mutex, PoisonError};

use edge_log::{GroupCompression, LaneConfig, WhenFull};

use crate::disk::{Disk, Snapshot};
use crate::model::{Mark, Model, Values};
use crate::random::Random;
use crate::rig::{Habits, Rig};

/// A load.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What it is called on the command line.
    pub name: &'static str,
    /// The lane's settings.
    pub config: LaneConfig,
    /// What writes are multiples of.
    pub sector_bytes: u32,
    /// What is done, how often.
    pub habits: Habits,
    /// How many groups.
    pub steps: u64,
}

/// The disk and what was promised, right before an operation.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The disk.
    pub disk: Snapshot,
    /// What was promised.
    pub mark: Arc<Mark>,
}

/// A load that was run.
pub struct Trace {
    /// Of each operation that changed something.
    pub moments: Vec<Moment>,
    /// What was written.
    pub values: Values,
    /// Streams that were written to at the end.
    pub streams: Vec<u32>,
}

const HABITS: Habits = Habits {
    streams: 4,
    records: 14,
    value_bytes: 220,
    batches: 4,
    log_starts: 0,
    removals: 0,
    seals: 9,
    reopens: 0,
    uplink: 0,
    retention: 0,
};

/// All loads.
#[must_use]
pub fn all() -> Vec<Workload> {
    let small = LaneConfig {
        budget_bytes: 80 << 10,
        segment_bytes: 16 << 10,
        group_bytes_max: 4 << 10,
        commit_window_us: 0,
        decoded_cache_bytes: 4 << 10,
        compression: GroupCompression::None,
        when_full: WhenFull::Refuse,
        ..LaneConfig::default()
    };
    let uplink = LaneConfig { protect_unsent: true, ..small.clone() };
    let load = |name, config: &LaneConfig, habits| Workload {
        name,
        config: config.clone(),
        sector_bytes: 512,
        habits,
        steps: 110,
    };
    vec![
        load("ring", &small, HABITS),
        load(
            "packed",
            &LaneConfig { compression: GroupCompression::Zstd { level: 1 }, ..small.clone() },
            Habits { records: 20, batches: 2, ..HABITS },
        ),
        load("uplink", &uplink, Habits { uplink: 8, ..HABITS }),
        load(
            "drop-oldest",
            &LaneConfig { when_full: WhenFull::DropOldest { unsent: true }, ..uplink.clone() },
            Habits { uplink: 40, ..HABITS },
        ),
        load("topics", &small, Habits { log_starts: 5, removals: 12, retention: 9_000, ..HABITS }),
        load("restarts", &small, Habits { reopens: 6, seals: 4, ..HABITS }),
        load("growing", &LaneConfig { budget_bytes: 400 << 10, ..small.clone() }, HABITS),
        load("tiny-groups", &small, Habits { records: 2, value_bytes: 60, seals: 3, ..HABITS }),
        Workload {
            sector_bytes: 4096,
            ..load(
                "large-sectors",
                &LaneConfig {
                    segment_bytes: 64 << 10,
                    budget_bytes: 256 << 10,
                    group_bytes_max: 16 << 10,
                    ..small.clone()
                },
                Habits { records: 60, reopens: 15, ..HABITS },
            )
        },
    ]
}

/// The load of this name, or all.
pub(crate) fn wanted(name: Option<&str>) -> Vec<Workload> {
    let mut loads = all();
    loads.retain(|load| name.is_none_or(|name| load.name == name));
    loads
}

impl Workload {
    /// Runs it once and keeps the disk before every operation.
    ///
    /// # Errors
    /// The lane did something it must not do.
    pub fn record(&self, seed: u64) -> Result<Trace, String> {
        let disk = Disk::new(Snapshot::default(), self.sector_bytes);
        let model = Model::default();
        let moments = Arc::new(Mutex::new(Vec::<Moment>::new()));
        let (taken, seen) = (Arc::clone(&moments), model.clone());
        disk.observe(Box::new(move |now| {
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let mark = seen.mark();
            let known = taken.last().map(|last| &last.mark);
            let mark = match known.filter(|known| known.version == mark.version) {
                Some(known) => Arc::clone(known),
                None => Arc::new(mark),
            };
            taken.push(Moment { disk: now.clone(), mark });
        }));
        if matches!(self.config.when_full, WhenFull::DropOldest { unsent: true }) {
            model.allow_drops();
        }
        let mut random = Random(seed);
        let streams: Vec<u32> = (0..self.habits.streams).collect();
        let mut rig = Rig::open(Arc::new(disk.clone()), &self.config, &streams, seed >> 20)?;
        model.watch(rig.reader());
        for _ in 0..self.steps {
            rig.step(&self.habits, &mut random, &model)?;
        }
        disk.stop_observing();
        let mut moments =
            std::mem::take(&mut *moments.lock().unwrap_or_else(PoisonError::into_inner));
        moments.push(Moment { disk: disk.snapshot(), mark: Arc::new(model.mark()) });
        Ok(Trace { moments, values: model.values(), streams: rig.streams.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_runs_and_goes_round_its_ring() {
        for load in all() {
            let trace = load.record(5).unwrap_or_else(|error| panic!("{}: {error}", load.name));
            assert!(trace.moments.len() > 200, "{}: {}", load.name, trace.moments.len());
            let mark = &trace.moments[trace.moments.len() - 1].mark;
            let acknowledged: u64 = mark.streams.iter().map(|stream| stream.acknowledged).sum();
            assert!(acknowledged > 60, "{}: {acknowledged}", load.name);
            if load.name != "growing" && load.name != "tiny-groups" {
                let started = mark.streams.iter().any(|stream| stream.log_start > 0);
                assert!(started, "{}: nothing was recycled", load.name);
            }
        }
    }
}
