//! The socket in the data directory through which commands ask a running gateway, and order.
//!
//! Whoever may open the data directory may. A connection sends one line of JSON, an [`Ask`], gets one JSON document and is
//! closed. The socket's path goes through `/proc/self/fd`, since a data directory's own path may be longer than the 107
//! bytes that a socket address has room for (unix(7)).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edge_engine::status::Status;
use edge_ingest::ClientInfo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

const SOCKET_FILE: &str = "status.sock";
/// How long a gateway may take to answer, and an asker to ask and to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any answer can have: 16,384 streams at some 150 bytes, 100,000 clients at less than that.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
const ASK_BYTES_MAX: u64 = 128 * 1024;
/// Askers at one time; they are people and scripts.
const ASKERS_MAX: usize = 4;

/// What is asked of a running gateway.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// A [`Status`].
    Status,
    /// A list of [`Client`].
    Clients,
    /// [`Kicked`].
    Kick {
        /// Whose connections are ended.
        client: String,
    },
}

/// A connected MQTT client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Client {
    pub(crate) client: String,
    pub(crate) user: Option<String>,
    pub(crate) certificate: Vec<String>,
    pub(crate) address: SocketAddr,
    pub(crate) transport: String,
    pub(crate) connected_s: u64,
}

impl From<ClientInfo> for Client {
    fn from(info: ClientInfo) -> Self {
        Self {
            client: info.client_id,
            user: info.user,
            certificate: info.certificate,
            address: info.address,
            transport: info.transport.to_owned(),
            connected_s: info.connected_s,
        }
    }
}

/// What came of a kick.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Kicked {
    /// Connections that were ended.
    pub(crate) kicked: usize,
}

/// An answer as it goes over the socket.
pub(crate) fn to_json(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).unwrap_or_default()
}

/// A socket that is listened on.
pub(crate) struct ControlSocket {
    listener: UnixListener,
}

/// Answers one question.
pub(crate) type Answerer = dyn Fn(&Ask) -> Vec<u8> + Send + Sync;

impl ControlSocket {
    /// Listens in `data_dir`, which the caller has locked: a socket that is there is a leftover.
    ///
    /// # Errors
    /// The file system refused; a file system without sockets is one reason.
    pub(crate) fn bind(data_dir: &Path) -> io::Result<Self> {
        let dir = File::open(data_dir)?;
        match std::fs::remove_file(data_dir.join(SOCKET_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { listener: UnixListener::bind(through(&dir))? })
    }

    /// Answers until dropped.
    pub(crate) async fn serve(self, answer: Arc<Answerer>) {
        let askers = Arc::new(Semaphore::new(ASKERS_MAX));
        loop {
            let Ok(permit) = askers.clone().acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        let _timed_out =
                            tokio::time::timeout(PATIENCE, reply(stream, &*answer)).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the status socket cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn reply(stream: UnixStream, answer: &Answerer) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut asked = Vec::new();
    reader.take(ASK_BYTES_MAX).read_to_end(&mut asked).await?;
    if let Ok(ask) = serde_json::from_slice(&asked) {
        writer.write_all(&answer(&ask)).await?;
    }
    Ok(())
}

/// Asks the gateway that runs on `data_dir`; `None` if none does.
///
/// # Errors
/// Something answers, but not as a gateway of this version does, or the directory cannot be opened.
pub(crate) fn ask<T: DeserializeOwned>(data_dir: &Path, ask: &Ask) -> io::Result<Option<T>> {
    let dir = File::open(data_dir)?;
    let mut stream = match BlockingStream::connect(through(&dir)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&serde_json::to_vec(ask)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
}

/// Asks for the status.
///
/// # Errors
/// As [`ask`].
pub(crate) fn ask_status(data_dir: &Path) -> io::Result<Option<Status>> {
    ask(data_dir, &Ask::Status)
}

fn through(dir: &File) -> String {
    format!("/proc/self/fd/{}/{SOCKET_FILE}", dir.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_running_gateway_answers_from_a_directory_with_a_long_path() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x".repeat(200));
        std::fs::create_dir(&path).unwrap();
        assert!(ask_status(&path).unwrap().is_none());
        let socket = ControlSocket::bind(&path).unwrap();
        let task = tokio::spawn(socket.serve(Arc::new(|ask: &Ask| match ask {
            Ask::Status => to_json(&Status { running: true, ..Status::default() }),
            Ask::Clients => to_json(&Vec::<Client>::new()),
            Ask::Kick { client } => to_json(&Kicked { kicked: client.len() }),
        })));
        // Somebody who asks nothing holds nobody up.
        let dir = File::open(&path).unwrap();
        let _silent = BlockingStream::connect(through(&dir)).unwrap();
        let asked = path.clone();
        let answers = tokio::task::spawn_blocking(move || {
            let kick = Ask::Kick { client: "four".to_owned() };
            (ask_status(&asked).unwrap(), ask::<Kicked>(&asked, &kick).unwrap())
        });
        let (status, kicked) = answers.await.unwrap();
        assert!(status.is_some_and(|status| status.running));
        assert_eq!(kicked.map(|kicked| kicked.kicked), Some(4));
        task.abort();
    }
}
