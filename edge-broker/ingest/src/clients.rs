//! Who is connected: for `client list`, `client kick` and the limit of connections by identity.
//!
//! Limits: one entry for each connection that has logged in.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use edge_auth::Identity;
use edge_mqtt::ReasonCode;
use hashbrown::HashMap;

use crate::mailbox::Mailbox;

/// One connection, as `client list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// What it calls itself.
    pub client_id: String,
    /// The user it has proven to be.
    pub user: Option<String>,
    /// Names in its certificate.
    pub certificate: Vec<String>,
    /// Where it connects from.
    pub address: SocketAddr,
    /// `tcp`, `tls`, `ws` or `wss`.
    pub transport: &'static str,
    /// Seconds since it was let in.
    pub connected_s: u64,
}

#[derive(Debug)]
struct Client {
    mailbox: Arc<Mailbox>,
    identity: Identity,
    address: SocketAddr,
    transport: &'static str,
    since: Instant,
}

/// Everybody who has logged in.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    by_number: HashMap<u64, Client>,
    /// Connections of each user or certificate.
    by_identity: HashMap<Arc<str>, u32>,
    last: u64,
}

/// A place in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    clients: Arc<Clients>,
    number: u64,
}

/// The limit of one identity is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdentityFull;

/// Who counts as one: the user, or the first name of the certificate.
fn key_of(identity: &Identity) -> Option<Arc<str>> {
    let certificate = || identity.certificate.first().map(|name| Arc::from(name.as_str()));
    identity.user.clone().or_else(certificate)
}

impl Clients {
    /// Somebody has logged in. Who takes over a connection of its own is not one more.
    pub(crate) fn enter(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        identity: &Identity,
        (address, transport): (SocketAddr, &'static str),
        per_identity_max: u32,
    ) -> Result<Entry, IdentityFull> {
        let mut table = self.table();
        if let Some(key) = key_of(identity) {
            let known = table.by_identity.get(&key).copied().unwrap_or_default();
            if known >= per_identity_max {
                let is_take_over = table.by_number.values().any(|client| {
                    client.identity.client_id == identity.client_id
                        && key_of(&client.identity).as_ref() == Some(&key)
                });
                if !is_take_over {
                    return Err(IdentityFull);
                }
            }
            *table.by_identity.entry(key).or_default() += 1;
        }
        table.last += 1;
        let number = table.last;
        let client = Client {
            mailbox: mailbox.clone(),
            identity: identity.clone(),
            address,
            transport,
            since: Instant::now(),
        };
        table.by_number.insert(number, client);
        Ok(Entry { clients: self.clone(), number })
    }

    /// Everybody, in order of arrival.
    pub(crate) fn list(&self) -> Vec<ClientInfo> {
        let table = self.table();
        let mut all: Vec<_> = table.by_number.iter().collect();
        all.sort_unstable_by_key(|(number, _)| **number);
        all.into_iter()
            .map(|(_, client)| ClientInfo {
                client_id: client.identity.client_id.to_string(),
                user: client.identity.user.as_deref().map(str::to_owned),
                certificate: client.identity.certificate.to_vec(),
                address: client.address,
                transport: client.transport,
                connected_s: client.since.elapsed().as_secs(),
            })
            .collect()
    }

    /// Ends the connections of a client. Returns how many there were.
    pub(crate) fn kick(&self, client_id: &str) -> usize {
        let table = self.table();
        let of_it =
            table.by_number.values().filter(|known| *known.identity.client_id == *client_id);
        of_it.map(|client| client.mailbox.order(ReasonCode::AdministrativeAction)).count()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut table = self.clients.table();
        let Some(client) = table.by_number.remove(&self.number) else { return };
        let Some(key) = key_of(&client.identity) else { return };
        if let Some(count) = table.by_identity.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                table.by_identity.remove(&key);
            }
        }
    }
}
