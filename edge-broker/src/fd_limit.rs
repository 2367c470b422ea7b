//! Room for as many file descriptors as the configuration may need.

use edge_config::Config;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Segments, sockets of the uplink, files that are read: what is open beside client connections.
const BESIDE: u64 = 1_024;

/// Raises the limit of open files as far as that is allowed. The warning says what is missing.
pub(crate) fn raise(config: &Config) -> Option<String> {
    let connections =
        u64::from(config.mqtt.max_connections) + u64::from(config.kafka.max_connections);
    let needed = connections + BESIDE;
    let before = getrlimit(Resource::Nofile);
    let has = |limit: &Rlimit| limit.current.is_none_or(|current| current >= needed);
    if has(&before) {
        return None;
    }
    // More than the hard limit is for privileged processes only; then as much as there is.
    let wanted =
        Rlimit { current: Some(needed), maximum: before.maximum.map(|hard| hard.max(needed)) };
    let allowed = Rlimit { current: before.maximum, maximum: before.maximum };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let _kept = setrlimit(Resource::Nofile, allowed);
    }
    let after = getrlimit(Resource::Nofile);
    (!has(&after)).then(|| {
        format!(
            "{} open files are allowed, {needed} may be needed for {connections} connections: raise the limit \
             (LimitNOFILE= in systemd, ulimit -Hn) or lower mqtt.max_connections",
            after.current.unwrap_or_default()
        )
    })
}
