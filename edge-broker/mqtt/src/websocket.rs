//! Frames of a WebSocket that carries MQTT (RFC 6455; MQTT 5.0 section 6), the server's side. No I/O.
//!
//! MQTT sees a stream of bytes: one frame may hold half a packet or ten ([MQTT-6.0.0-2]). So nothing is put together
//! here: [`Decoder::decode`] takes what a read gave, unmasks it where it lies and closes the gaps that headers leave. A
//! connection costs a header and one control frame, whatever the lengths in it say; that is why this is not a library,
//! which collects whole messages before anybody has logged in.
//!
//! Refused: what is not masked, reserved bits (no extension is offered, so nothing is ever compressed), text and unknown
//! frames ([MQTT-6.0.0-1]), control frames that are long or in pieces, lengths that are not in their shortest form, lengths
//! above [`FRAME_BYTES_MAX`], a continuation of nothing, a message inside a message.
//!
//! Of several pings that come before there is room for an answer the last is answered (section 5.5.3).

/// Longest frame of a client. It costs no memory; it is a guard against lengths that mean harm.
pub const FRAME_BYTES_MAX: u64 = 1 << 28;
/// Longest payload of a control frame (section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;
/// Longest header that the server's side writes: no mask.
pub const HEADER_BYTES_MAX: usize = 10;

const FIN: u8 = 0x80;
const MASK: u8 = 0x80;
const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Why a client is sent away, with the status code that it is told (section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A frame that breaks a rule.
    #[error("a WebSocket frame that is not allowed: {0}")]
    Protocol(&'static str),
    /// Text, where MQTT is binary.
    #[error("a WebSocket frame that is not binary")]
    NotBinary,
    /// A frame beyond [`FRAME_BYTES_MAX`].
    #[error("a WebSocket frame of {found} bytes")]
    TooLong {
        /// The length it claims.
        found: u64,
    },
}

impl WebSocketError {
    /// The status code of the close frame.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotBinary => 1003,
            Self::TooLong { .. } => 1009,
        }
    }
}

/// The payload of a control frame.
pub type Control = heapless::Vec<u8, CONTROL_BYTES_MAX>;

/// What came beside data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of MQTT at the front of what was given.
    pub data_bytes: usize,
    /// A ping to answer, the last of several.
    pub ping: Option<Control>,
    /// The client closes; its close frame's payload, to be sent back. What follows is not looked at.
    pub close: Option<Control>,
}

/// The frames of one client, in whatever pieces they come.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Header bytes so far: at most 14.
    header: heapless::Vec<u8, 14>,
    /// Payload bytes still to come of the frame whose header is complete.
    left: u64,
    mask: [u8; 4],
    mask_at: usize,
    opcode: u8,
    /// A message has begun that is not finished.
    in_message: bool,
    control: Control,
    in_frame: bool,
    closed: bool,
}

impl Decoder {
    /// Takes `bytes` as they were read; the data among them stands at the front afterwards.
    ///
    /// # Errors
    /// [`WebSocketError`]: close with its status, read no more.
    pub fn decode(&mut self, bytes: &mut [u8]) -> Result<Decoded, WebSocketError> {
        let mut decoded = Decoded::default();
        let mut at = 0;
        while at < bytes.len() && !self.closed {
            if !self.in_frame {
                let Some(byte) = bytes.get(at) else { break };
                at += 1;
                if self.header.push(*byte).is_err() {
                    return Err(WebSocketError::Protocol("a header without an end"));
                }
                if !self.begin()? {
                    continue;
                }
            }
            let waiting = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX);
            let count = usize::try_from(self.left.min(waiting)).unwrap_or(0);
            let Some(part) = bytes.get_mut(at..at + count) else { break };
            unmask(part, self.mask, &mut self.mask_at);
            if self.opcode & 0x8 == 0 {
                bytes.copy_within(at..at + count, decoded.data_bytes);
                decoded.data_bytes += count;
            } else if self.control.extend_from_slice(part).is_err() {
                return Err(WebSocketError::Protocol("a long control frame"));
            }
            at += count;
            self.left -= count as u64;
            if self.left == 0 {
                self.finish(&mut decoded);
            }
        }
        Ok(decoded)
    }

    /// Whether the header is complete; checks it.
    fn begin(&mut self) -> Result<bool, WebSocketError> {
        use WebSocketError::Protocol;
        let header = self.header.as_slice();
        let first = header.first().copied().unwrap_or_default();
        let opcode = first & 0x0F;
        if header.len() == 1 {
            if first & 0x70 != 0 {
                return Err(Protocol("reserved bits"));
            }
            return match opcode {
                CONTINUATION if self.in_message => Ok(false),
                CONTINUATION => Err(Protocol("a continuation of nothing")),
                BINARY if self.in_message => Err(Protocol("a message inside a message")),
                BINARY => Ok(false),
                CLOSE | PING | PONG if first & FIN == 0 => {
                    Err(Protocol("a control frame in pieces"))
                }
                CLOSE | PING | PONG => Ok(false),
                1 => Err(WebSocketError::NotBinary),
                _ => Err(Protocol("an unknown kind of frame")),
            };
        }
        let second = header.get(1).copied().unwrap_or_default();
        if second & MASK == 0 {
            return Err(Protocol("not masked"));
        }
        let short = second & 0x7F;
        if opcode & 0x8 != 0 && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(Protocol("a long control frame"));
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if header.len() < 2 + length_bytes + 4 {
            return Ok(false);
        }
        let (length, mask) = header.get(2..).unwrap_or_default().split_at(length_bytes);
        let length = match length_bytes {
            0 => u64::from(short),
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if (length_bytes == 2 && length < 126) || (length_bytes == 8 && length <= 0xFFFF) {
            return Err(Protocol("a length that is not in its shortest form"));
        }
        if length > FRAME_BYTES_MAX {
            return Err(WebSocketError::TooLong { found: length });
        }
        self.mask.copy_from_slice(mask);
        self.mask_at = 0;
        self.left = length;
        self.opcode = opcode;
        self.in_frame = true;
        if opcode & 0x8 == 0 {
            self.in_message = first & FIN == 0;
        }
        self.header.clear();
        Ok(true)
    }

    fn finish(&mut self, decoded: &mut Decoded) {
        self.in_frame = false;
        match self.opcode {
            PING => decoded.ping = Some(std::mem::take(&mut self.control)),
            CLOSE => {
                self.closed = true;
                decoded.close = Some(std::mem::take(&mut self.control));
            }
            _ => self.control.clear(),
        }
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], at: &mut usize) {
    let turned = std::array::from_fn::<u8, 4, _>(|index| mask[(index + *at) & 3]);
    let (words, rest) = bytes.as_chunks_mut::<4>();
    let word_mask = u32::from_le_bytes(turned);
    for word in words {
        *word = (u32::from_le_bytes(*word) ^ word_mask).to_le_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(turned) {
        *byte ^= mask;
    }
    *at = (*at + bytes.len()) & 3;
}

/// A frame header of the server.
pub type Header = heapless::Vec<u8, HEADER_BYTES_MAX>;

/// The header of one whole binary message of this length.
#[must_use]
pub fn binary_header(length: usize) -> Header {
    header(BINARY, length)
}

/// An answer to a ping.
#[must_use]
pub fn pong(payload: &Control) -> Vec<u8> {
    control(PONG, payload)
}

/// The answer to a client's close: its own status, if it gave one.
#[must_use]
pub fn close_answer(payload: &Control) -> Vec<u8> {
    control(CLOSE, payload.get(..2).unwrap_or_default())
}

/// A close frame with a status.
#[must_use]
pub fn close(status: u16) -> Vec<u8> {
    control(CLOSE, &status.to_be_bytes())
}

fn control(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len()).to_vec();
    frame.extend_from_slice(payload);
    frame
}

fn header(opcode: u8, length: usize) -> Header {
    let mut header = Header::new();
    let mut put = |bytes: &[u8]| {
        header.extend_from_slice(bytes).expect("a server's header has at most ten bytes");
    };
    put(&[FIN | opcode]);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => put(&[short]),
        (_, Ok(length)) => {
            put(&[126]);
            put(&length.to_be_bytes());
        }
        _ => {
            put(&[127]);
            put(&(length as u64).to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0xA2, 0x73, 0x04];
        let server = header(first & 0x0F, payload.len());
        let mut frame = vec![first, server[1] | MASK];
        frame.extend_from_slice(&server[2..]);
        frame.extend_from_slice(&mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at & 3]));
        frame
    }

    fn decode_in_pieces(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<Control>, Option<Control>) {
        let mut decoder = Decoder::default();
        let (mut data, mut pings, mut close) = (Vec::new(), Vec::new(), None);
        for part in bytes.chunks(piece) {
            let mut part = part.to_vec();
            let decoded = decoder.decode(&mut part).unwrap();
            data.extend_from_slice(&part[..decoded.data_bytes]);
            pings.extend(decoded.ping);
            close = close.or(decoded.close);
        }
        (data, pings, close)
    }

    #[test]
    fn bytes_come_out_as_they_went_in_whatever_the_pieces() {
        let long: Vec<u8> = (0..=255).cycle().take(70_000).collect();
        let mut bytes = frame(FIN | BINARY, b"one");
        bytes.extend(frame(BINARY, b"tw"));
        bytes.extend(frame(FIN | PING, b"still there?"));
        bytes.extend(frame(FIN | CONTINUATION, b"o"));
        bytes.extend(frame(FIN | PONG, b"unasked"));
        bytes.extend(frame(FIN | BINARY, &long[..300]));
        bytes.extend(frame(FIN | BINARY, b""));
        bytes.extend(frame(FIN | BINARY, &long));
        bytes.extend(frame(FIN | CLOSE, &[3, 0xE8, b'x']));
        bytes.extend(frame(FIN | BINARY, b"too late"));
        let expected = [b"onetwo".as_slice(), &long[..300], &long].concat();
        for piece in [1, 2, 3, 5, 7, 61, 4_096, bytes.len()] {
            let (data, pings, close) = decode_in_pieces(&bytes, piece);
            assert_eq!(data, expected, "{piece}");
            assert_eq!(pings, [Control::from_slice(b"still there?").unwrap()]);
            let close = close.unwrap();
            assert_eq!(close_answer(&close), [0x88, 2, 3, 0xE8]);
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_its_status() {
        let mut overflow = vec![FIN | BINARY, MASK | 127];
        overflow.extend([0xFF; 12]);
        let mut long = vec![FIN | BINARY, MASK | 127, 0, 0, 0, 0, 0x10, 0, 0, 1];
        long.extend([0; 4]);
        for (bytes, status) in [
            (vec![FIN | BINARY, 3, 1, 2, 3], 1002),
            (frame(FIN | 0x40 | BINARY, b"compressed"), 1002),
            (frame(FIN | 1, b"text"), 1003),
            (frame(FIN | 3, b"unknown"), 1002),
            (frame(FIN | CONTINUATION, b"of nothing"), 1002),
            ([frame(BINARY, b"a"), frame(FIN | BINARY, b"b")].concat(), 1002),
            (frame(PING, b"in pieces"), 1002),
            (vec![FIN | PING, MASK | 126, 0, 200, 0, 0, 0, 0], 1002),
            (vec![FIN | BINARY, MASK | 126, 0, 125, 0, 0, 0, 0], 1002),
            (vec![FIN | BINARY, MASK | 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0], 1002),
            (overflow, 1009),
            (long, 1009),
        ] {
            for piece in [1, bytes.len()] {
                let mut decoder = Decoder::default();
                let refused =
                    bytes.chunks(piece).find_map(|part| decoder.decode(&mut part.to_vec()).err());
                assert_eq!(refused.map(|error| error.status()), Some(status), "{bytes:?}");
            }
        }
    }

    #[test]
    fn headers_have_the_shortest_length() {
        assert_eq!(binary_header(125).as_slice(), [0x82, 125]);
        assert_eq!(binary_header(126).as_slice(), [0x82, 126, 0, 126]);
        assert_eq!(binary_header(65_536).as_slice(), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(pong(&Control::from_slice(b"a").unwrap()), [0x8A, 1, b'a']);
    }
}
