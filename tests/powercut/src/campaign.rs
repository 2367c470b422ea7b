//! Many cycles over all variations.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cycle::Life;
use crate::report::{Row, json_line, table, total};
use crate::variation::{CUTS, ROT, Variation};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Cycles with power cuts alone.
    pub cycles: u64,
    /// Cycles with rot besides.
    pub rot_cycles: u64,
    /// Everything that is left to chance follows from it.
    pub seed: u64,
    /// Only variations whose name contains this.
    pub only: String,
    /// Where a failure's files are kept.
    pub keep: PathBuf,
}

impl Default for Plan {
    /// What the project promises to withstand.
    fn default() -> Self {
        Self {
            cycles: 300,
            rot_cycles: 60,
            seed: 1,
            only: String::new(),
            keep: std::env::temp_dir().join("powercut"),
        }
    }
}

/// What came out.
#[derive(Debug)]
pub struct Outcome {
    /// Power cuts alone, summed up.
    pub cuts: Row,
    /// With rot, summed up.
    pub rot: Row,
    /// A table.
    pub table: String,
    /// One line.
    pub json: String,
}

/// Runs it; `progress` gets a line now and then.
///
/// # Errors
/// The first broken promise, with the seed and the cycle, and where its files are.
pub fn run(plan: &Plan, mut progress: impl FnMut(&str)) -> Result<Outcome> {
    let mut rows = Vec::new();
    let mut sums = Vec::new();
    for (variations, cycles, name) in
        [(&CUTS[..], plan.cycles, "power cuts"), (&ROT[..], plan.rot_cycles, "with rot")]
    {
        let chosen: Vec<&Variation> =
            variations.iter().filter(|variation| variation.name.contains(&plan.only)).collect();
        let mut group = Vec::new();
        for (index, variation) in chosen.iter().enumerate() {
            let share = share(cycles, index as u64, chosen.len() as u64);
            if share == 0 {
                continue;
            }
            let row = run_one(plan, variation, share)?;
            progress(&format!("{}: {} cycles, {} acknowledged", row.name, row.cycles, row.acked));
            group.push(row);
        }
        sums.push(total(name, &group));
        rows.extend(group);
    }
    let [cuts, rot] = <[Row; 2]>::try_from(sums).ok().context("two groups")?;
    let mut shown = rows.clone();
    shown.extend([cuts.clone(), rot.clone()].into_iter().filter(|row| row.cycles > 0));
    let json = json_line(plan.seed, &cuts, &rot, &rows);
    Ok(Outcome { cuts, rot, table: table(&shown), json })
}

/// How many of `cycles` the variation gets, of `count`: the first ones one more.
fn share(cycles: u64, index: u64, count: u64) -> u64 {
    cycles / count + u64::from(index < cycles % count)
}

/// Runs one variation.
///
/// # Errors
/// As [`run`].
pub fn run_one(plan: &Plan, variation: &Variation, cycles: u64) -> Result<Row> {
    let mut row = Row::new(variation.name);
    let mut life = Life::new(*variation)?;
    for cycle in 0..=cycles {
        // The variation's name keeps its seeds where others are left out or added.
        let salt = variation
            .name
            .bytes()
            .fold(0_u64, |salt, byte| salt.wrapping_mul(31) ^ u64::from(byte));
        let seed = plan.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (salt << 20) ^ cycle;
        let done = if cycle < cycles { life.cycle(seed, &mut row) } else { life.end(&mut row) };
        if let Err(error) = done {
            let folder = plan.keep.join(format!("seed-{}-cycle-{cycle}", plan.seed));
            let kept = match life.keep(&folder) {
                Ok(()) => format!("files in {}", folder.display()),
                Err(error) => format!("files not kept: {error:#}"),
            };
            return Err(error.context(format!(
                "{}, cycle {cycle} of --seed {}; at the last cut {}; {kept}",
                variation.name,
                plan.seed,
                life.last_cut()
            )));
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn cycles_are_shared_out_without_a_rest() {
        for (cycles, count) in [(300, 6), (5, 6), (7, 6), (0, 6), (60, 2)] {
            let shares = (0..count).map(|index| share(cycles, index, count));
            assert_eq!(shares.sum::<u64>(), cycles);
        }
    }
}
