//! The brokers we know, our connections to them, and who leads what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use edge_wire::PartitionId;
use tokio::sync::Notify;

use super::connection::Connection;
use super::error::{ConnectError, RequestError};
use super::options::ClientOptions;
use super::transport::split_address;
use super::types::{Broker, Metadata, NodeId};

/// Topics whose leaders are remembered; beyond it the memory starts afresh.
const TOPICS_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) struct Cluster {
    options: ClientOptions,
    bootstrap: Vec<(String, u16)>,
    known: Mutex<Known>,
    /// Opening is done under the slot's own lock, so that two requests do not open two connections.
    slots: Mutex<Slots>,
    /// Told whenever the other side ended a connection.
    pub(crate) ended: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Known {
    brokers: Vec<Broker>,
    controller: Option<NodeId>,
    /// Leader by partition number.
    leaders: HashMap<String, Vec<Option<NodeId>>>,
}

type Slots = HashMap<Slot, Arc<tokio::sync::Mutex<Option<Arc<Connection>>>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Slot {
    Bootstrap,
    Node(NodeId),
}

impl Cluster {
    pub(crate) async fn connect(
        bootstrap: &[String],
        options: ClientOptions,
    ) -> Result<Self, ConnectError> {
        let mut addresses = Vec::with_capacity(bootstrap.len());
        for address in bootstrap {
            let parts = split_address(address)
                .ok_or_else(|| ConnectError::Address { address: address.clone() })?;
            addresses.push(parts);
        }
        let cluster = Self {
            options,
            bootstrap: addresses,
            known: Mutex::new(Known::default()),
            slots: Mutex::new(HashMap::new()),
            ended: Arc::default(),
        };
        cluster.connection(Slot::Bootstrap).await?;
        Ok(cluster)
    }

    /// A connection to any broker: the bootstrap connection, or a broker learnt since.
    pub(crate) async fn any(&self) -> Result<Arc<Connection>, RequestError> {
        let first = match self.connection(Slot::Bootstrap).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let nodes: Vec<NodeId> = self.known().brokers.iter().map(|broker| broker.node).collect();
        for node in nodes {
            if let Ok(connection) = self.connection(Slot::Node(node)).await {
                return Ok(connection);
            }
        }
        Err(first.into())
    }

    /// A connection to the controller, or to any broker where it is not known (in KRaft any broker forwards).
    pub(crate) async fn controller(&self) -> Result<Arc<Connection>, RequestError> {
        let controller = self.known().controller;
        if let Some(node) = controller
            && let Ok(connection) = self.connection(Slot::Node(node)).await
        {
            return Ok(connection);
        }
        self.any().await
    }

    /// A connection to one broker.
    pub(crate) async fn node(&self, node: NodeId) -> Result<Arc<Connection>, RequestError> {
        Ok(self.connection(Slot::Node(node)).await?)
    }

    async fn connection(&self, slot: Slot) -> Result<Arc<Connection>, ConnectError> {
        let cell = Arc::clone(self.slots().entry(slot).or_default());
        let mut open = cell.lock().await;
        if let Some(connection) = open.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        *open = None;
        let candidates: Vec<(String, u16)> = match slot {
            Slot::Bootstrap => self.bootstrap.clone(),
            Slot::Node(node) => self
                .known()
                .brokers
                .iter()
                .filter(|broker| broker.node == node)
                .map(|broker| (broker.host.clone(), broker.port))
                .collect(),
        };
        let mut last = ConnectError::Address {
            address: match slot {
                Slot::Bootstrap => String::new(),
                Slot::Node(node) => format!("broker {}", node.0),
            },
        };
        for (host, port) in candidates {
            match Connection::open(&host, port, &self.options, &self.ended).await {
                Ok(connection) => {
                    let connection = Arc::new(connection);
                    *open = Some(Arc::clone(&connection));
                    return Ok(connection);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub(crate) fn cached_leader(&self, topic: &str, partition: PartitionId) -> Option<NodeId> {
        self.known().leaders.get(topic)?.get(partition.0 as usize).copied().flatten()
    }

    pub(crate) fn forget(&self, topic: &str) {
        self.known().leaders.remove(topic);
    }

    /// Takes in what a Metadata answer says.
    pub(crate) fn learn(&self, metadata: &Metadata) {
        let mut known = self.known();
        if !metadata.brokers.is_empty() {
            known.brokers.clone_from(&metadata.brokers);
        }
        known.controller = metadata.controller;
        for topic in &metadata.topics {
            if topic.error.is_some() {
                known.leaders.remove(&topic.name);
                continue;
            }
            if known.leaders.len() >= TOPICS_MAX {
                known.leaders.clear();
            }
            let count = topic
                .partitions
                .iter()
                .map(|partition| partition.partition.0 as usize + 1)
                .max()
                .unwrap_or(0);
            // Partition numbers are dense; a broker that says otherwise does not get to size our table.
            let mut leaders = vec![None; count.min(topic.partitions.len())];
            for partition in &topic.partitions {
                if let Some(slot) = leaders.get_mut(partition.partition.0 as usize) {
                    *slot = partition.leader;
                }
            }
            known.leaders.insert(topic.name.clone(), leaders);
        }
    }

    /// Whether any connection is open.
    pub(crate) fn is_connected(&self) -> bool {
        self.slots().values().any(|cell| {
            // One that is being opened counts.
            cell.try_lock().map_or(true, |open| {
                open.as_ref().is_some_and(|connection| !connection.is_closed())
            })
        })
    }

    pub(crate) fn disconnect(&self) {
        for cell in self.slots().values() {
            // A slot that is locked is just being opened; that one is new.
            if let Ok(mut open) = cell.try_lock()
                && let Some(connection) = open.take()
            {
                connection.close("the client closed it");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
