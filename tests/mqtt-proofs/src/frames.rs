//! The frame validator: refuses what an oracle refuses, says the same however the bytes arrive, and
//! never asks for more than the packet needs.

use edge_mqtt::frame::{Split, split};

use crate::input::Input;

const LIMITS: [usize; 8] = [2, 16, 127, 129, 1_000, 16_384, 262_144, 268_435_460];

/// Runs one input: a byte of options, then a stream.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let connected = input.once_in(2);
    let limit = input.one_of(&LIMITS);
    let mut stream = input.rest();
    for _ in 0..16 {
        let expected = oracle(stream, connected, limit);
        check(stream, connected, limit, expected);
        // What arrives in pieces is judged as early as the bytes allow, and never differently.
        for end in 0..stream.len().min(7) {
            let part = &stream[..end];
            let early = oracle(part, connected, limit);
            check(part, connected, limit, early);
            if let Expected::Refused = early {
                assert_eq!(expected, Expected::Refused, "refused a prefix of {stream:x?}");
            }
        }
        let Expected::Packet { total } = expected else { return };
        stream = &stream[total..];
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Packet {
        total: usize,
    },
    /// More bytes are needed, at least one, and at most so many in all.
    Incomplete {
        at_most: usize,
    },
    Refused,
}

fn check(bytes: &[u8], connected: bool, limit: usize, expected: Expected) {
    match (split(bytes, connected, limit), expected) {
        (Ok(Split::Frame(frame)), Expected::Packet { total }) => {
            assert_eq!(frame.bytes, &bytes[..total]);
            assert!(frame.bytes.ends_with(frame.body) && frame.bytes.len() <= limit);
            assert_eq!((frame.packet as u8, frame.flags), (bytes[0] >> 4, bytes[0] & 15));
        }
        (Ok(Split::Incomplete { needed_bytes }), Expected::Incomplete { at_most }) => {
            assert!(needed_bytes > bytes.len(), "asks for what is there: {bytes:x?}");
            assert!(needed_bytes <= at_most, "asks for {needed_bytes} of {at_most}");
        }
        (Err(_), Expected::Refused) => {}
        (found, expected) => panic!("{bytes:x?}: {found:?}, not {expected:?}"),
    }
}

/// MQTT 5.0 sections 2.1.1 to 2.1.4 and 1.5.5, 3.1.0-1, 3.1.0-2.
fn oracle(bytes: &[u8], connected: bool, limit: usize) -> Expected {
    let Some(&first) = bytes.first() else { return Expected::Incomplete { at_most: 2 } };
    let flags = first & 15;
    let from_a_client = match first >> 4 {
        1 => !connected && flags == 0,
        3 => connected,
        4 | 5 | 7 | 12 | 14 => connected && flags == 0,
        // DUP is known to MQTT 3.1 only, and refused later in other versions.
        6 | 8 | 10 => connected && flags & 7 == 2,
        // AUTH, where extended authentication goes on.
        15 => connected && flags == 0 && split(&[first], true, limit).is_ok(),
        _ => false,
    };
    if !from_a_client {
        return Expected::Refused;
    }
    let mut length = 0;
    for (index, shift) in [0, 7, 14, 21].into_iter().enumerate() {
        let Some(&byte) = bytes.get(1 + index) else {
            return Expected::Incomplete { at_most: limit.max(index + 2) };
        };
        length |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 != 0 {
            continue;
        }
        let total = 2 + index + length;
        return match () {
            () if byte == 0 && index > 0 => Expected::Refused,
            () if total > limit => Expected::Refused,
            () if bytes.len() < total => Expected::Incomplete { at_most: total },
            () => Expected::Packet { total },
        };
    }
    Expected::Refused
}
