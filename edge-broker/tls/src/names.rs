//! Who a client certificate speaks of: its subject alternative names (RFC 5280 section 4.2.1.6).
//!
//! Rules: DNS names, URIs and email addresses, byte by byte as they stand in the certificate; the subject's common name
//! never (patterns over names have let the wrong ones in elsewhere: CVE-2026-33248). The three kinds cannot be taken for
//! one another: a DNS name has only letters, digits and `-._*`, an email address an `@` and no `:`, a URI a `:` with a
//! scheme before it. What is not so is left out.
//!
//! Limits: [`NAMES_MAX`] names of at most [`NAME_BYTES_MAX`] bytes; more are left out. Only for a certificate that was
//! verified; of anything else the answer is empty or meaningless, never a panic.

/// Most names of one certificate that count.
pub const NAMES_MAX: usize = 16;
/// Longest name that counts, in bytes.
pub const NAME_BYTES_MAX: usize = 256;

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
/// `[3] EXPLICIT Extensions` of a TBSCertificate.
const EXTENSIONS: u8 = 0xA3;
/// 2.5.29.17
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1D, 0x11];
const EMAIL: u8 = 0x81;
const DNS: u8 = 0x82;
const URI: u8 = 0x86;

/// The subject alternative names of a certificate (DER).
#[must_use]
pub fn certificate_names(certificate: &[u8]) -> Vec<String> {
    alt_names(certificate).unwrap_or_default()
}

fn alt_names(certificate: &[u8]) -> Option<Vec<String>> {
    let certificate = Der(certificate).take_if(SEQUENCE)?;
    let mut fields = Der(Der(certificate).take_if(SEQUENCE)?);
    let extensions = loop {
        match fields.take()? {
            (EXTENSIONS, extensions) => break extensions,
            _other => {}
        }
    };
    let mut extensions = Der(Der(extensions).take_if(SEQUENCE)?);
    while let Some(extension) = extensions.take_if(SEQUENCE) {
        let mut extension = Der(extension);
        if extension.take_if(OBJECT_ID)? != SUBJECT_ALT_NAME {
            continue;
        }
        let value = loop {
            match extension.take()? {
                (OCTET_STRING, value) => break value,
                _critical => {}
            }
        };
        return Some(general_names(Der(Der(value).take_if(SEQUENCE)?)));
    }
    None
}

fn general_names(mut names: Der<'_>) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((kind, name)) = names.take() {
        if found.len() == NAMES_MAX {
            break;
        }
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !plain {
            continue;
        }
        let fits = match kind {
            DNS => name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte)),
            EMAIL => name.contains('@') && !name.contains(':'),
            URI => name.split_once(':').is_some_and(|(scheme, _)| {
                scheme.starts_with(|first: char| first.is_ascii_alphabetic())
                    && scheme
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            }),
            _ => false,
        };
        if fits {
            found.push(name.to_owned());
        }
    }
    found
}

/// What is left of a run of DER values.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and what is in it.
    fn take(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            if !(1..=3).contains(&bytes.len()) {
                return None;
            }
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next value, if it has this tag.
    fn take_if(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.take().filter(|(tag, _)| *tag == wanted).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let value = parts.concat();
        let mut out = vec![tag];
        match u8::try_from(value.len()) {
            Ok(short @ 0..=0x7F) => out.push(short),
            Ok(long) => out.extend([0x81, long]),
            Err(_) => {
                out.push(0x82);
                out.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            }
        }
        out.extend(value);
        out
    }

    fn certificate(names: &[(u8, &[u8])]) -> Vec<u8> {
        let names: Vec<Vec<u8>> = names.iter().map(|(kind, name)| der(*kind, &[name])).collect();
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let extension = |id: &[u8], value: &[u8]| {
            der(SEQUENCE, &[&der(OBJECT_ID, &[id]), &[1, 1, 0xFF], &der(OCTET_STRING, &[value])])
        };
        let extensions = der(
            SEQUENCE,
            &[
                &extension(&[0x55, 0x1D, 0x0F], &[3, 2, 7, 0x80]),
                &extension(SUBJECT_ALT_NAME, &der(SEQUENCE, &names)),
            ],
        );
        let body = der(
            SEQUENCE,
            &[
                &[0xA0, 3, 2, 1, 2],
                &[2, 1, 7],
                &der(SEQUENCE, &[]),
                &der(EXTENSIONS, &[&extensions]),
            ],
        );
        der(SEQUENCE, &[&body, &der(SEQUENCE, &[]), &[3, 1, 0]])
    }

    #[test]
    fn names_are_read_as_they_stand() {
        let long = vec![b'a'; 300];
        let certificate = certificate(&[
            (DNS, b"gw7.plant.example"),
            (URI, b"spiffe://plant/gw7"),
            (EMAIL, b"gw7@plant.example"),
            (0x87, &[127, 0, 0, 1]),
            (DNS, &long),
        ]);
        assert_eq!(
            certificate_names(&certificate),
            ["gw7.plant.example", "spiffe://plant/gw7", "gw7@plant.example"]
        );
    }

    #[test]
    fn one_kind_cannot_pretend_to_be_another() {
        let certificate = certificate(&[
            (DNS, b"gw7@plant.example"),
            (DNS, b"spiffe://plant/gw7"),
            (EMAIL, b"gw7.plant.example"),
            (EMAIL, b"spiffe://a@plant/gw7"),
            (URI, b"gw7.plant.example"),
            (DNS, b"gw7\0.evil.example"),
            (DNS, b""),
        ]);
        assert_eq!(certificate_names(&certificate), [""; 0]);
    }

    #[test]
    fn many_names_and_broken_certificates_cost_nothing() {
        let names: Vec<(u8, &[u8])> = vec![(DNS, b"a.example".as_slice()); 100];
        let whole = certificate(&names);
        assert_eq!(certificate_names(&whole).len(), NAMES_MAX);
        for cut in 0..whole.len() {
            let _ = certificate_names(&whole[..cut]);
            let mut flipped = whole.clone();
            flipped[cut] ^= 0x85;
            assert!(certificate_names(&flipped).len() <= NAMES_MAX);
        }
    }
}
