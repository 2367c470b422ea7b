//! The parsers of packets with a body: what is accepted is what the standard allows, byte for byte;
//! what was built by its rules is accepted, field for field.

use edge_mqtt::frame::{Frame, Split, Version, split};
use edge_mqtt::subscribe::{Subscribe, Unsubscribe};
use edge_mqtt::{Connect, Publish};

use crate::input::Input;
use crate::wire::{self, Fields};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const LIMIT: usize = 256 * 1024;
const IN_PUBLISH: [u8; 7] = [0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
const IN_CONNECT: [u8; 9] = [0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27];
const IN_WILL: [u8; 7] = [0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26];

/// Runs one input: what packet, in which version, then its body.
///
/// # Panics
/// When a promise is broken.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let version = input.one_of(&VERSIONS);
    let body = input.clone().rest();
    match kind % 8 {
        0 | 1 => connect(body),
        2 | 3 => framed(0x30 | (kind >> 4), body, |frame| publish(frame, version)),
        4 => framed(0x82, body, |frame| subscribe(frame, version)),
        5 => framed(0xA2, body, |frame| unsubscribe(frame, version)),
        6 => built_publish(&mut input, version),
        _ => built_connect(&mut input),
    }
}

fn framed(first: u8, body: &[u8], judge: impl FnOnce(&Frame<'_>)) {
    let bytes = wire::packet(first, body);
    match split(&bytes, true, LIMIT) {
        Ok(Split::Frame(frame)) => judge(&frame),
        other => panic!("a whole packet: {other:?}"),
    }
}

fn publish(frame: &Frame<'_>, version: Version) {
    let Ok(found) = Publish::parse(frame, version) else { return };
    let qos = (frame.flags >> 1) & 3;
    assert_eq!((found.qos.byte(), found.retain), (qos, frame.flags & 1 != 0));
    assert!(qos < 3 && (qos > 0 || !found.dup), "flags {:x}", frame.flags);

    let mut fields = Fields(frame.body);
    let topic = fields.text().expect("a topic is text");
    assert_eq!(topic, found.topic);
    let id = (qos > 0).then(|| fields.two().expect("an identifier"));
    assert!(id != Some(0), "packet identifier 0");
    assert_eq!(id, found.packet_id.map(std::num::NonZeroU16::get));
    let mut alias = false;
    if version == Version::V5 {
        let mut raw = fields.clone();
        let properties = fields.properties(&IN_PUBLISH, false).expect("good properties");
        let length = raw.varint().expect("a length");
        alias = properties.iter().any(|(id, _)| *id == 0x23);
        if !alias {
            assert_eq!(&raw.0[..length], found.properties_raw);
        }
        check_values(&properties);
    } else {
        assert!(found.properties_raw.is_empty());
    }
    assert!(wire::is_topic_name(topic) || (alias && topic.is_empty()), "{topic:?}");
    assert_eq!(fields.0, found.payload);
}

fn check_values(properties: &[(u8, Vec<u8>)]) {
    for (id, value) in properties {
        match id {
            0x01 | 0x17 | 0x19 => assert!(value[0] <= 1, "property {id:x} is {value:x?}"),
            0x21 | 0x23 | 0x27 => assert!(value.iter().any(|&byte| byte != 0), "{id:x} is 0"),
            0x08 => assert!(!value[2..].iter().any(|byte| b"+#".contains(byte))),
            _ => {}
        }
    }
    let users = properties.iter().filter(|(id, _)| *id == 0x26).count();
    assert!(users <= edge_mqtt::USER_PROPERTIES_MAX, "{users} user properties");
}

fn subscribe(frame: &Frame<'_>, version: Version) {
    let Ok(found) = Subscribe::parse(frame, version) else { return };
    let mut fields = Fields(frame.body);
    assert_eq!(fields.two(), Some(found.packet_id.get()));
    if version == Version::V5 {
        let properties = fields.properties(&[0x0B, 0x26], false).expect("good properties");
        let id = properties.iter().find(|(id, _)| *id == 0x0B);
        assert!(id.is_none_or(|(_, value)| value != &[0]), "subscription identifier 0");
    }
    for requested in &found.filters {
        let filter = fields.text().expect("a filter is text");
        let options = fields.byte().expect("options");
        assert_eq!(filter, requested.filter);
        assert!(wire::is_topic_filter(filter), "{filter:?}");
        let reserved = if version == Version::V5 { 0xC0 } else { 0xFC };
        assert_eq!(options & reserved, 0);
        assert!(options & 3 < 3 && options & 0x30 != 0x30, "options {options:x}");
        assert!(requested.options.qos.byte() <= options & 3);
        assert_eq!(requested.options.no_local, options & 4 != 0);
    }
    assert!(fields.0.is_empty() && !found.filters.is_empty());
}

fn unsubscribe(frame: &Frame<'_>, version: Version) {
    let Ok(found) = Unsubscribe::parse(frame, version) else { return };
    let mut fields = Fields(frame.body);
    assert_eq!(fields.two(), Some(found.packet_id.get()));
    if version == Version::V5 {
        assert!(fields.properties(&[0x26], false).is_some(), "bad properties");
    }
    for filter in &found.filters {
        assert_eq!(fields.text(), Some(filter.as_str()));
        assert!(wire::is_topic_filter(filter), "{filter:?}");
    }
    assert!(fields.0.is_empty() && !found.filters.is_empty());
}

fn connect(body: &[u8]) {
    let found = match Connect::parse(body) {
        Ok(found) => found,
        // What is not even MQTT gets no answer in a language it may not speak.
        Err(refused) => {
            assert!(
                refused.version.is_none()
                    || body.starts_with(b"\0\x04MQTT")
                    || body.starts_with(b"\0\x06MQIsdp")
            );
            return;
        }
    };
    let mut fields = Fields(body);
    let name = fields.text().expect("a protocol name");
    let level = fields.byte().expect("a level");
    let expected = match found.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    assert_eq!((name, level), expected);
    let flags = fields.byte().expect("flags");
    let (username, password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    let (will, will_qos) = (flags & 0x04 != 0, (flags >> 3) & 3);
    assert!(flags & 1 == 0 || found.version == Version::V31);
    assert!(will_qos < 3 && (will || flags & 0x38 == 0), "flags {flags:x}");
    assert!(username || !password || found.version != Version::V311);
    assert_eq!(fields.two(), Some(found.keep_alive_s));
    if found.version == Version::V5 {
        check_values(&fields.properties(&IN_CONNECT, false).expect("good properties"));
    }
    assert_eq!(fields.text(), Some(found.client_id));
    if found.client_id.is_empty() {
        assert!(found.version == Version::V5 || found.clean_start, "no client id, not clean");
    }
    assert_eq!(found.will.is_some(), will);
    if let Some(found_will) = &found.will {
        if found.version == Version::V5 {
            check_values(&fields.properties(&IN_WILL, false).expect("good will properties"));
        }
        assert_eq!(fields.text(), Some(found_will.topic.as_str()));
        assert!(wire::is_topic_name(&found_will.topic));
        assert_eq!(fields.binary(), Some(&found_will.payload[..]));
        assert_eq!((found_will.qos.byte(), found_will.retain), (will_qos, flags & 0x20 != 0));
    }
    assert_eq!(username.then(|| fields.text()), found.username.map(Some));
    assert_eq!(password.then(|| fields.binary()), found.password.map(Some));
    assert!(fields.0.is_empty(), "bytes behind the last field");
}

/// Good properties of a PUBLISH, each at most once.
fn any_properties(input: &mut Input<'_>) -> Vec<u8> {
    let mut raw = Vec::new();
    let bits = input.byte();
    if bits & 1 != 0 {
        raw.extend([0x01, bits >> 7]);
    }
    if bits & 2 != 0 {
        raw.push(0x02);
        raw.extend(u32::from(input.two()).to_be_bytes());
    }
    if bits & 4 != 0 {
        raw.push(0x03);
        wire::put_binary(&mut raw, "text/\u{fc}".as_bytes());
    }
    if bits & 8 != 0 {
        raw.push(0x08);
        wire::put_binary(&mut raw, wire::any_topic(input).as_bytes());
    }
    if bits & 16 != 0 {
        raw.push(0x09);
        let length = input.below(20);
        wire::put_binary(&mut raw, input.take(length));
    }
    for _ in 0..(bits >> 5) {
        raw.push(0x26);
        wire::put_binary(&mut raw, b"name");
        wire::put_binary(&mut raw, "w\u{e4}rme".as_bytes());
    }
    raw
}

fn built_publish(input: &mut Input<'_>, version: Version) {
    let bits = input.byte();
    let topic = wire::any_topic(input);
    let id = input.two().max(1);
    let properties = any_properties(input);
    let payload = input.clone().rest();
    let qos = bits & 1;
    let mut body = Vec::new();
    wire::put_binary(&mut body, topic.as_bytes());
    if qos > 0 {
        body.extend(id.to_be_bytes());
    }
    if version == Version::V5 {
        wire::put_varint(&mut body, properties.len());
        body.extend(&properties);
    }
    body.extend(payload);
    framed(0x30 | (qos << 1), &body, |frame| match Publish::parse(frame, version) {
        Ok(found) => assert_eq!((found.topic, found.payload), (&*topic, payload)),
        Err(violation) => assert!(topic.starts_with('$'), "{violation}: {:x?}", frame.bytes),
    });
}

fn built_connect(input: &mut Input<'_>) {
    let version = input.one_of(&VERSIONS);
    let (name, level) = match version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    let bits = input.byte();
    let (will, will_qos, user) = (bits & 1 != 0, (bits >> 1) & 1, bits & 4 != 0);
    let mut flags = 0x02;
    if will {
        flags |= 0x04 | (will_qos << 3);
    }
    if user {
        flags |= 0xC0;
    }
    let mut body = Vec::new();
    wire::put_binary(&mut body, name.as_bytes());
    body.extend([level, flags]);
    body.extend(input.two().to_be_bytes());
    if version == Version::V5 {
        body.extend([5, 0x11]);
        body.extend(u32::from(input.two()).to_be_bytes());
    }
    wire::put_binary(&mut body, b"client");
    let topic = "w/\u{fc}";
    if will {
        if version == Version::V5 {
            let properties = any_properties(input);
            wire::put_varint(&mut body, properties.len());
            body.extend(properties);
        }
        wire::put_binary(&mut body, topic.as_bytes());
        wire::put_binary(&mut body, b"gone");
    }
    if user {
        wire::put_binary(&mut body, "m\u{fc}ller".as_bytes());
        wire::put_binary(&mut body, b"\xFF\x00\xFE");
    }
    connect(&body);
    let found = Connect::parse(&body).expect("built by the rules");
    assert_eq!(found.will.map(|will| will.topic).as_deref(), will.then_some(topic));
    assert_eq!(found.password, user.then_some(&b"\xFF\x00\xFE"[..]));
}
