//! `[tls]`.

use std::path::PathBuf;

use super::values::{Checked, one_of, text};
use crate::TlsConfig;
use crate::error::Fault;
use crate::raw::RawConfig;

pub(super) fn tls(raw: &RawConfig) -> Checked<Option<TlsConfig>> {
    let (mqtt, raw) = (&raw.mqtt, &raw.tls);
    let path = |text: &str| match text {
        "" => Err("is empty; write a file"),
        text => Ok(PathBuf::from(text)),
    };
    let certificate = text(&raw.cert, path)?;
    let key = text(&raw.key, path)?;
    let client_ca = text(&raw.client_ca, path)?;
    let required = one_of(&raw.client_certificate, &[("optional", false), ("required", true)])?;
    if let (Some(at), None) = (&raw.client_certificate, &client_ca) {
        return Err(Fault::at(at, "says nothing without client_ca; add it under [tls]"));
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(TlsConfig {
            certificate,
            key,
            client_ca,
            client_certificate_required: required.unwrap_or(false),
        })),
        (None, None) => {
            if let Some(at) = &raw.client_ca {
                return Err(Fault::at(at, "needs cert and key beside it under [tls]"));
            }
            match [&mqtt.tls_listen, &mqtt.wss_listen].into_iter().flatten().next() {
                Some(at) => Err(Fault::at(at, "needs a certificate: cert and key under [tls]")),
                None => Ok(None),
            }
        }
        (certificate, _) => {
            let (at, missing) =
                if certificate.is_some() { (&raw.cert, "key") } else { (&raw.key, "cert") };
            let problem = format!("needs {missing} beside it under [tls]");
            match at {
                Some(at) => Err(Fault::at(at, problem)),
                None => Ok(None),
            }
        }
    }
}
