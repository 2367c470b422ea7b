//! The command line of what works on the files of a gateway: `verify`, `repair`, `export`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::moment::{Moment, parse_moment};

/// `verify`
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The data directory, of a stopped or a running gateway, or of a card
    #[arg(long, value_name = "DIR", default_value = "./data", conflicts_with = "segment")]
    pub(crate) data_dir: PathBuf,
    /// One segment file (slot-NNNN.seg), wherever it is
    #[arg(long, value_name = "FILE")]
    pub(crate) segment: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `repair`
#[derive(Debug, Args)]
pub(crate) struct RepairArgs {
    /// The data directory; no gateway may run on it
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// Where the damaged files are copied to first [default: DIR/repair-N]
    #[arg(long, value_name = "DIR")]
    pub(crate) backup: Option<PathBuf>,
    /// Say what would be done, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// `export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// The topic
    #[arg(long, value_name = "TOPIC")]
    pub(crate) topic: String,
    /// Only this partition
    #[arg(long, short, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// First offset, in each partition
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
    /// First offset that is not wanted any more
    #[arg(long, value_name = "OFFSET")]
    pub(crate) to: Option<u64>,
    /// Only records of this time or later: 2026-07-28T12:00:00Z, milliseconds since 1970, or how long ago, for
    /// example 2h
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) since: Option<Moment>,
    /// Only records before this time
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) until: Option<Moment>,
    /// What to write
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// Where to [default: standard output]. Batches, if it is a directory (or ends in /; of several partitions always):
    /// TOPIC-N/00000000000000000000.log below it. The directory that it is in has to be there
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The data directory, of a stopped or a running gateway, or of a card; it is only read
    #[arg(long, value_name = "DIR", default_value = "./data", conflicts_with = "segment")]
    pub(crate) data_dir: PathBuf,
    /// One segment file (slot-NNNN.seg), wherever it is
    #[arg(long, value_name = "FILE")]
    pub(crate) segment: Option<PathBuf>,
    /// Print what was written and what is missing as one JSON object: on standard output if the records go to a
    /// file, else on standard error
    #[arg(long)]
    pub(crate) json: bool,
}

/// What `export` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// One JSON object a line, as `consume --json`
    Jsonl,
    /// RFC 4180: topic, partition, offset, timestamp_ms, key, key_base64, value, value_base64, headers (JSON). An
    /// empty text is "", null is nothing
    Csv,
    /// Kafka record batches (version 2) one behind the other, with their offsets: what a Kafka log file holds.
    /// Batches are whole: the first may begin before what was asked for
    Batches,
}
