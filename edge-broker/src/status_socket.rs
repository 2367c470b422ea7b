//! The socket in the data directory through which `edge-broker status` asks a running gateway.
//!
//! Whoever may open the data directory may ask. A connection gets one JSON document and is closed; nothing
//! is read from it. The socket's path goes through `/proc/self/fd`, since a data directory's own path may be
//! longer than the 107 bytes that a socket address has room for (unix(7)).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::time::Duration;

use edge_engine::status::Status;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;

const SOCKET_FILE: &str = "status.sock";
/// How long a gateway may take to answer, and an asker to read.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any status can have: 16,384 streams at some 150 bytes.
const STATUS_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A socket that is listened on.
pub(crate) struct StatusSocket {
    listener: UnixListener,
}

impl StatusSocket {
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
    pub(crate) async fn serve(self, status: impl Fn() -> Status) {
        loop {
            match self.listener.accept().await {
                Ok((mut stream, _)) => {
                    let bytes = serde_json::to_vec(&status()).unwrap_or_default();
                    // One at a time: the answer is built once per asker, and askers are people and scripts.
                    let _ = tokio::time::timeout(PATIENCE, stream.write_all(&bytes)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the status socket cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// Asks the gateway that runs on `data_dir`; `None` if none does.
///
/// # Errors
/// Something answers, but not as a gateway of this version does, or the directory cannot be opened.
pub(crate) fn ask(data_dir: &Path) -> io::Result<Option<Status>> {
    let dir = File::open(data_dir)?;
    let stream = match BlockingStream::connect(through(&dir)) {
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
    let mut bytes = Vec::new();
    stream.take(STATUS_BYTES_MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map(Some).map_err(io::Error::from)
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
        assert!(ask(&path).unwrap().is_none());
        let socket = StatusSocket::bind(&path).unwrap();
        let task = tokio::spawn(socket.serve(|| Status { running: true, ..Status::default() }));
        let asked = path.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&asked)).await.unwrap().unwrap();
        assert!(answer.is_some_and(|status| status.running));
        task.abort();
    }
}
