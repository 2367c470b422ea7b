//! From an HTTP request to a WebSocket (RFC 6455 section 4.2).
//!
//! Limits: a request of [`REQUEST_BYTES_MAX`] bytes with [`HEADERS_MAX`] headers. Any path is taken. The subprotocol is
//! `mqtt` ([MQTT-6.0.0-3]) or, for the first clients in browsers, `mqttv3.1`. No extension is agreed to.
//!
//! A page in a browser on this machine is not this machine's own program: where the request names an origin that is not
//! on this machine, the client counts as one from elsewhere, so that a page from anywhere cannot do what anonymous
//! clients on loopback may.

use std::io;

use base64ct::{Base64, Encoding};
use ring::digest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::websocket::WebSocket;

pub(crate) const REQUEST_BYTES_MAX: usize = 4 * 1024;
const HEADERS_MAX: usize = 48;
/// RFC 6455 section 1.3.
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    accept: String,
    protocol: &'static str,
    /// No page, or a page from this machine.
    is_own: bool,
}

/// Why a request is refused: the status line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refused(&'static str);

const BAD_REQUEST: Refused = Refused("400 Bad Request");
const NOT_ALLOWED: Refused = Refused("405 Method Not Allowed\r\nAllow: GET");
const TOO_LARGE: Refused = Refused("431 Request Header Fields Too Large");
const UPGRADE_REQUIRED: Refused =
    Refused("426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13");

/// Answers the request of a client. Returns whether it counts as one on this machine, if it connects from there.
pub(crate) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
) -> io::Result<(WebSocket<S>, bool)> {
    let mut bytes = Vec::with_capacity(1_024);
    let outcome = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match parse(&bytes) {
            Ok(None) if bytes.len() >= REQUEST_BYTES_MAX => break Err(TOO_LARGE),
            Ok(None) => {}
            Ok(Some(found)) => break Ok(found),
            Err(refused) => break Err(refused),
        }
    };
    match outcome {
        Ok((used, request)) => {
            let Request { accept, protocol, is_own } = request;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await?;
            stream.flush().await?;
            bytes.drain(..used);
            Ok((WebSocket::new(stream, bytes), is_own))
        }
        Err(Refused(status)) => {
            let answer =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            let status = status.lines().next().unwrap_or_default();
            Err(io::Error::new(io::ErrorKind::InvalidData, status))
        }
    }
}

/// The request and its length; `None`: it is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(usize, Request)>, Refused> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let used = match request.parse(bytes) {
        Ok(httparse::Status::Complete(used)) if used <= REQUEST_BYTES_MAX => used,
        Ok(httparse::Status::Complete(_)) | Err(httparse::Error::TooManyHeaders) => {
            return Err(TOO_LARGE);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BAD_REQUEST),
    };
    if request.method != Some("GET") {
        return Err(NOT_ALLOWED);
    }
    if request.version != Some(1) {
        return Err(BAD_REQUEST);
    }
    let values = |name: &'static str| {
        request
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .filter_map(|header| std::str::from_utf8(header.value).ok())
    };
    let words = |name| values(name).flat_map(|value| value.split(',')).map(str::trim);
    let names = |name, word: &str| words(name).any(|found| found.eq_ignore_ascii_case(word));
    if !names("upgrade", "websocket") || !names("connection", "upgrade") {
        return Err(UPGRADE_REQUIRED);
    }
    if values("sec-websocket-version").next().map(str::trim) != Some("13") {
        return Err(UPGRADE_REQUIRED);
    }
    let mut keys = values("sec-websocket-key").map(str::trim);
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(BAD_REQUEST) };
    let mut nonce = [0; 18];
    if Base64::decode(key, &mut nonce).map(<[u8]>::len) != Ok(16) {
        return Err(BAD_REQUEST);
    }
    let offered = |protocol: &&str| words("sec-websocket-protocol").any(|word| word == *protocol);
    let protocol = PROTOCOLS.into_iter().find(offered).ok_or(BAD_REQUEST)?;
    let is_own = values("origin").all(is_on_this_machine);
    Ok(Some((used, Request { accept: accept(key), protocol, is_own })))
}

fn accept(key: &str) -> String {
    // SHA-1 proves nothing here; it only shows that the other side speaks WebSocket.
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(MAGIC);
    Base64::encode_string(hash.finish().as_ref())
}

/// Whether a page that names this origin was served by this machine.
fn is_on_this_machine(origin: &str) -> bool {
    let Some((_, authority)) = origin.trim().split_once("://") else { return false };
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "GET /mqtt HTTP/1.1\r\nHost: gw\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: chat, mqtt\r\n\r\n";

    #[test]
    fn the_answer_is_the_one_of_the_standard() {
        let (used, request) = parse(format!("{SOUND}rest").as_bytes()).unwrap().unwrap();
        assert_eq!(used, SOUND.len());
        assert_eq!(request.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((request.protocol, request.is_own), ("mqtt", true));
        for cut in 0..SOUND.len() {
            assert_eq!(parse(&SOUND.as_bytes()[..cut]), Ok(None), "{cut}");
        }
    }

    #[test]
    fn requests_that_ask_for_something_else_are_refused() {
        for (from, to, refused) in [
            ("GET", "POST", NOT_ALLOWED),
            ("HTTP/1.1", "HTTP/1.0", BAD_REQUEST),
            ("HTTP/1.1", "MQTT", BAD_REQUEST),
            ("Upgrade: WebSocket\r\n", "", UPGRADE_REQUIRED),
            ("keep-alive, Upgrade", "keep-alive", UPGRADE_REQUIRED),
            ("Version: 13", "Version: 8", UPGRADE_REQUIRED),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", BAD_REQUEST),
            ("dGhlIHNhbXBsZSBub25jZQ==", "", BAD_REQUEST),
            ("chat, mqtt", "chat", BAD_REQUEST),
            ("Sec-WebSocket-Protocol: chat, mqtt\r\n", "", BAD_REQUEST),
        ] {
            assert_eq!(parse(SOUND.replace(from, to).as_bytes()), Err(refused), "{from} -> {to}");
        }
        let many = SOUND.replace("Host: gw\r\n", &"X: y\r\n".repeat(100));
        assert_eq!(parse(many.as_bytes()), Err(TOO_LARGE));
        let long = SOUND.replace("Host: gw", &format!("Host: {}", "g".repeat(REQUEST_BYTES_MAX)));
        assert_eq!(parse(long.as_bytes()), Err(TOO_LARGE));
    }

    #[test]
    fn a_page_from_elsewhere_is_not_this_machines_own_program() {
        for (origin, is_own) in [
            ("http://localhost:8080", true),
            ("https://127.0.0.1", true),
            ("http://[::1]:9", true),
            ("https://evil.example", false),
            ("http://localhost.evil.example", false),
            ("null", false),
        ] {
            let request = SOUND.replace("Host: gw", &format!("Host: gw\r\nOrigin: {origin}"));
            let (_, request) = parse(request.as_bytes()).unwrap().unwrap();
            assert_eq!(request.is_own, is_own, "{origin}");
        }
    }
}
