//! A cursor over the body of one packet that cannot read past its end.

use crate::frame::PacketType;
use crate::violation::Violation;

/// Reads the data types of MQTT (5.0 section 1.5) out of one packet.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    packet: PacketType,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(packet: PacketType, bytes: &'a [u8]) -> Self {
        Self { bytes, packet }
    }

    pub(crate) fn packet(&self) -> PacketType {
        self.packet
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn finish(&self) -> Result<(), Violation> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(Violation::TrailingBytes { packet: self.packet })
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Violation> {
        let (head, tail) = self.bytes.split_at_checked(count).ok_or_else(|| self.truncated())?;
        self.bytes = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (head, tail) = self.bytes.split_first_chunk::<N>().ok_or_else(|| self.truncated())?;
        self.bytes = tail;
        Ok(*head)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Violation> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn two(&mut self) -> Result<u16, Violation> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn four(&mut self) -> Result<u32, Violation> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// Variable byte integer, at most four bytes, shortest form.
    pub(crate) fn varint(&mut self) -> Result<u32, Violation> {
        let mut value = 0_u32;
        for index in 0..4_u32 {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(Violation::VarintNotMinimal);
                }
                return Ok(value);
            }
        }
        Err(Violation::VarintTooLong)
    }

    /// Binary data with a two-byte length.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.two()?;
        self.take(usize::from(length))
    }

    /// A UTF-8 string with a two-byte length, without U+0000.
    pub(crate) fn string(&mut self) -> Result<&'a str, Violation> {
        let text = self.utf8()?;
        if text.as_bytes().contains(&0) {
            return Err(Violation::NulInString { packet: self.packet });
        }
        Ok(text)
    }

    /// A UTF-8 string whose U+0000 the caller looks for itself.
    pub(crate) fn utf8(&mut self) -> Result<&'a str, Violation> {
        let bytes = self.binary()?;
        std::str::from_utf8(bytes).map_err(|_| Violation::NotUtf8 { packet: self.packet })
    }

    /// A section with a variable length in front, as properties are.
    pub(crate) fn section(&mut self) -> Result<&'a [u8], Violation> {
        let length = self.varint()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn truncated(&self) -> Violation {
        Violation::Truncated { packet: self.packet }
    }
}
