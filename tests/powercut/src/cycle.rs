//! One log through many power cuts.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use system_tests::random::Random;

use crate::books::{Books, Counts, Told};
use crate::disk::{Disk, Survival};
use crate::follower::{Follower, read_everything};
use crate::fuse::Mounted;
use crate::load::{self, Load};
use crate::process::{Process, Site, Start};
use crate::report::Row;
use crate::variation::Variation;

/// Acknowledgements before a cut: at least, and at most this many more.
const ACKS_MIN: u64 = 700;
const ACKS_MORE: u64 = 1_400;
/// How far ahead of the moment a cut is set, in operations of the disk: some groups of all lanes.
const OPERATIONS_AHEAD: u64 = 40;
/// What a start takes, about: on a new disk, and on one that was used.
const OPERATIONS_OF_START: [u64; 2] = [55, 32];
const LOAD_WITHIN: Duration = Duration::from_secs(60);
const CUT_WITHIN: Duration = Duration::from_secs(5);
/// How long the gateway may take to name what reading found damaged.
const NAMED_WITHIN: Duration = Duration::from_secs(10);
/// How often each of these happens: one time in so many.
const CUT_AT_START: u64 = 5;
const CLEAN_STOP: u64 = 12;
const ROT: u64 = 2;

/// A log, its disk and its books.
#[derive(Debug)]
pub struct Life {
    variation: Variation,
    site: Site,
    disk: Disk,
    books: Books,
    told: Told,
    /// What the last cut did, for messages.
    last: String,
}

impl Life {
    /// An empty disk.
    ///
    /// # Errors
    /// No room, no ports.
    pub fn new(variation: Variation) -> Result<Self> {
        let mut books = Books::new(variation.incompressible);
        load::add_sources(&mut books);
        let site = Site::new(&variation.config())?;
        let last = "nothing yet".to_owned();
        Ok(Self { variation, site, disk: Disk::default(), books, told: Told::default(), last })
    }

    /// Start, check, load, cut.
    ///
    /// # Errors
    /// A broken promise, or a gateway that does not start.
    pub fn cycle(&mut self, seed: u64, row: &mut Row) -> Result<()> {
        let mut random = Random::seeded(seed);
        while random.below(CUT_AT_START) == 0 {
            self.cut_at_start(&mut random, row)?;
        }
        let (disk, process) = self.start(row)?;
        let load = Load::start(self.site.mqtt(), self.site.kafka(), &self.books, seed)?;
        let follower = Follower::start(self.site.kafka(), &self.told)?;
        wait_for_acks(&load, ACKS_MIN + random.below(ACKS_MORE))
            .with_context(|| process.log_tail())?;
        if random.below(CLEAN_STOP) == 0 {
            let status = process.terminate()?;
            if !status.success() {
                bail!("SIGTERM ended in {status}");
            }
            row.clean_stops += 1;
        } else {
            disk.cut_after(random.below(OPERATIONS_AHEAD), random.below(2) == 0);
            if !disk.wait_until_off(CUT_WITHIN) {
                disk.cut_now();
            }
            process.kill(&disk)?;
        }
        disk.cut_now();
        disk.let_go();
        row.acked += load.finish(&mut self.books)?;
        follower.finish(&mut self.books)?;
        row.cycles += 1;
        self.lose(disk, &mut random, row)
    }

    /// Starts once more and checks, after the last cycle.
    ///
    /// # Errors
    /// A broken promise, or a gateway that does not start.
    pub fn end(&mut self, row: &mut Row) -> Result<()> {
        let (disk, process) = self.start(row)?;
        process.kill(&disk)?;
        self.disk = disk.unmount()?;
        Ok(())
    }

    /// A cut while the gateway starts.
    fn cut_at_start(&mut self, random: &mut Random, row: &mut Row) -> Result<()> {
        let is_used = usize::from(row.cycles > 0);
        let disk = self.mount()?;
        disk.cut_after(random.below(OPERATIONS_OF_START[is_used]), random.below(2) == 0);
        let (process, start) = self.site.start(&disk)?;
        row.cuts_at_start += u64::from(start == Start::Cut);
        disk.cut_now();
        process.kill(&disk)?;
        self.lose(disk, random, row)
    }

    /// Starts, and compares what is there with the books.
    fn start(&mut self, row: &mut Row) -> Result<(Mounted, Process)> {
        let disk = self.mount()?;
        let (process, start) = self.site.start(&disk)?;
        let Start::Ready(after) = start else { bail!("the power went off by itself") };
        row.ready.push(after);
        let began = Instant::now();
        let found = loop {
            self.told = Told::from_status(&self.site.status()?)?;
            match read_everything(self.site.kafka(), &self.told, &self.books)? {
                Some(found) => break found,
                // A full lane makes room ahead, also without a load.
                None if self.variation.forgets && began.elapsed() < NAMED_WITHIN => {}
                None => bail!("a start has moved on between status and fetch"),
            }
        };
        let counts = loop {
            self.told.gaps = Told::from_status(&self.site.status()?)?.gaps;
            match self.books.compare(&found, &self.told, self.variation.forgets) {
                Ok(counts) => break counts,
                // Reading finds rot where nobody had looked; it is judged, and named, a moment later.
                Err(_) if self.variation.rots.is_some() && began.elapsed() < NAMED_WITHIN => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error),
            }
        };
        let Counts { read, given_up, named } = counts;
        if named > 0 && self.variation.rots.is_none() {
            bail!("{named} acknowledged records are lost, if named by gaps");
        }
        row.read += read;
        row.given_up += given_up;
        row.named += named;
        Ok((disk, process))
    }

    /// The disk as it is now stays here, to be looked into if this start fails.
    fn mount(&self) -> Result<Mounted> {
        Mounted::mount(self.disk.clone(), self.variation.cache, &self.site.mount_point())
    }

    /// What was not synced is lost.
    fn lose(&mut self, disk: Mounted, random: &mut Random, row: &mut Row) -> Result<()> {
        self.disk = disk.unmount()?;
        let survival = Survival::any(random);
        self.disk.cut(survival, random);
        row.cuts += 1;
        self.last = format!("of what was not synced survived {survival}");
        if let Some(part) = self.variation.rots
            && random.below(ROT) == 0
            && let Some(rotten) = self.disk.rot(part, random)
        {
            row.rotten += 1;
            self.last = format!("{}; rot: {rotten:?}", self.last);
        }
        Ok(())
    }

    /// What is needed to look into a failure: what the last cut did, the gateway's log, and its files.
    ///
    /// # Errors
    /// No room.
    pub fn keep(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("cut"), &self.last)?;
        fs::copy(self.site.log_path(), folder.join("log"))?;
        fs::write(folder.join("edge-broker.toml"), self.variation.config())?;
        for (path, number) in self.disk.paths() {
            let path = folder.join("disk").join(path);
            match self.disk.file(number) {
                Ok(content) => fs::write(path, content.durable())?,
                Err(_) if self.disk.folder(number).is_ok() => fs::create_dir_all(path)?,
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// What the last cut did.
    pub fn last_cut(&self) -> &str {
        &self.last
    }
}

fn wait_for_acks(load: &Load, acks: u64) -> Result<()> {
    let began = Instant::now();
    while load.acked() < acks {
        if load.has_ended() {
            bail!("a client was cut off while the power was on");
        }
        if began.elapsed() > LOAD_WITHIN {
            bail!("{} of {acks} acknowledgements after {LOAD_WITHIN:?}", load.acked());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
