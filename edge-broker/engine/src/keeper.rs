//! The thread that keeps house: the scrub, the space reserve, the wear budget and its record.
//!
//! - It has a low priority, holds nothing that a lane's thread waits for, and sleeps between its looks.
//! - A wear budget is one for the whole data directory. Every look divides it among the lanes for records by need
//!   (wear.rs); the `system` lane is not held back, what it writes is taken off first.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use edge_log::LaneStats;

use crate::clock::boottime_us;
use crate::device::{Device, device_below};
use crate::disk::{self, DiskLevel, DiskStatus};
use crate::engine::SYSTEM;
use crate::lane_handle::LaneHandle;
use crate::reserve::{Reserve, ReserveSize};
use crate::scrubber::{ScrubSetup, Scrubber};
use crate::state::{EVENT_TAG, State, StateEvent};
use crate::submission::{Body, Submission};
use crate::wear::{DAY_S, KEY, LongTerm, WearMeter, WearStatus, Written, divide};

/// Between two looks.
const LOOK_EVERY_US: u64 = 10_000_000;
/// Time constant of a lane's rate, for dividing the budget.
const RATE_S: u64 = 600;

/// What the engine is told about the flash it writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlashSetup {
    /// The data directory; none: there is no file system to look at and nothing to keep a reserve on.
    pub data_dir: Option<PathBuf>,
    /// What all lanes together should write in a day at most; none: no budget.
    pub wear_bytes_per_day: Option<u64>,
    /// What the card can take before it wears out, as the operator says.
    pub card_endurance_bytes: Option<u64>,
    /// The scrub; none: off.
    pub scrub: Option<ScrubSetup>,
    /// What is kept for metadata and recovery; none: nothing.
    pub reserve: Option<ReserveSize>,
}

/// The house, as others see it.
pub(crate) struct Keeper {
    setup: FlashSetup,
    reserve: Option<Arc<Reserve>>,
    lanes: Vec<Arc<LaneHandle>>,
    work: Mutex<Work>,
    stopping: Mutex<bool>,
    wake: Condvar,
}

struct Work {
    meter: WearMeter,
    rates: Vec<Rate>,
    looked_us: u64,
    level: DiskLevel,
}

/// A lane's bytes a day.
#[derive(Clone, Copy, Default)]
struct Rate {
    total: u64,
    bytes_per_day: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic leaves counters that are a look old.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reserve that the setup asks for, taken if there is room: before lanes take the room.
pub(crate) fn open_reserve(setup: &FlashSetup) -> Option<Arc<Reserve>> {
    let reserve = Reserve::open(setup.data_dir.as_deref()?, setup.reserve?);
    if reserve.bytes() == 0 {
        return None;
    }
    match reserve.take() {
        Ok(true) => {}
        Ok(false) => tracing::warn!(bytes = reserve.bytes(), "no room for the reserve yet"),
        Err(error) => tracing::warn!(%error, "no reserve could be made"),
    }
    Some(Arc::new(reserve))
}

impl Keeper {
    pub(crate) fn new(
        setup: FlashSetup,
        reserve: Option<Arc<Reserve>>,
        lanes: &[Arc<LaneHandle>],
        state: &RwLock<State>,
    ) -> Arc<Self> {
        let now_us = boottime_us();
        let stored = {
            let state = state.read().unwrap_or_else(PoisonError::into_inner);
            LongTerm::decode(state.value(KEY))
        };
        for lane in lanes {
            if let Some(finished_s) = stored.scrubbed_s.get(lane.name()) {
                lane.scrub().set_finished_s(*finished_s);
            }
        }
        let (stats, _) = written(lanes, setup.data_dir.as_ref());
        let mut meter = WearMeter::new(stored, now_us, stats);
        meter.budget_bytes_per_day = setup.wear_bytes_per_day;
        meter.card_endurance_bytes = setup.card_endurance_bytes;
        let rates = lanes.iter().map(|lane| Rate { total: own(&lane.stats()), bytes_per_day: 0 });
        let work =
            Work { meter, rates: rates.collect(), looked_us: now_us, level: DiskLevel::default() };
        let keeper = Self {
            setup,
            reserve,
            lanes: lanes.to_vec(),
            work: Mutex::new(work),
            stopping: Mutex::new(false),
            wake: Condvar::new(),
        };
        keeper.share_budget(&mut lock(&keeper.work), now_us);
        Arc::new(keeper)
    }

    /// Until [`stop`](Self::stop).
    pub(crate) fn run(&self) {
        // Whoever acknowledges goes first. Where it is refused we only share more evenly.
        let _ = rustix::process::nice(10);
        let now_us = boottime_us();
        let setup =
            self.setup.scrub.unwrap_or(ScrubSetup { bytes_per_s: 0, ..ScrubSetup::default() });
        let mut scrubber = Scrubber::new(setup, &self.lanes, now_us);
        let mut look_us = now_us;
        loop {
            let now_us = boottime_us();
            if now_us >= look_us {
                self.look(now_us);
                look_us = now_us + LOOK_EVERY_US;
            }
            let powered_on_s = lock(&self.work).meter.powered_on_s(now_us);
            let scrub_us = scrubber.step(now_us, powered_on_s).unwrap_or(u64::MAX);
            let until_us = look_us.min(scrub_us);
            if self.sleep(Duration::from_micros(until_us.saturating_sub(boottime_us()))) {
                return;
            }
        }
    }

    /// Ends the thread, after the step it is at.
    pub(crate) fn stop(&self) {
        *lock(&self.stopping) = true;
        self.wake.notify_all();
    }

    /// `true`: stop.
    fn sleep(&self, time: Duration) -> bool {
        let stopping = lock(&self.stopping);
        if time.is_zero() {
            return *stopping;
        }
        let slept = self.wake.wait_timeout_while(stopping, time, |stopping| !*stopping);
        *slept.unwrap_or_else(PoisonError::into_inner).0
    }

    fn look(&self, now_us: u64) {
        let (written, _) = written(&self.lanes, self.setup.data_dir.as_ref());
        let mut work = lock(&self.work);
        work.meter.observe(now_us, written);
        let scrubbed = || self.scrubbed_s();
        let record = work.meter.record_due(now_us, &written, scrubbed);
        self.share_budget(&mut work, now_us);
        let before = work.level;
        let disk = self.disk();
        work.level = disk.as_ref().map_or(DiskLevel::Ok, |disk| disk.level);
        let now = work.level;
        drop(work);
        if let Some(disk) = disk.filter(|_| now > before) {
            tracing::warn!(
                used_percent = disk.used_percent,
                free_bytes = disk.free_bytes,
                "the disk of the data directory fills up"
            );
        }
        if let Some(reserve) = self.reserve.as_ref().filter(|reserve| !reserve.is_held()) {
            match reserve.take() {
                Ok(true) => tracing::info!(bytes = reserve.bytes(), "the reserve is there again"),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "the reserve cannot be made"),
            }
        }
        if let Some(record) = record {
            self.store(&record);
        }
    }

    fn scrubbed_s(&self) -> BTreeMap<String, u64> {
        let of =
            |lane: &Arc<LaneHandle>| Some((lane.name().to_owned(), lane.scrub().finished_s()?));
        self.lanes.iter().filter_map(of).collect()
    }

    /// In the state of the system lane: durable with its next group, and with every segment.
    fn store(&self, record: &LongTerm) {
        let event = StateEvent::ValueSet { key: KEY.to_vec(), bytes: record.encode() };
        let body = Body::Events(vec![(EVENT_TAG, event.encode())]);
        if let Some(system) = self.lanes.get(SYSTEM) {
            // Refused: it is told again in an hour.
            let _ = system.try_submit(Submission::new(body, None));
        }
    }

    fn share_budget(&self, work: &mut Work, now_us: u64) {
        let passed_s = now_us.saturating_sub(work.looked_us) / 1_000_000;
        if passed_s > 0 {
            work.looked_us = now_us;
            for (rate, lane) in work.rates.iter_mut().zip(&self.lanes) {
                rate.note(own(&lane.stats()), passed_s);
            }
        }
        let Some(budget) = self.setup.wear_bytes_per_day else { return };
        let system = work.rates.get(SYSTEM).map_or(0, |rate| rate.bytes_per_day);
        let budget = budget.saturating_sub(system).max(budget / 2);
        let (records, rates) = (&self.lanes[SYSTEM + 1..], &work.rates[SYSTEM + 1..]);
        let demands: Vec<Option<u64>> = records
            .iter()
            .zip(rates)
            .map(|(lane, rate)| {
                let is_hungry = lane.stats().pace.widened > 0
                    || rate.bytes_per_day >= lane.wear_budget().unwrap_or(u64::MAX) / 10 * 9;
                (!is_hungry).then_some(rate.bytes_per_day)
            })
            .collect();
        for (lane, part) in records.iter().zip(divide(budget, &demands)) {
            lane.set_wear_budget(part);
        }
    }

    fn disk(&self) -> Option<DiskStatus> {
        let mut disk = disk::look(self.setup.data_dir.as_deref()?)?;
        if let Some(reserve) = &self.reserve {
            (disk.reserve_bytes, disk.reserve_held) = (reserve.bytes(), reserve.is_held());
        }
        Some(disk)
    }

    /// What `status` tells: wear, disk, and the device or why it is unknown.
    pub(crate) fn status(&self) -> (WearStatus, Option<DiskStatus>, Result<Device, String>) {
        let now_us = boottime_us();
        let (written, device) = written(&self.lanes, self.setup.data_dir.as_ref());
        let mut work = lock(&self.work);
        work.meter.observe(now_us, written);
        (work.meter.status(now_us, &written), self.disk(), device)
    }
}

impl Rate {
    fn note(&mut self, total: u64, passed_s: u64) {
        let bytes = total.saturating_sub(self.total);
        self.total = total;
        let rate = u128::from(bytes) * u128::from(DAY_S) / u128::from(passed_s);
        let (old, weight) = (u128::from(self.bytes_per_day), u128::from(RATE_S));
        let mixed = (old * weight + rate * u128::from(passed_s)) / (weight + u128::from(passed_s));
        self.bytes_per_day = u64::try_from(mixed).unwrap_or(u64::MAX);
    }
}

fn own(stats: &LaneStats) -> u64 {
    stats.journal_bytes + stats.other_bytes
}

/// The counters of all lanes together, and of the device.
fn written(
    lanes: &[Arc<LaneHandle>],
    data_dir: Option<&PathBuf>,
) -> (Written, Result<Device, String>) {
    let mut sum = Written::default();
    for lane in lanes {
        let stats = lane.stats();
        sum.payload_bytes += stats.payload_bytes;
        sum.journal_bytes += stats.journal_bytes;
        sum.padding_bytes += stats.padding_bytes;
        sum.other_bytes += stats.other_bytes;
        sum.page_bytes += stats.page_bytes;
        sum.syncs += stats.syncs;
    }
    let device = match data_dir {
        Some(path) => device_below(path),
        None => Err("no data directory on a file system".to_owned()),
    };
    sum.device_bytes = device.as_ref().ok().map(|device| device.outermost().written_bytes);
    (sum, device)
}
