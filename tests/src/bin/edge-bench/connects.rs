//! A fleet that comes back all at once, and what its connections cost while they are quiet.
//!
//! All sockets are opened, then every client sends CONNECT with its user and secret; measured is the time from the first
//! CONNECT to the last CONNACK, with generated secrets and with passwords (argon2id; each hashed once). Then connections
//! without users, quiet, over TCP and TLS: memory of the gateway for each of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use system_tests::certificates::Authority;
use system_tests::gateway::{self, Gateway};
use system_tests::mqtt::remaining_length;
use system_tests::ports::ReservedPort;
use system_tests::wait;

use crate::report::{json_line, mib, table};

const CLIENTS: usize = 5_000;
const TLS_CLIENTS: usize = 1_000;
const THREADS: usize = 16;
const GENERATED_USERS: usize = 200;
const PASSWORD_USERS: usize = 50;
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn run() -> Result<()> {
    raise_fd_limit();
    let mut rows = Vec::new();
    let mut figures = Vec::new();
    for (name, users, is_generated) in [
        ("5,000 with generated secrets", GENERATED_USERS, true),
        ("5,000 with passwords, 50 to hash", PASSWORD_USERS, false),
    ] {
        let (time, rss_bytes) = logins(users, is_generated)?;
        rows.push(vec![name.to_owned(), format!("{:.2} s", time.as_secs_f64()), mib(rss_bytes)]);
        figures
            .push(json!({ "name": name, "seconds": time.as_secs_f64(), "rss_bytes": rss_bytes }));
    }
    table(&["clients that connect at once", "last CONNACK", "RSS max"], &rows);
    let idle = idle()?;
    println!();
    let kib = |bytes: f64| format!("{:.1} KiB", bytes / 1024.0);
    table(
        &["quiet", "memory"],
        &[
            vec!["no connection".to_owned(), mib(idle.empty_bytes)],
            vec!["a TCP connection".to_owned(), kib(idle.tcp_bytes_each)],
            vec!["a TLS connection".to_owned(), kib(idle.tls_bytes_each)],
        ],
    );
    json_line(&json!({
        "bench": "connects",
        "logins": figures,
        "idle_bytes": idle.empty_bytes,
        "tcp_bytes_each": idle.tcp_bytes_each,
        "tls_bytes_each": idle.tls_bytes_each,
    }));
    Ok(())
}

/// Both ends of every connection are on this machine.
fn raise_fd_limit() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let wanted = Rlimit { current: Some(20_000), maximum: hard.map(|hard| hard.max(20_000)) };
    if setrlimit(Resource::Nofile, wanted).is_err() {
        let _kept = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
}

/// Time to the last CONNACK, and the gateway's memory at its highest.
fn logins(users: usize, is_generated: bool) -> Result<(Duration, u64)> {
    let mut gateway = Gateway::start_configured("[mqtt]\nmax_connections = 10000\n")?;
    let secrets = (0..users)
        .map(|user| add_user(&gateway.data_dir(), user, is_generated))
        .collect::<Result<Vec<_>>>()?;
    // In force within a second.
    wait::until("users are in force", PATIENCE, || {
        let last = connect_frame("probe", users - 1, secrets.last().map_or("", String::as_str));
        let mut stream = TcpStream::connect(gateway.mqtt_address())?;
        stream.write_all(&connect_frame("probe", users - 1, "wrong"))?;
        let refused = connack(&mut stream)? != 0;
        let mut stream = TcpStream::connect(gateway.mqtt_address())?;
        stream.write_all(&last)?;
        Ok((refused && connack(&mut stream)? == 0).then_some(()))
    })?;
    let address = gateway.mqtt_address();
    let all_open = Arc::new(Barrier::new(THREADS));
    let secrets = Arc::new(secrets);
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (all_open, secrets) = (all_open.clone(), secrets.clone());
            std::thread::spawn(move || -> Result<(Instant, Instant, Vec<TcpStream>)> {
                let mine: Vec<usize> = (thread..CLIENTS).step_by(THREADS).collect();
                let opened = mine.iter().map(|_| open(address)).collect::<Result<Vec<_>>>();
                all_open.wait();
                let mut streams = opened?;
                let begun = Instant::now();
                for (client, stream) in mine.iter().zip(&mut streams) {
                    let user = client % secrets.len();
                    let name = format!("client-{client}");
                    stream.write_all(&connect_frame(&name, user, &secrets[user]))?;
                }
                for stream in &mut streams {
                    let code = connack(stream)?;
                    ensure!(code == 0, "CONNACK {code}");
                }
                Ok((begun, Instant::now(), streams))
            })
        })
        .collect();
    let mut streams = Vec::new();
    let (mut begun, mut ended) = (None::<Instant>, None::<Instant>);
    for thread in threads {
        let (from, to, mine) = thread.join().ok().context("a thread panicked")??;
        begun = Some(begun.map_or(from, |begun| begun.min(from)));
        ended = ended.max(Some(to));
        streams.extend(mine);
    }
    let (begun, ended) = begun.zip(ended).context("no client")?;
    ensure!(streams.len() == CLIENTS);
    let usage = gateway.server()?.usage()?;
    Ok((ended - begun, usage.rss_bytes_max))
}

struct Idle {
    empty_bytes: u64,
    tcp_bytes_each: f64,
    tls_bytes_each: f64,
}

fn idle() -> Result<Idle> {
    let folder = tempfile::tempdir()?;
    let ca = Authority::new(folder.path(), "ca")?;
    let server = ca.sign("server", "DNS:localhost")?;
    let port = ReservedPort::reserve()?;
    let mut gateway = Gateway::start_configured(&format!(
        "[mqtt]\nmax_connections = 10000\ntls_listen = \"{}\"\n[tls]\ncert = {:?}\nkey = {:?}\n",
        port.address(),
        server.cert,
        server.key
    ))?;
    let empty_bytes = gateway.server()?.usage()?.rss_bytes;
    let quiet = |address: SocketAddr, count: usize| -> Result<Vec<TcpStream>> {
        let mut streams = Vec::new();
        for client in 0..count {
            let mut stream = open(address)?;
            stream.write_all(&system_tests::mqtt::connect_frame(
                system_tests::mqtt::Version::V311,
                &format!("quiet-{client}"),
                true,
                0,
            ))?;
            ensure!(connack(&mut stream)? == 0);
            streams.push(stream);
        }
        Ok(streams)
    };
    let streams = quiet(gateway.mqtt_address(), CLIENTS)?;
    let with_tcp = gateway.server()?.usage()?.rss_bytes;
    let tcp_bytes_each = with_tcp.saturating_sub(empty_bytes) as f64 / streams.len() as f64;
    let tls = tls_clients(port.address(), &ca.cert())?;
    let with_tls = gateway.server()?.usage()?.rss_bytes;
    let tls_bytes_each = with_tls.saturating_sub(with_tcp) as f64 / tls.len() as f64;
    drop((streams, tls));
    Ok(Idle { empty_bytes, tcp_bytes_each, tls_bytes_each })
}

/// Connections over TLS that have got their CONNACK.
fn tls_clients(address: SocketAddr, ca: &Path) -> Result<Vec<TlsClient>> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    (0..TLS_CLIENTS)
        .map(|client| {
            let session = rustls::ClientConnection::new(config.clone(), "localhost".try_into()?)?;
            let mut stream = rustls::StreamOwned::new(session, open(address)?);
            stream.write_all(&system_tests::mqtt::connect_frame(
                system_tests::mqtt::Version::V311,
                &format!("tls-{client}"),
                true,
                0,
            ))?;
            ensure!(connack(&mut stream)? == 0);
            Ok(stream)
        })
        .collect()
}

type TlsClient = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

fn open(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The return code of a CONNACK of 3.1.1.
fn connack(stream: &mut impl Read) -> Result<u8> {
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).context("no CONNACK")?;
    Ok(connack[3])
}

fn connect_frame(client: &str, user: usize, secret: &str) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04\xC2\0\0".to_vec();
    for text in [client, &format!("u{user}"), secret] {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    let mut frame = vec![0x10];
    frame.extend(remaining_length(body.len()));
    frame.extend(body);
    frame
}

fn add_user(data_dir: &Path, user: usize, is_generated: bool) -> Result<String> {
    let mut command = gateway::command()?;
    command.args(["user", "add", &format!("u{user}")]);
    if is_generated {
        command.arg("--generate");
    }
    command.arg("--data-dir").arg(data_dir);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().context("cannot start edge-broker")?;
    let password = format!("password-{user}");
    if let Some(mut stdin) = child.stdin.take() {
        let _not_asked = stdin.write_all(format!("{password}\n").as_bytes());
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "user add: {}", output.status);
    let secret = String::from_utf8(output.stdout)?.trim().to_owned();
    Ok(if is_generated { secret } else { password })
}
