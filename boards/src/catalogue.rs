//! The embedded profiles, and inheritance.

use toml::{Table, Value};

use crate::Profile;

/// A profile name that does not exist, or an embedded file with a mistake (a test loads them all).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// No profile has this name.
    #[error("no board is called \"{name}\"; there are {}", names().collect::<Vec<_>>().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file, or one it inherits from, cannot be read as a profile.
    #[error("board file {name}.toml: {message}")]
    Malformed {
        /// Which file.
        name: String,
        /// What the parser says.
        message: String,
    },
}

const EMBEDDED: &[(&str, &str)] = &[
    ("base", include_str!("../base.toml")),
    ("x86-64-generic", include_str!("../x86-64-generic.toml")),
    ("raspberry-pi-4", include_str!("../raspberry-pi-4.toml")),
    ("raspberry-pi-zero-2-w", include_str!("../raspberry-pi-zero-2-w.toml")),
];

/// A board inherits from a board that inherits from base; more would hide where a value comes from.
const INHERITANCE_DEPTH_MAX: u32 = 3;

/// The names of all profiles, `base` first.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The profile `name`, inherited values filled in.
pub fn load(name: &str) -> Result<Profile, LoadError> {
    let table = merged_table(EMBEDDED, name, INHERITANCE_DEPTH_MAX)?;
    let mut profile: Profile = Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| malformed(name, error.message()))?;
    profile.name = name.to_owned();
    Ok(profile)
}

fn merged_table(files: &[(&str, &str)], name: &str, depth: u32) -> Result<Table, LoadError> {
    let (_, text) = files
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| LoadError::Unknown { name: name.to_owned() })?;
    let mut own: Table =
        text.parse().map_err(|error: toml::de::Error| malformed(name, error.message()))?;
    match own.remove("inherits") {
        None => Ok(own),
        Some(Value::String(parent)) if depth > 1 => {
            let mut merged = merged_table(files, &parent, depth - 1)?;
            overlay(&mut merged, own);
            Ok(merged)
        }
        Some(Value::String(_)) => Err(malformed(name, "inherits from itself or too deeply")),
        Some(_) => Err(malformed(name, "`inherits` is not a name")),
    }
}

/// Tables are merged key by key; everything else is replaced.
fn overlay(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => overlay(lower, upper),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn malformed(name: &str, message: &str) -> LoadError {
    LoadError::Malformed { name: name.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_profile_loads_and_makes_sense() {
        for name in names() {
            let board = load(name).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(board.name, name);
            assert_eq!(board.target.is_none(), name == "base", "{name}: a board has a target");
            let share = &board.flash.share;
            let sum = [share.system, share.alarm, share.normal, share.bulk]
                .map(u32::from)
                .iter()
                .sum::<u32>();
            assert_eq!(sum, 100, "{name}: the shares of the flash are per cent");
            let memory = &board.memory;
            let fixed = 4 * memory.lane_queue.0 + memory.group_cache.0 + memory.uplink_window.0;
            assert!(
                fixed * 2 <= memory.total.0,
                "{name}: queues and caches leave half to connections"
            );
            assert!(
                memory.kafka_batch.0 < memory.kafka_request.0,
                "{name}: a batch fits into a request"
            );
            assert!(
                memory.mqtt_packet.0 <= memory.mqtt_in_flight.0,
                "{name}: a packet fits the window"
            );
            assert!((1..=22).contains(&board.compression.lane_zstd_level), "{name}");
            assert!((1..=22).contains(&board.compression.uplink_zstd_level), "{name}");
            assert!(board.threads.workers_max >= 1, "{name}");
            assert!(board.flash.reserve.0 >= 4 << 20, "{name}");
            assert!(board.flash.scrub_bytes_per_second.0 >= 64 << 10, "{name}");
            assert!(board.limits.streams >= 64, "{name}");
        }
    }

    #[test]
    fn every_board_file_is_embedded() {
        let mut on_disk: Vec<String> = std::fs::read_dir(env!("CARGO_MANIFEST_DIR"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|file| file.strip_suffix(".toml").map(str::to_owned))
            .filter(|name| name != "Cargo")
            .collect();
        on_disk.sort();
        let mut embedded: Vec<String> = names().map(str::to_owned).collect();
        embedded.sort();
        assert_eq!(on_disk, embedded);
    }

    #[test]
    fn a_board_overrides_single_keys_of_what_it_inherits() {
        let files = [
            ("base", "a = 1\n[t]\nx = 1\ny = 2\n"),
            ("child", "inherits = \"base\"\n[t]\ny = 3\n"),
            ("loop", "inherits = \"loop\""),
        ];
        let merged = merged_table(&files, "child", 3).unwrap();
        assert_eq!(merged, "a = 1\n[t]\nx = 1\ny = 3\n".parse::<Table>().unwrap());
        assert!(matches!(merged_table(&files, "loop", 3), Err(LoadError::Malformed { .. })));
    }

    #[test]
    fn an_unknown_board_is_named_together_with_the_known_ones() {
        let message = load("raspberry-pi-9").unwrap_err().to_string();
        assert!(
            message.contains("raspberry-pi-9") && message.contains("raspberry-pi-4"),
            "{message}"
        );
    }
}
