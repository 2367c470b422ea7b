//! The data types of MQTT once more, from MQTT 5.0 section 1.5: plain, and independent of the code
//! under test.

use crate::input::Input;

/// Takes fields off the front; `None` where the bytes end too early.
#[derive(Clone, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next two bytes as a number.
    pub fn two(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let head = self.0.get(..count)?;
        self.0 = &self.0[count..];
        Some(head)
    }

    /// A variable byte integer in its shortest form.
    pub fn varint(&mut self) -> Option<usize> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= usize::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// Bytes behind a length of two bytes.
    pub fn binary(&mut self) -> Option<&'a [u8]> {
        let length = self.two()?;
        self.take(usize::from(length))
    }

    /// A string without U+0000.
    pub fn text(&mut self) -> Option<&'a str> {
        let text = std::str::from_utf8(self.binary()?).ok()?;
        (!text.contains('\0')).then_some(text)
    }

    /// Properties, which must all be in `allowed`, each once but for user properties and, where
    /// `many_subscription_ids` says so, those of subscriptions.
    pub fn properties(
        &mut self,
        allowed: &[u8],
        many_subscription_ids: bool,
    ) -> Option<Vec<(u8, Vec<u8>)>> {
        let length = self.varint()?;
        let mut raw = Fields(self.take(length)?);
        let mut found: Vec<(u8, Vec<u8>)> = Vec::new();
        while !raw.0.is_empty() {
            let id = u8::try_from(raw.varint()?).ok()?;
            let many = id == 0x26 || (id == 0x0B && many_subscription_ids);
            if !allowed.contains(&id) || (!many && found.iter().any(|(other, _)| *other == id)) {
                return None;
            }
            let before = raw.0;
            match id {
                0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2A => drop(raw.byte()?),
                0x13 | 0x21 | 0x22 | 0x23 => drop(raw.two()?),
                0x02 | 0x11 | 0x18 | 0x27 => drop(raw.take(4)?),
                0x0B => drop(raw.varint()?),
                0x09 | 0x16 => drop(raw.binary()?),
                0x26 => drop((raw.text()?, raw.text()?)),
                _ => drop(raw.text()?),
            }
            found.push((id, before[..before.len() - raw.0.len()].to_vec()));
        }
        Some(found)
    }
}

/// Appends a variable byte integer.
pub fn put_varint(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let low = u8::try_from(value % 128).unwrap_or(0);
        value /= 128;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// Appends bytes behind a length of two bytes.
///
/// # Panics
/// When there are more than 65,535.
pub fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("the harness writes short fields");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// A whole packet.
#[must_use]
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_varint(&mut out, body.len());
    out.extend_from_slice(body);
    out
}

/// Whether the standard and our limits (1,024 bytes, 32 levels) let a client publish to it, `$` apart.
#[must_use]
pub fn is_topic_name(topic: &str) -> bool {
    !topic.is_empty()
        && topic.len() <= 1_024
        && topic.split('/').count() <= 32
        && !topic.contains(['+', '#', '\0'])
}

/// Whether the standard and our limits let a client subscribe to it.
#[must_use]
pub fn is_topic_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    !filter.is_empty()
        && filter.len() <= 1_024
        && levels.len() <= 32
        && !filter.contains('\0')
        && levels.iter().enumerate().all(|(index, level)| match *level {
            "#" => index + 1 == levels.len(),
            "+" => true,
            level => !level.contains(['+', '#']),
        })
}

/// Whether a topic name matches a filter: MQTT 5.0 section 4.7, level by level.
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            (["#"], _) => true,
            ([], []) => true,
            (["+", filter @ ..], [_, topic @ ..]) => levels(filter, topic),
            ([level, filter @ ..], [same, topic @ ..]) if level == same => levels(filter, topic),
            _ => false,
        }
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let wildcard_first = matches!(filter[0], "#" | "+");
    !(wildcard_first && topic[0].starts_with('$')) && levels(&filter, &topic)
}

/// A topic name out of few, so that they meet.
pub fn any_topic(input: &mut Input<'_>) -> String {
    let levels = 1 + input.below(3);
    let names = ["a", "b", "", "\u{fc}", "$x", "\u{feff}a"];
    let topic = (0..levels).map(|_| input.one_of(&names)).collect::<Vec<_>>().join("/");
    if topic.is_empty() { "a".to_owned() } else { topic }
}

/// A valid topic filter out of few, so that they meet.
pub fn any_filter(input: &mut Input<'_>) -> String {
    let levels = 1 + input.below(3);
    let names = ["a", "+", "b", "+", "", "\u{fc}", "$x", "\u{feff}a"];
    let mut filter = (0..levels).map(|_| input.one_of(&names)).collect::<Vec<_>>().join("/");
    match input.below(4) {
        0 => filter.push_str("/#"),
        1 => filter = "#".to_owned(),
        _ => {}
    }
    if filter.is_empty() { "a".to_owned() } else { filter }
}
