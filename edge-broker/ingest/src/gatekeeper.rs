//! Who is let in before a byte was read: connections in total and by address, the rate of all, and pauses for addresses
//! that keep failing.
//!
//! - An address is an IPv4 address, or the /64 of an IPv6 one. Loopback has no limit of its own and is never banned.
//! - Failures are wrong credentials, broken protocol, handshakes that come to nothing. [`Limits::failures_max`] of them
//!   within a minute ban the address: for 5 s at first, twice as long each time, at most [`Limits::ban_max`]. After ten
//!   quiet minutes it begins anew.
//! - The rate is of connections accepted; those that wait stay in the kernel's queue.
//!
//! Limits: [`ADDRESSES_MAX`] addresses are known at one time; beyond it those with nothing open are forgotten.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hashbrown::HashMap;

const ADDRESSES_MAX: usize = 16_384;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
const BAN_FIRST: Duration = Duration::from_secs(5);
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// What is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time.
    pub connections_max: usize,
    /// Of one address.
    pub per_address_max: usize,
    /// Failures within a minute that ban an address; 0: none does.
    pub failures_max: u32,
    /// Longest ban.
    pub ban_max: Duration,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    AddressFull,
    Banned,
}

#[derive(Debug)]
pub(crate) struct Gatekeeper {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: usize,
    addresses: HashMap<IpAddr, Address>,
}

#[derive(Debug, Default)]
struct Address {
    open: usize,
    failures: u32,
    failures_since: Option<Instant>,
    bans: u32,
    banned_until: Option<Instant>,
}

impl Address {
    fn is_banned(&self, now: Instant) -> bool {
        self.banned_until.is_some_and(|until| now < until)
    }

    /// Nothing has to be remembered of it.
    fn is_blank(&self, now: Instant) -> bool {
        let last = self.banned_until.max(self.failures_since);
        self.open == 0 && last.is_none_or(|last| now > last + FORGIVEN_AFTER)
    }
}

/// A connection that was let in, until it is dropped.
#[derive(Debug)]
pub(crate) struct Pass {
    gatekeeper: Arc<Gatekeeper>,
    address: Option<IpAddr>,
}

/// What counts as one address; `None`: loopback.
fn address_of(ip: IpAddr) -> Option<IpAddr> {
    match ip.to_canonical() {
        ip if ip.is_loopback() => None,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Some(IpAddr::from([a, b, c, d, 0, 0, 0, 0]))
        }
        v4 => Some(v4),
    }
}

impl Gatekeeper {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, state: Mutex::default() })
    }

    /// Lets somebody in, or not.
    pub(crate) fn admit(self: &Arc<Self>, ip: IpAddr, now: Instant) -> Result<Pass, Refused> {
        let address = address_of(ip);
        let mut state = self.state();
        if state.open >= self.limits.connections_max {
            return Err(Refused::Full);
        }
        if let Some(address) = address {
            if state.addresses.len() >= ADDRESSES_MAX && !state.addresses.contains_key(&address) {
                state.addresses.retain(|_, known| !known.is_blank(now));
                if state.addresses.len() >= ADDRESSES_MAX {
                    state.addresses.retain(|_, known| known.open > 0);
                }
            }
            let known = state.addresses.entry(address).or_default();
            if known.is_banned(now) {
                return Err(Refused::Banned);
            }
            if known.open >= self.limits.per_address_max {
                return Err(Refused::AddressFull);
            }
            known.open += 1;
        }
        state.open += 1;
        Ok(Pass { gatekeeper: self.clone(), address })
    }

    /// Somebody at this address failed. True: the address is banned from now on.
    pub(crate) fn failed(&self, ip: IpAddr, now: Instant) -> bool {
        let Some(address) = address_of(ip).filter(|_| self.limits.failures_max > 0) else {
            return false;
        };
        let mut state = self.state();
        let Some(known) = state.addresses.get_mut(&address) else { return false };
        if known.banned_until.is_some_and(|until| now > until + FORGIVEN_AFTER) {
            known.bans = 0;
        }
        if known.failures_since.is_none_or(|since| now > since + FAILURES_WITHIN) {
            known.failures = 0;
            known.failures_since = Some(now);
        }
        known.failures += 1;
        if known.failures < self.limits.failures_max || known.is_banned(now) {
            return false;
        }
        known.failures = 0;
        let ban = BAN_FIRST.saturating_mul(1 << known.bans.min(8)).min(self.limits.ban_max);
        known.bans += 1;
        known.banned_until = Some(now + ban);
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gatekeeper.state();
        state.open -= 1;
        if let Some(address) = self.address
            && let Some(known) = state.addresses.get_mut(&address)
        {
            known.open -= 1;
            if known.open == 0 && known.failures_since.is_none() && known.banned_until.is_none() {
                state.addresses.remove(&address);
            }
        }
    }
}

/// How fast connections are accepted: a second's worth at once, then one by one.
#[derive(Debug)]
pub(crate) struct AcceptRate {
    every: Duration,
    burst: Duration,
    /// When the bucket is full.
    full_at: Instant,
}

impl AcceptRate {
    /// `per_second` 0: as fast as they come.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let every = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { every, burst: every * per_second, full_at: now }
    }

    pub(crate) fn accepted(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.every;
    }

    /// Until when the next one has to wait.
    pub(crate) fn wait_until(&self, now: Instant) -> Option<Instant> {
        let next = (self.full_at + self.every).checked_sub(self.burst)?;
        (!self.every.is_zero() && next > now).then_some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        connections_max: 3,
        per_address_max: 2,
        failures_max: 3,
        ban_max: Duration::from_secs(60),
    };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_takes_its_share_and_no_more() {
        let now = Instant::now();
        let gatekeeper = Gatekeeper::new(LIMITS);
        let first = gatekeeper.admit(ip("10.0.0.1"), now).unwrap();
        let _second = gatekeeper.admit(ip("::ffff:10.0.0.1"), now).unwrap();
        assert_eq!(gatekeeper.admit(ip("10.0.0.1"), now).unwrap_err(), Refused::AddressFull);
        let third = gatekeeper.admit(ip("2001:db8::1"), now).unwrap();
        assert_eq!(gatekeeper.admit(ip("127.0.0.1"), now).unwrap_err(), Refused::Full);
        drop((first, third));
        let _again = gatekeeper.admit(ip("10.0.0.1"), now).unwrap();
        assert_eq!(gatekeeper.state().addresses.len(), 1, "who has left is forgotten");
        let other = ip("2001:db8::2:3");
        assert_eq!(address_of(ip("2001:db8::1")), address_of(other), "one network");
    }

    #[test]
    fn who_keeps_failing_is_banned_for_a_minute_at_most_and_never_on_loopback() {
        let mut now = Instant::now();
        let gatekeeper = Gatekeeper::new(LIMITS);
        let mut bans = Vec::new();
        for _ in 0..6 {
            let banned = (0..3).any(|_| {
                let _pass = gatekeeper.admit(ip("10.0.0.1"), now).unwrap();
                gatekeeper.failed(ip("10.0.0.1"), now)
            });
            assert!(banned);
            assert_eq!(gatekeeper.admit(ip("10.0.0.1"), now).unwrap_err(), Refused::Banned);
            assert!(gatekeeper.admit(ip("10.0.0.2"), now).is_ok());
            let begun = now;
            while gatekeeper.admit(ip("10.0.0.1"), now).is_err() {
                now += Duration::from_secs(1);
            }
            bans.push((now - begun).as_secs());
        }
        assert_eq!(bans, [5, 10, 20, 40, 60, 60]);
        for _ in 0..100 {
            let _pass = gatekeeper.admit(ip("127.0.0.1"), now).unwrap();
            assert!(!gatekeeper.failed(ip("127.0.0.1"), now));
        }
        // Failures that are minutes apart are nobody's attack.
        for _ in 0..100 {
            now += Duration::from_secs(40);
            let _pass = gatekeeper.admit(ip("10.0.0.3"), now).unwrap();
            assert!(!gatekeeper.failed(ip("10.0.0.3"), now));
        }
    }

    #[test]
    fn many_addresses_are_not_remembered_for_ever() {
        let now = Instant::now();
        let gatekeeper = Gatekeeper::new(LIMITS);
        for number in 0..40_000_u32 {
            let ip = IpAddr::from(std::net::Ipv4Addr::from(0x0A00_0000 + number));
            let _pass = gatekeeper.admit(ip, now).unwrap();
            gatekeeper.failed(ip, now);
        }
        assert!(gatekeeper.state().addresses.len() <= ADDRESSES_MAX);
    }

    #[test]
    fn the_rate_lets_a_burst_in_and_then_one_by_one() {
        let begun = Instant::now();
        let mut rate = AcceptRate::new(10, begun);
        let (mut now, mut accepted) = (begun, 0);
        while now < begun + Duration::from_secs(2) {
            match rate.wait_until(now) {
                Some(until) => now = until,
                None => {
                    rate.accepted(now);
                    accepted += 1;
                }
            }
        }
        assert_eq!(accepted, 29, "a second's worth, and ten a second");
        let unlimited = AcceptRate::new(0, begun);
        assert_eq!(unlimited.wait_until(begun), None);
    }
}
