//! `edge-broker export`: a topic's records from the log's files, without a broker.
//!
//! Reads only, on a read-only file system and beside a running gateway too. What can be read is written; what is
//! damaged or lost is told, and then the exit code is 1. What a rule left out (thinning, compaction, a full lane that
//! drops its oldest) is told as well, and is no damage. Exit code 2: wrong command line, or unreadable.
//!
//! Memory: one decoded group, the lane's bounded cache, and the output buffer. One partition after the other, each in
//! the order of its offsets, so an export that was interrupted goes on with `--partition` and `--from`.

mod missing;
mod sink;
mod source;

use std::ops::ControlFlow;
use std::path::Path;

use edge_log::BatchRef;
use edge_wire::Offset;
use serde::Serialize;

use crate::card_args::{ExportArgs, ExportFormat};
use crate::cli::Failure;
use crate::cli::output::{print_json, tell};
use crate::cli::progress::Progress;
use missing::{LeftOut, Missing, MissingList, NotThere};
use sink::Sink;
use source::{Part, Source};

/// What was written and what was not.
#[derive(Debug, Default, Serialize)]
struct Summary {
    topic: String,
    partitions: Vec<PartSummary>,
    records: u64,
    /// Everything that was asked for and is still kept is there.
    complete: bool,
}

#[derive(Debug, Serialize)]
struct PartSummary {
    partition: u32,
    /// First offset that was looked for, and the one to go on with.
    from: u64,
    next: u64,
    records: u64,
    missing: Vec<Missing>,
    /// Ranges beyond those listed.
    missing_more: u64,
    /// What is not there by a rule, one for each.
    left_out: Vec<LeftOut>,
}

pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    if args.from.zip(args.to).is_some_and(|(from, to)| from > to) {
        return Err(Failure::Usage("--from is behind --to: nothing lies between".to_owned()));
    }
    if args.since.zip(args.until).is_some_and(|(since, until)| since.0 > until.0) {
        return Err(Failure::Usage("--since is behind --until: nothing lies between".to_owned()));
    }
    let source = Source::open(args)?;
    let parts = source.parts(&args.topic, args.partition)?;
    let by_folder = args.format == ExportFormat::Batches
        && (parts.len() > 1 || args.out.as_deref().is_some_and(names_folder));
    refuse_missing_parent(args.out.as_deref())?;
    if by_folder && args.out.is_none() {
        return Err(Failure::Usage(format!(
            "{} has {} partitions, and batches do not say theirs: name one with --partition, or a directory with --out",
            args.topic,
            parts.len()
        )));
    }
    let mut summary = Summary { topic: args.topic.clone(), complete: true, ..Summary::default() };
    let mut sink =
        if by_folder { None } else { Some(Sink::open(args.format, args.out.as_deref())?) };
    for part in &parts {
        if let (true, Some(folder)) = (by_folder, &args.out) {
            let file = log_file(folder, part);
            sink = Some(Sink::open(args.format, Some(&file))?);
        }
        if let Some(sink) = &mut sink {
            let part = export_part(args, &source, part, sink)?;
            summary.records += part.records;
            summary.complete &= part.missing.is_empty();
            summary.partitions.push(part);
            if by_folder {
                sink.finish()?;
            }
        }
    }
    if let (false, Some(sink)) = (by_folder, &mut sink) {
        sink.finish()?;
    }
    report(args, &summary)
}

/// A directory, or a name that can only be one's.
fn names_folder(out: &Path) -> bool {
    out.is_dir() || out.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Of what is named with `--out` only the last part is made: a slip of the pen makes no tree of directories.
fn refuse_missing_parent(out: Option<&Path>) -> Result<(), Failure> {
    let Some(out) = out else { return Ok(()) };
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            let (out, parent) = (out.display(), parent.display());
            Err(Failure::Usage(format!(
                "{out}: there is no directory {parent}; make it, or name another with --out"
            )))
        }
        _ => Ok(()),
    }
}

/// Where Kafka would keep the log of a partition below a folder.
fn log_file(folder: &Path, part: &Part) -> std::path::PathBuf {
    folder.join(format!("{}-{}", part.topic, part.partition)).join("00000000000000000000.log")
}

fn report(args: &ExportArgs, summary: &Summary) -> Result<(), Failure> {
    if args.json {
        if args.out.is_some() {
            print_json(summary)?;
        } else {
            use std::io::Write as _;
            let text = serde_json::to_string(summary).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }
    let is_of_time = args.since.is_some() || args.until.is_some();
    if is_of_time && summary.records == 0 && summary.complete {
        tell(&format!("{}: there is no record of that time", summary.topic));
    }
    let mut ranges = 0;
    let mut offsets = 0;
    for part in &summary.partitions {
        for left_out in part.left_out.iter().filter(|_| !args.json) {
            tell(&format!(
                "{} partition {}: {} records of offsets {}..{} are left out by rule: {}",
                summary.topic,
                part.partition,
                left_out.records,
                left_out.from,
                left_out.to,
                left_out.rule
            ));
        }
        for missing in &part.missing {
            ranges += 1;
            offsets += missing.to - missing.from;
            if !args.json {
                tell(&format!(
                    "{} partition {}: offsets {}..{} are missing: {}",
                    summary.topic, part.partition, missing.from, missing.to, missing.why
                ));
            }
        }
        ranges += part.missing_more;
    }
    if ranges == 0 {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "{} records written; {offsets} offsets in {ranges} ranges are missing",
        summary.records
    )))
}

/// One partition, from its first offset that is wanted to its last.
fn export_part(
    args: &ExportArgs,
    source: &Source,
    part: &Part,
    sink: &mut Sink,
) -> Result<PartSummary, Failure> {
    let asked = args.from.unwrap_or(0);
    let mut from = asked.max(part.start);
    let is_asked = args.from.is_some() || args.to.is_some();
    if is_asked
        && part.start < part.end
        && (asked >= part.end || args.to.is_some_and(|to| to <= part.start))
    {
        tell(&format!(
            "{} partition {}: nothing of it is there: it has offsets {} to {}",
            part.topic,
            part.partition,
            part.start,
            part.end - 1
        ));
    } else if args.from.is_some_and(|asked| asked < part.start) {
        tell(&format!(
            "{} partition {}: offsets below {} are no longer kept",
            part.topic, part.partition, part.start
        ));
    }
    let to = args.to.unwrap_or(u64::MAX).min(part.end);
    if let Some(since) = args.since.filter(|_| from < to) {
        // What is skipped is older, or missing; only what is missing behind it is told.
        from = source.offset_at_time(part, from, since.0)?.unwrap_or(to);
    }
    let mut list = MissingList::new(source, part, to);
    if args.since.is_none() {
        list.before_start(asked, part.start.min(args.to.unwrap_or(u64::MAX)));
    }
    let mut progress = Progress::new(format!("{} partition {}", part.topic, part.partition));
    let (mut next, mut records) = (from, 0);
    let mut failed = None;
    if from < to {
        source.read_batches(part, from, &mut |batch: BatchRef<'_>| {
            if batch.base_offset().0 >= to {
                return ControlFlow::Break(());
            }
            if batch.end_offset().0 <= next {
                // A copy of what was written.
                return ControlFlow::Continue(());
            }
            list.expect(next, batch.base_offset().0);
            list.within(&batch, next);
            let wanted = Wanted {
                from: next,
                to,
                since: args.since.map(|m| m.0),
                until: args.until.map(|m| m.0),
            };
            next = batch.end_offset().0;
            progress.tell(|| format!("offset {next} of {}", part.end));
            match sink.write(part, &batch, &wanted) {
                Ok(written) => {
                    records += written.records;
                    if let Some(why) = written.unreadable {
                        list.add(batch.base_offset().0.max(wanted.from), next.min(to), why);
                    }
                    ControlFlow::Continue(())
                }
                Err(failure) => {
                    failed = Some(failure);
                    ControlFlow::Break(())
                }
            }
        })?;
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    list.expect(next.min(to), to);
    let NotThere { missing, missing_more, left_out } = list.finish();
    Ok(PartSummary {
        partition: part.partition,
        from,
        next: next.clamp(from, to.max(from)),
        records,
        missing,
        missing_more,
        left_out,
    })
}

/// Which records of a batch are wanted.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    from: u64,
    to: u64,
    since: Option<i64>,
    until: Option<i64>,
}

impl Wanted {
    fn record(&self, offset: Offset, timestamp_ms: i64) -> bool {
        (self.from..self.to).contains(&offset.0) && self.time(timestamp_ms, timestamp_ms)
    }

    /// Whether anything between two times may be wanted.
    fn time(&self, first_ms: i64, last_ms: i64) -> bool {
        self.since.is_none_or(|since| last_ms >= since)
            && self.until.is_none_or(|until| first_ms < until)
    }
}
