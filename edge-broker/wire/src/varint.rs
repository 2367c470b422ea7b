//! Variable-length integers: Kafka's zigzag varint and varlong, and plain unsigned LEB128.
//!
//! Kafka's `varint` holds an `i32` in at most 5 bytes and its `varlong` an `i64` in at most 10; both are
//! zigzag-coded LEB128. Decoders consume from the front of a slice, never read past its end and refuse
//! encodings that are longer than the type or carry bits that do not fit.
//!
//! Source: <https://kafka.apache.org/protocol.html#protocol_types> and the protocol buffers encoding it cites.

use thiserror::Error;

/// Most bytes of an encoded `i32` or `u32`.
pub const VARINT_BYTES_MAX: usize = 5;
/// Most bytes of an encoded `i64` or `u64`.
pub const VARLONG_BYTES_MAX: usize = 10;

/// Why bytes are not what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside the value.
    #[error("the input ends inside a value")]
    Truncated,
    /// A variable-length integer does not fit its type.
    #[error("a variable-length integer does not fit its type")]
    Overflow,
    /// A string is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A length or count is negative or beyond what the input could hold.
    #[error("a length or count of {found} is impossible here")]
    Length {
        /// The value that was read.
        found: i64,
    },
}

/// Appends an unsigned LEB128 integer.
#[inline]
pub fn put_unsigned(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push((rest as u8) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a zigzag `varint`.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_unsigned(out, u64::from(zigzag_32(value)));
}

/// Appends a zigzag `varlong`.
#[inline]
pub fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag_64(value));
}

/// Takes an unsigned LEB128 integer from the front of `input`.
///
/// # Errors
/// [`DecodeError::Truncated`] or [`DecodeError::Overflow`]; `input` is then unspecified.
#[inline]
pub fn get_unsigned(input: &mut &[u8]) -> Result<u64, DecodeError> {
    // Most are small.
    if let [byte @ ..0x80, rest @ ..] = *input {
        *input = rest;
        return Ok(u64::from(*byte));
    }
    get_long(input)
}

fn get_long(input: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0u64;
    let mut shift = 0u32;
    loop {
        let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
        *input = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(DecodeError::Overflow);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
        shift += 7;
        if shift > 63 {
            return Err(DecodeError::Overflow);
        }
    }
}

/// Takes a zigzag `varint` from the front of `input`.
///
/// # Errors
/// [`DecodeError::Truncated`] or [`DecodeError::Overflow`].
#[inline]
pub fn get_varint(input: &mut &[u8]) -> Result<i32, DecodeError> {
    let raw = u32::try_from(get_unsigned(input)?).map_err(|_| DecodeError::Overflow)?;
    Ok(((raw >> 1) as i32) ^ -((raw & 1) as i32))
}

/// Takes a zigzag `varlong` from the front of `input`.
///
/// # Errors
/// [`DecodeError::Truncated`] or [`DecodeError::Overflow`].
#[inline]
pub fn get_varlong(input: &mut &[u8]) -> Result<i64, DecodeError> {
    let raw = get_unsigned(input)?;
    Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

/// Takes `length_bytes` bytes from the front of `input`.
///
/// # Errors
/// [`DecodeError::Truncated`].
#[inline]
pub fn get_slice<'a>(input: &mut &'a [u8], length_bytes: usize) -> Result<&'a [u8], DecodeError> {
    let (taken, rest) = input.split_at_checked(length_bytes).ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(taken)
}

/// Takes one byte from the front of `input`.
///
/// # Errors
/// [`DecodeError::Truncated`].
#[inline]
pub fn get_byte(input: &mut &[u8]) -> Result<u8, DecodeError> {
    let (&byte, rest) = input.split_first().ok_or(DecodeError::Truncated)?;
    *input = rest;
    Ok(byte)
}

/// Encoded size in bytes of an unsigned LEB128 integer.
#[inline]
#[must_use]
pub const fn unsigned_len(value: u64) -> usize {
    // 64 - leading zeros is the number of significant bits; zero still takes one byte.
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Encoded size in bytes of a `varint`.
#[inline]
#[must_use]
pub const fn varint_len(value: i32) -> usize {
    unsigned_len(zigzag_32(value) as u64)
}

/// Encoded size in bytes of a `varlong`.
#[inline]
#[must_use]
pub const fn varlong_len(value: i64) -> usize {
    unsigned_len(zigzag_64(value))
}

#[inline]
const fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
const fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_encodings() {
        // From the protocol buffers encoding table.
        for (value, bytes) in [
            (0i32, vec![0u8]),
            (-1, vec![1]),
            (1, vec![2]),
            (63, vec![126]),
            (-64, vec![127]),
            (64, vec![0x80, 1]),
            (i32::MAX, vec![0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(varint_len(value), bytes.len());
        }
    }

    #[test]
    fn too_long_and_too_short_are_refused() {
        assert_eq!(get_unsigned(&mut &[0x80u8; 3][..]), Err(DecodeError::Truncated));
        assert_eq!(get_unsigned(&mut &[0xffu8; 11][..]), Err(DecodeError::Overflow));
        let mut tenth_too_big = vec![0xff; 9];
        tenth_too_big.push(2);
        assert_eq!(get_unsigned(&mut &tenth_too_big[..]), Err(DecodeError::Overflow));
        let mut wide = Vec::new();
        put_unsigned(&mut wide, u64::from(u32::MAX) + 1);
        assert_eq!(get_varint(&mut &wide[..]), Err(DecodeError::Overflow));
    }

    proptest! {
        #[test]
        fn round_trips(a: i32, b: i64, c: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, a);
            prop_assert_eq!(out.len(), varint_len(a));
            put_varlong(&mut out, b);
            prop_assert_eq!(out.len(), varint_len(a) + varlong_len(b));
            put_unsigned(&mut out, c);
            prop_assert_eq!(out.len(), varint_len(a) + varlong_len(b) + unsigned_len(c));
            let mut input = &out[..];
            prop_assert_eq!(get_varint(&mut input), Ok(a));
            prop_assert_eq!(get_varlong(&mut input), Ok(b));
            prop_assert_eq!(get_unsigned(&mut input), Ok(c));
            prop_assert!(input.is_empty());
        }
    }
}
