//! MQTT over WebSocket: frames are not packets, and what is not WebSocket costs nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;

use crate::support::{PATIENCE, Rig, connect_v4, publish};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Protocol: mqtt\r\n\r\n";

fn open(rig: &Rig) -> TcpStream {
    let stream = TcpStream::connect(rig.websocket_address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn upgraded(rig: &Rig) -> TcpStream {
    let mut stream = open(rig);
    stream.write_all(REQUEST.as_bytes()).unwrap();
    let answer = http_answer(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
    stream
}

fn http_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap() == 0 {
            break;
        }
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 77, 177, 211];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long @ 126..=0xFFFF => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(long).unwrap().to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at & 3]));
    frame
}

/// The payload of the next frame of the server.
fn receive(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    let length = match header[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).unwrap();
            usize::try_from(u64::from_be_bytes(length)).unwrap()
        }
        short => usize::from(short),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (header[0], payload)
}

/// Data of the server, until there are `count` bytes.
fn data(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let (first, payload) = receive(stream);
        assert_eq!(first, 0x82, "one whole binary message");
        bytes.extend(payload);
    }
    bytes
}

#[test]
fn packets_and_frames_need_not_coincide() {
    let rig = Rig::new();
    let mut subscriber = rig.v4("s");
    subscriber.subscribe("a/#", 1);
    let mut stream = upgraded(&rig);
    let large = vec![b'x'; 100_000];
    let mut packets = connect_v4("web", 0);
    packets.extend(publish("a/1", 1, b"one"));
    packets.extend(publish("a/2", 2, &large));
    // Half a packet in one frame, one and a half in the next, in pieces, with a ping in between.
    stream.write_all(&frame(0x82, &packets[..5])).unwrap();
    stream.write_all(&frame(0x02, &packets[5..40])).unwrap();
    stream.write_all(&frame(0x89, b"hello")).unwrap();
    stream.write_all(&frame(0x00, &packets[40..50])).unwrap();
    stream.write_all(&frame(0x80, &packets[50..])).unwrap();
    let mut pong = None;
    let mut seen = Vec::new();
    while seen.len() < 12 || pong.is_none() {
        match receive(&mut stream) {
            (0x82, payload) => seen.extend(payload),
            other => pong = Some(other),
        }
    }
    assert_eq!(seen, [0x20, 2, 0, 0, 0x40, 2, 0, 1, 0x40, 2, 0, 2]);
    assert_eq!(pong, Some((0x8A, b"hello".to_vec())));
    for _ in 0..2 {
        assert_eq!(subscriber.packet()[0] & 0xF0, 0x30);
    }

    // Deliveries come in frames as well.
    let mut subscribe = vec![0x82, 6, 0, 9, 0, 1, b'b', 0];
    stream.write_all(&frame(0x82, &subscribe.split_off(0))).unwrap();
    assert_eq!(data(&mut stream, 5), [0x90, 3, 0, 9, 0]);
    let mut publisher = rig.v4("p");
    publisher.send(&publish("b", 0, &large));
    let expected = publish("b", 0, &large);
    assert_eq!(data(&mut stream, expected.len()), expected);

    stream.write_all(&frame(0x82, &[0xE0, 0])).unwrap();
    stream.write_all(&frame(0x88, &[3, 0xE8])).unwrap();
    let mut rest = Vec::new();
    let _reset = stream.read_to_end(&mut rest);
}

#[test]
fn what_is_not_websocket_is_answered_and_closed() {
    let rig = Rig::new();
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: gw\r\n\r\n".to_owned(), "HTTP/1.1 426 "),
        (REQUEST.replace("GET", "PUT"), "HTTP/1.1 405 "),
        (REQUEST.replace("Protocol: mqtt", "Protocol: soap"), "HTTP/1.1 400 "),
        (format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(8_192)), "HTTP/1.1 431 "),
        ("\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0".to_owned(), "HTTP/1.1 400 "),
    ] {
        let mut stream = open(&rig);
        stream.write_all(request.as_bytes()).unwrap();
        let answer = http_answer(&mut stream);
        assert!(answer.starts_with(status), "{request}: {answer}");
    }
    while rig.stats.handshakes_failed.load(Ordering::Relaxed) < 5 {
        std::thread::yield_now();
    }
}

#[test]
fn frames_that_break_a_rule_end_the_connection_with_their_status() {
    let rig = Rig::new();
    for (bytes, status) in [
        (frame(0x81, b"text"), 1003_u16),
        (vec![0x82, 2, 0xC0, 0], 1002),
        (frame(0xC2, b"compressed"), 1002),
        ([vec![0x82, 0xFF], vec![0xFF; 12]].concat(), 1009),
    ] {
        let mut stream = upgraded(&rig);
        stream.write_all(&bytes).unwrap();
        let (first, payload) = receive(&mut stream);
        assert_eq!((first, payload), (0x88, status.to_be_bytes().to_vec()));
        let mut rest = Vec::new();
        // A reset is an end as well: what we did not read may still lie there.
        let _end = stream.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }
}

#[test]
fn a_page_from_elsewhere_gets_nothing_of_what_loopback_may() {
    let rig = Rig::new();
    for (origin, connack) in [("https://evil.example", 5), ("http://localhost:8080", 0)] {
        let mut stream = open(&rig);
        let request = REQUEST.replace("Host: gw", &format!("Host: gw\r\nOrigin: {origin}"));
        stream.write_all(request.as_bytes()).unwrap();
        assert!(http_answer(&mut stream).starts_with("HTTP/1.1 101 "));
        stream.write_all(&frame(0x82, &connect_v4("page", 0))).unwrap();
        assert_eq!(receive(&mut stream), (0x82, vec![0x20, 2, 0, connack]));
    }
}
