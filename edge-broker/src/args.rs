//! The command line: every subcommand and flag, and the help from which the program can be learned.
//!
//! A wrong command line is one line on standard error and exit code 2, as every other mistake of the operator.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use edge_config::Overrides;
use edge_config::units::{parse_bytes, parse_duration_ms};

use crate::access_args::{AclCommand, UserCommand};
use crate::card_args::{ExportArgs, RepairArgs, VerifyArgs};
use crate::cli::EXIT_USAGE;
use crate::cli::moment::{Moment, parse_moment};
use crate::cli::output::tell;
use crate::client_args::ClientCommand;

/// An event-streaming appliance for the edge: MQTT in, a crash-safe log, Kafka out, replication to a central Kafka.
#[derive(Debug, Parser)]
#[command(
    name = "edge-broker",
    version,
    about,
    after_help = "Begin with:\n  edge-broker demo                     watch a plant, a broken link and the verdict\n  edge-broker run                      a gateway on 127.0.0.1: MQTT 1883, Kafka 9092, data in ./data\n  mosquitto_pub -t a/b -m 21.5 -q 1    publish to it\n  edge-broker consume mqtt             read it back\n\nExit codes: 0 done, 1 failed (verify, repair, export: damage), 2 wrong command line or configuration, or unreadable.",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = false
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Every subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the gateway until SIGTERM or Ctrl-C
    Run(LayerArgs),
    /// Show the whole way of a record: a plant, a gateway, a hub, a link that breaks and mends, and a verdict
    Demo(DemoArgs),
    /// Everything that answers and ends.
    #[command(flatten)]
    Tool(Tool),
}

/// The subcommands that answer and end.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Check or show the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask the routes
    #[command(subcommand)]
    Route(RouteCommand),
    /// Create, list, describe, alter, trim and delete topics of a running broker
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Write records to a topic: each VALUE, or each line of standard input
    Produce(ProduceArgs),
    /// Read records of a topic, from its beginning unless told otherwise
    Consume(ConsumeArgs),
    /// Show streams, lanes, gaps and the link of a gateway, running or stopped
    Status(StatusArgs),
    /// Check every byte of a gateway's log: what is there, what is missing, what is damaged
    Verify(VerifyArgs),
    /// Bring a damaged log to rest, a copy of what is touched kept: losses become gaps, indexes are made anew
    Repair(RepairArgs),
    /// Write a topic's records from the log's files: JSON lines, CSV or Kafka batches
    Export(ExportArgs),
    /// List the MQTT clients that are connected to a running gateway, or end their connections
    #[command(subcommand)]
    Client(ClientCommand),
    /// Add, remove and list users; in force within a second, the gateway running or stopped
    #[command(subcommand)]
    User(UserCommand),
    /// Add, remove, list and test access rules; in force within a second, the gateway running or stopped
    #[command(subcommand)]
    Acl(AclCommand),
}

/// The file and the flags that override it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LayerArgs {
    /// Configuration file (TOML); without one there are sensible defaults, see `config show`
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where the log lives [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where MQTT listens [default: 127.0.0.1:1883]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) mqtt: Option<String>,
    /// Where the Kafka protocol listens [default: 127.0.0.1:9092]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) kafka: Option<String>,
    /// Kafka cluster to replicate to, several brokers with commas between them [default: none]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) upstream: Option<String>,
    /// Name of this gateway [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub(crate) gateway: Option<String>,
}

impl LayerArgs {
    /// The flags as the uppermost layer of the configuration.
    #[must_use]
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.clone(),
            mqtt: self.mqtt.clone(),
            kafka: self.kafka.clone(),
            upstream: self.upstream.clone(),
            gateway: self.gateway.clone(),
        }
    }
}

/// `demo`
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// How long the plant publishes
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub(crate) seconds: u64,
    /// Messages a second, all machines together
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) rate: u32,
    /// Publish the rows of a CSV file in place of the simulated plant
    #[arg(long, value_name = "FILE.csv")]
    pub(crate) replay: Option<PathBuf>,
    /// Replicate to this Kafka in place of the second instance
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) upstream: Option<String>,
    /// Keep the data directories and print where they are
    #[arg(long)]
    pub(crate) keep: bool,
    /// Where to put them [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// `config ...`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say whether the configuration is right, else what is wrong, in which line, and the remedy
    Check(LayerArgs),
    /// Print the effective configuration, every default filled in, as a file that can be used
    Show(LayerArgs),
}

/// `route ...`
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Print where a PUBLISH to TOPIC goes: topic, partition, key, lane, headers
    Test(RouteTestArgs),
}

/// `route test`
#[derive(Debug, Args)]
pub(crate) struct RouteTestArgs {
    /// An MQTT topic, for example plant/line1/m7/telemetry
    pub(crate) topic: String,
    /// Configuration file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The client id of the publisher, where the key depends on it
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which broker to talk to.
#[derive(Clone, Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Broker to talk to, several with commas between them
    #[arg(
        long,
        short,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:9092",
        value_delimiter = ','
    )]
    pub(crate) broker: Vec<String>,
}

/// `topic ...`
#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Create a topic
    Create(TopicCreateArgs),
    /// List all topics
    List(TopicListArgs),
    /// Show partitions, offsets and settings of a topic
    Describe(TopicDescribeArgs),
    /// Change settings of a topic
    Alter(TopicAlterArgs),
    /// Delete the oldest records of a topic, up to an offset or all of them
    Trim(TopicTrimArgs),
    /// Delete topics and everything in them
    Delete(TopicDeleteArgs),
}

/// `topic create`
#[derive(Debug, Args)]
pub(crate) struct TopicCreateArgs {
    /// Its name
    pub(crate) topic: String,
    /// Number of partitions [default: the broker's]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) partitions: Option<u32>,
    /// The lane it belongs to [default: the broker's]
    #[arg(long, value_name = "LANE")]
    pub(crate) lane: Option<String>,
    /// How long records are kept, for example 7d
    #[arg(long, value_name = "TIME", value_parser = retention_ms)]
    pub(crate) retention: Option<u64>,
    /// How much each partition keeps, for example 100MiB
    #[arg(long, value_name = "SIZE", value_parser = retention_bytes)]
    pub(crate) retention_bytes: Option<u64>,
    /// A Kafka topic setting, for example cleanup.policy=delete; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) settings: Vec<(String, String)>,
    /// Succeed if it exists already
    #[arg(long)]
    pub(crate) if_not_exists: bool,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `topic alter`
#[derive(Debug, Args)]
#[group(id = "changes", required = true, multiple = true, args = ["retention", "retention_bytes", "settings", "unset"])]
pub(crate) struct TopicAlterArgs {
    /// Its name
    pub(crate) topic: String,
    /// How long records are kept, for example 7d
    #[arg(long, value_name = "TIME", value_parser = retention_ms)]
    pub(crate) retention: Option<u64>,
    /// How much each partition keeps, for example 100MiB
    #[arg(long, value_name = "SIZE", value_parser = retention_bytes)]
    pub(crate) retention_bytes: Option<u64>,
    /// A Kafka topic setting, for example cleanup.policy=compact; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) settings: Vec<(String, String)>,
    /// A setting that goes back to its default; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) unset: Vec<String>,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `topic trim`
#[derive(Debug, Args)]
pub(crate) struct TopicTrimArgs {
    /// Its name
    pub(crate) topic: String,
    /// The partition [default: every one]
    #[arg(long, short, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// The first offset that is kept
    #[arg(long, value_name = "OFFSET", requires = "partition", conflicts_with = "all")]
    pub(crate) before: Option<u64>,
    /// Everything that is there now
    #[arg(long, required_unless_present = "before")]
    pub(crate) all: bool,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `topic list`
#[derive(Debug, Args)]
pub(crate) struct TopicListArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `topic describe`
#[derive(Debug, Args)]
pub(crate) struct TopicDescribeArgs {
    /// Its name
    pub(crate) topic: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `topic delete`
#[derive(Debug, Args)]
pub(crate) struct TopicDeleteArgs {
    /// Their names
    #[arg(required = true)]
    pub(crate) topics: Vec<String>,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// `produce`
#[derive(Debug, Args)]
pub(crate) struct ProduceArgs {
    /// The topic
    pub(crate) topic: String,
    /// Values to write; without any, each line of standard input is one
    pub(crate) values: Vec<String>,
    /// Key of every record
    #[arg(long, short, conflicts_with = "key_separator")]
    pub(crate) key: Option<String>,
    /// What separates key and value in a line, for example a tab; a line without it has no key
    #[arg(long, value_name = "TEXT")]
    pub(crate) key_separator: Option<String>,
    /// Header of every record; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) headers: Vec<(String, String)>,
    /// Partition to write to [default: by key; without a key all in turn]
    #[arg(long, short, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// Compression of the batches
    #[arg(long, short = 'z', value_enum, default_value_t = Codec::None)]
    pub(crate) compression: Codec,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// Compression of batches that `produce` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Codec {
    /// As they are
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    Lz4,
    /// Zstandard
    Zstd,
}

/// `consume`
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic
    pub(crate) topic: String,
    /// Partition to read; may be repeated [default: all]
    #[arg(long, short, value_name = "N")]
    pub(crate) partition: Vec<u32>,
    /// Where to begin in each partition: an offset, earliest, or latest
    #[arg(
        long,
        short,
        value_name = "OFFSET",
        default_value = "earliest",
        conflicts_with = "since",
        value_parser = start_offset
    )]
    pub(crate) offset: StartOffset,
    /// Begin with the first record of this time or later: 2026-07-28T12:00:00Z, milliseconds since 1970, or how long
    /// ago, for example 10min
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    pub(crate) since: Option<Moment>,
    /// Stop after this many records
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Wait for new records at the end, until Ctrl-C
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// One JSON object a line: topic, partition, offset, timestamp_ms, key, value, headers
    #[arg(long, conflicts_with = "keys")]
    pub(crate) json: bool,
    /// Key, tab, value on each line
    #[arg(long)]
    pub(crate) keys: bool,
    /// Which broker
    #[command(flatten)]
    pub(crate) broker: BrokerArgs,
}

/// Where `consume` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartOffset {
    /// The first record that is kept.
    Earliest,
    /// Behind the last record.
    Latest,
    /// This offset.
    At(u64),
}

/// `status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The gateway's data directory
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub(crate) data_dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Reads the command line. What is not to be run (help, the version, a mistake) has been printed.
///
/// # Errors
/// The exit code to end with.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(arguments).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody to read it is nobody's mistake.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        _ => {
            tell(&one_line(&error));
            ExitCode::from(EXIT_USAGE)
        }
    })
}

/// The first paragraph of clap's message, with where to read on.
fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let told: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let told = told.join(" ");
    let told = told.strip_prefix("error: ").unwrap_or(&told).trim_end_matches('.');
    format!("{told}; see --help")
}

fn retention_ms(text: &str) -> Result<u64, String> {
    parse_duration_ms(text).map_err(|error| error.to_string())
}

fn retention_bytes(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|error| error.to_string())
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

fn start_offset(text: &str) -> Result<StartOffset, String> {
    match text {
        "earliest" | "beginning" => Ok(StartOffset::Earliest),
        "latest" | "end" => Ok(StartOffset::Latest),
        _ => {
            let offset = text.parse().ok().filter(|offset| *offset <= i64::MAX as u64);
            offset
                .map(StartOffset::At)
                .ok_or_else(|| "write an offset, earliest or latest".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        let words = std::iter::once("edge-broker").chain(line.split_whitespace());
        Cli::try_parse_from(words).map_err(|error| one_line(&error))
    }

    #[test]
    fn the_command_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_command_line_is_understood() {
        for line in [
            "run",
            "run --config c.toml --data-dir d --mqtt 127.0.0.1:1 --kafka 127.0.0.1:2 --upstream h:3 --gateway g",
            "demo --seconds 10 --rate 500 --replay f.csv --upstream h:1 --keep --data-dir d",
            "config check --config c.toml",
            "config show",
            "route test a/b --config c.toml --client c --json",
            "topic create t --partitions 6 --lane bulk --retention 7d --retention-bytes 1GiB --set a=b --broker h:1",
            "topic list --json",
            "topic describe t",
            "topic alter t --retention 7d --retention-bytes 1GiB --set a=b --unset c --unset d",
            "topic trim t --partition 0 --before 17",
            "topic trim t --all",
            "topic delete a b",
            "produce t --key k --header a=b -z zstd",
            "produce t one two --partition 1",
            "consume t -p 0 -p 1 -o 17 -n 5 --follow --json",
            "consume t --since 10min",
            "status --data-dir d --json",
            "verify --data-dir d --json",
            "verify --segment slot-0001.seg",
            "repair --data-dir d --backup b --dry-run --json",
            "export --topic t --format jsonl --data-dir d",
            "export --topic t -p 1 --from 5 --to 9 --since 2h --until 2026-07-28T12:00:00Z --format csv --out f --json",
            "export --topic t --format batches --segment slot-0001.seg",
        ] {
            assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
        }
    }

    #[test]
    fn mistakes_are_one_line_that_says_what_to_do() {
        for (line, expected) in [
            ("", "requires a subcommand"),
            ("consum", "similar subcommand exists: 'consume'"),
            ("run --confg x", "'--config'"),
            ("run extra", "unexpected argument 'extra'"),
            ("topic create", "<TOPIC>"),
            ("topic create t --partitions 0", "0 is not in 1..=1024"),
            ("topic alter t", "required arguments were not provided"),
            ("topic trim t", "required arguments were not provided"),
            ("topic trim t --before 4", "--partition <N>"),
            ("topic trim t --all --partition 0 --before 4", "cannot be used with"),
            ("topic create t --retention 7", "ms, s, min, h or d"),
            ("consume t --offset -5", "unexpected argument '-5'"),
            ("consume t --offset x", "write an offset, earliest or latest"),
            ("consume t --since yesterday", "10min"),
            ("consume t --offset 1 --since 1h", "cannot be used with"),
            ("produce t --header x", "write NAME=VALUE"),
            ("verify --data-dir d --segment f", "cannot be used with"),
            ("export --topic t", "--format"),
            ("export --format xml --topic t", "jsonl, csv, batches"),
        ] {
            let message = parsed(line).err().unwrap_or_else(|| panic!("{line} must be refused"));
            assert!(message.contains(expected), "{line}: {message}");
            assert!(!message.contains('\n') && message.ends_with("see --help"), "{message}");
        }
    }
}
