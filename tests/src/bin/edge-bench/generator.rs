//! The load generator against a sink that does nothing but acknowledge: what it could send at most
//! while it shares the machine with whoever receives. A figure near this one says more about the
//! generator than about the broker. `--streams N`: over the topics of `streams`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use anyhow::Result;
use serde_json::json;

use crate::Options;
use crate::blast::blast;
use crate::ingest::{CONNECTIONS, WINDOWS, plan};
use crate::report::{json_line, short, table};
use crate::streams::mqtt_topics;

pub(crate) fn run(options: &Options) -> Result<()> {
    let (mut rows, mut figures) = (Vec::new(), Vec::new());
    for window in WINDOWS {
        let address = sink()?;
        let mut plan = plan(address, window, options.measure);
        if let Some(streams) = options.streams {
            plan.topics = mqtt_topics(streams);
        }
        let blast = blast(&plan, std::process::id())?;
        rows.push(vec![window.to_string(), short(blast.rate())]);
        figures.push(json!({"window": window, "messages_per_second": blast.rate().round()}));
    }
    table(&["window", "msg/s"], &rows);
    json_line(&json!({"bench": "generator", "connections": CONNECTIONS, "figures": figures}));
    Ok(())
}

/// A thread for each connection, which ends with it.
fn sink() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().take(CONNECTIONS).flatten() {
            // It ends with an error when the generator hangs up.
            thread::spawn(move || acknowledge(stream));
        }
    });
    Ok(address)
}

fn acknowledge(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; 64 * 1024];
    let mut filled = 0;
    let mut answers = Vec::new();
    loop {
        let count = stream.read(&mut bytes[filled..])?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut at = 0;
        while let Some((frame, rest)) = cut(&bytes[at..filled]) {
            if frame[0] == 0x10 {
                answers.extend([0x20, 2, 0, 0]);
            } else {
                let topic = usize::from(u16::from_be_bytes([frame[rest], frame[rest + 1]]));
                let id = rest + 2 + topic;
                answers.extend([0x40, 2, frame[id], frame[id + 1]]);
            }
            at += frame.len();
        }
        bytes.copy_within(at..filled, 0);
        filled -= at;
        stream.write_all(&answers)?;
        answers.clear();
    }
}

/// The first whole frame, and where its variable header begins. The generator's own frames only:
/// lengths of one or two bytes.
fn cut(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, start) = match bytes.get(1..3)? {
        [low, _] if low & 0x80 == 0 => (usize::from(*low), 2),
        [low, high] => (usize::from(low & 0x7F) | usize::from(*high) << 7, 3),
        _ => return None,
    };
    bytes.get(..start + length).map(|frame| (frame, start))
}
