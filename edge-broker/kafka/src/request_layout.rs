//! How requests are laid out, as far as counts and lengths go.
//!
//! The message codecs reserve memory for as many elements as an array says it has before they look whether
//! the bytes can hold them: four bytes could ask for gigabytes, and end the process. So every request is
//! walked by these layouts first ([`check`]): each length and count must fit what is left, all arrays together
//! must stay below [`ELEMENTS_MAX`], and a tag that the codec would interpret (only replicas send such) is
//! refused. What passes can be decoded in memory proportional to the request.
//!
//! Source: the message definitions in `clients/src/main/resources/common/message` of Apache Kafka.

use edge_wire::varint::{DecodeError, get_slice, get_unsigned};

/// Most array elements and tagged fields in one request.
pub(crate) const ELEMENTS_MAX: usize = 32_768;

/// A struct: its fields in order; flexible versions append tagged fields.
#[derive(Debug)]
pub(crate) struct Layout {
    fields: &'static [Field],
    /// Tags below this are interpreted by the codec, and refused here.
    tags_refused_below: u32,
}

#[derive(Debug)]
struct Field {
    kind: Kind,
    from_version: i16,
    to_version: i16,
}

#[derive(Debug)]
enum Kind {
    /// A number or UUID of so many bytes.
    Fixed(usize),
    /// A string, null allowed.
    Text,
    /// Bytes, null allowed.
    Blob,
    /// Structs, null allowed.
    Structs(&'static Layout),
    /// Numbers of so many bytes.
    Numbers(usize),
    /// Strings.
    Texts,
}

use Kind::{Blob, Fixed, Numbers, Structs, Text, Texts};

const fn always(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}

const fn from(from_version: i16, kind: Kind) -> Field {
    between(from_version, i16::MAX, kind)
}

const fn until(to_version: i16, kind: Kind) -> Field {
    between(0, to_version, kind)
}

const fn between(from_version: i16, to_version: i16, kind: Kind) -> Field {
    Field { kind, from_version, to_version }
}

const fn layout(fields: &'static [Field]) -> Layout {
    Layout { fields, tags_refused_below: 0 }
}

const I8: Kind = Fixed(1);
const I16: Kind = Fixed(2);
const I32: Kind = Fixed(4);
const I64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);
const BOOL: Kind = Fixed(1);

pub(crate) static PRODUCE: Layout = layout(&[
    always(Text),
    always(I16),
    always(I32),
    always(Structs(&layout(&[
        until(12, Text),
        from(13, UUID),
        always(Structs(&layout(&[always(I32), always(Blob)]))),
    ]))),
]);

pub(crate) static FETCH: Layout = Layout {
    // cluster id and replica state: sent by replicas.
    tags_refused_below: 2,
    fields: &[
        until(14, I32),
        always(I32),
        always(I32),
        always(I32),
        always(I8),
        from(7, I32),
        from(7, I32),
        always(Structs(&layout(&[
            until(12, Text),
            from(13, UUID),
            always(Structs(&Layout {
                // replica directory id and high watermark: sent by replicas.
                tags_refused_below: 2,
                fields: &[
                    always(I32),
                    from(9, I32),
                    always(I64),
                    from(12, I32),
                    from(5, I64),
                    always(I32),
                ],
            })),
        ]))),
        from(7, Structs(&layout(&[until(12, Text), from(13, UUID), always(Numbers(4))]))),
        from(11, Text),
    ],
};

pub(crate) static LIST_OFFSETS: Layout = layout(&[
    always(I32),
    from(2, I8),
    always(Structs(&layout(&[
        always(Text),
        always(Structs(&layout(&[always(I32), from(4, I32), always(I64)]))),
    ]))),
    from(10, I32),
]);

pub(crate) static METADATA: Layout = layout(&[
    always(Structs(&layout(&[from(10, UUID), always(Text)]))),
    from(4, BOOL),
    between(8, 10, BOOL),
    from(8, BOOL),
]);

pub(crate) static OFFSET_COMMIT: Layout = layout(&[
    always(Text),
    always(I32),
    always(Text),
    from(7, Text),
    until(4, I64),
    always(Structs(&layout(&[
        always(Text),
        always(Structs(&layout(&[always(I32), always(I64), from(6, I32), always(Text)]))),
    ]))),
]);

pub(crate) static OFFSET_FETCH: Layout = layout(&[
    until(7, Text),
    until(7, Structs(&layout(&[always(Text), always(Numbers(4))]))),
    from(
        8,
        Structs(&layout(&[
            always(Text),
            from(9, Text),
            from(9, I32),
            always(Structs(&layout(&[always(Text), always(Numbers(4))]))),
        ])),
    ),
    from(7, BOOL),
]);

pub(crate) static FIND_COORDINATOR: Layout = layout(&[until(3, Text), from(1, I8), from(4, Texts)]);

pub(crate) static API_VERSIONS: Layout = layout(&[from(3, Text), from(3, Text)]);

pub(crate) static CREATE_TOPICS: Layout = layout(&[
    always(Structs(&layout(&[
        always(Text),
        always(I32),
        always(I16),
        always(Structs(&layout(&[always(I32), always(Numbers(4))]))),
        always(Structs(&layout(&[always(Text), always(Text)]))),
    ]))),
    always(I32),
    always(BOOL),
]);

pub(crate) static DELETE_TOPICS: Layout = layout(&[
    from(6, Structs(&layout(&[always(Text), always(UUID)]))),
    until(5, Texts),
    always(I32),
]);

pub(crate) static DELETE_RECORDS: Layout = layout(&[
    always(Structs(&layout(&[
        always(Text),
        always(Structs(&layout(&[always(I32), always(I64)]))),
    ]))),
    always(I32),
]);

pub(crate) static INIT_PRODUCER_ID: Layout =
    layout(&[always(Text), always(I32), from(3, I64), from(3, I16)]);

pub(crate) static DESCRIBE_CONFIGS: Layout = layout(&[
    always(Structs(&layout(&[always(I8), always(Text), always(Texts)]))),
    always(BOOL),
    from(3, BOOL),
]);

pub(crate) static ALTER_CONFIGS: Layout = layout(&[
    always(Structs(&layout(&[
        always(I8),
        always(Text),
        always(Structs(&layout(&[always(Text), always(Text)]))),
    ]))),
    always(BOOL),
]);

pub(crate) static INCREMENTAL_ALTER_CONFIGS: Layout = layout(&[
    always(Structs(&layout(&[
        always(I8),
        always(Text),
        always(Structs(&layout(&[always(Text), always(I8), always(Text)]))),
    ]))),
    always(BOOL),
]);

pub(crate) static DESCRIBE_CLUSTER: Layout = layout(&[always(BOOL), from(1, I8)]);

/// Walks a request body. Bytes behind it are let be, as Kafka does.
pub(crate) fn check(
    layout: &Layout,
    version: i16,
    flexible: bool,
    body: &[u8],
) -> Result<(), DecodeError> {
    let mut walk = Walk { rest: body, version, flexible, elements: 0 };
    walk.structure(layout)
}

/// Walks the tagged fields of a request header.
pub(crate) fn skip_tags(input: &mut &[u8]) -> Result<(), DecodeError> {
    let mut walk = Walk { rest: input, version: 0, flexible: true, elements: 0 };
    walk.tags(0)?;
    *input = walk.rest;
    Ok(())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, layout: &Layout) -> Result<(), DecodeError> {
        for field in layout.fields {
            if (field.from_version..=field.to_version).contains(&self.version) {
                self.value(&field.kind)?;
            }
        }
        if self.flexible { self.tags(layout.tags_refused_below) } else { Ok(()) }
    }

    fn value(&mut self, kind: &Kind) -> Result<(), DecodeError> {
        match kind {
            Fixed(bytes) => self.skip(*bytes),
            Text => {
                let length = self.text_length()?;
                self.skip(length)
            }
            Blob => {
                let length = self.length()?;
                self.skip(length)
            }
            Structs(layout) => {
                for _ in 0..self.count(1)? {
                    self.structure(layout)?;
                }
                Ok(())
            }
            Numbers(bytes) => {
                let count = self.count(*bytes)?;
                self.skip(count * bytes)
            }
            Texts => {
                for _ in 0..self.count(1)? {
                    let length = self.text_length()?;
                    self.skip(length)?;
                }
                Ok(())
            }
        }
    }

    fn tags(&mut self, refused_below: u32) -> Result<(), DecodeError> {
        let count = self.unsigned()?;
        for _ in 0..self.counted(count as usize, 2)? {
            let tag = self.unsigned()?;
            if tag < refused_below {
                return Err(DecodeError::Length { found: i64::from(tag) });
            }
            let length = self.unsigned()?;
            self.skip(length as usize)?;
        }
        Ok(())
    }

    /// An array's count, where every element takes `element_bytes` at least.
    fn count(&mut self, element_bytes: usize) -> Result<usize, DecodeError> {
        let count = self.length()?;
        self.counted(count, element_bytes)
    }

    fn counted(&mut self, count: usize, element_bytes: usize) -> Result<usize, DecodeError> {
        let refused = DecodeError::Length { found: i64::try_from(count).unwrap_or(i64::MAX) };
        self.elements = self.elements.saturating_add(count);
        let fits = count <= self.rest.len() / element_bytes && self.elements <= ELEMENTS_MAX;
        if fits { Ok(count) } else { Err(refused) }
    }

    /// Length of bytes or of an array; null is 0.
    fn length(&mut self) -> Result<usize, DecodeError> {
        if self.flexible {
            return Ok(self.unsigned()?.saturating_sub(1) as usize);
        }
        let mut bytes = [0; 4];
        bytes.copy_from_slice(get_slice(&mut self.rest, 4)?);
        nullable(i64::from(i32::from_be_bytes(bytes)))
    }

    fn text_length(&mut self) -> Result<usize, DecodeError> {
        if self.flexible {
            return self.length();
        }
        let mut bytes = [0; 2];
        bytes.copy_from_slice(get_slice(&mut self.rest, 2)?);
        nullable(i64::from(i16::from_be_bytes(bytes)))
    }

    /// A varint of 32 bits, as the codec reads it: at most five bytes.
    fn unsigned(&mut self) -> Result<u32, DecodeError> {
        u32::try_from(get_unsigned(&mut self.rest)?).map_err(|_| DecodeError::Overflow)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), DecodeError> {
        get_slice(&mut self.rest, bytes).map(|_| ())
    }
}

fn nullable(length: i64) -> Result<usize, DecodeError> {
    match length {
        -1 => Ok(0),
        found => usize::try_from(found).map_err(|_| DecodeError::Length { found }),
    }
}

#[cfg(test)]
mod tests;
