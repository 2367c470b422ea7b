//! Key and headers of a record, kept as long as publishes are alike.

use edge_config::HeaderSelection;
use edge_mqtt::{Publish, origin};
use edge_wire::EnvelopeView;
use edge_wire::envelope::Envelope;
use edge_wire::headers::HeadersBuilder;

use crate::route_cache::{Bytes, Special, Stored};

/// The envelope of a publish, from the cache or made and kept there, and where it is in a chunk.
pub(super) fn ready<'s>(
    stored: &'s mut Stored,
    bytes: &'s mut Bytes,
    publish: &Publish<'_>,
    client_id: &str,
    selection: HeaderSelection,
    headers: &mut HeadersBuilder,
) -> (EnvelopeView<'s>, &'s mut (u64, u32)) {
    let key = stored.key.as_deref();
    let variant = usize::from(publish.qos.byte()) * 2 + usize::from(publish.retain);
    let mut make = || envelope(key, publish, client_id, selection, headers);
    if publish.properties_raw.is_empty() {
        let ready = stored.plain[variant.min(5)].get_or_insert_with(|| bytes.keep(&make()));
        return (bytes.envelope(ready), &mut ready.in_chunk);
    }
    let fits = stored.special.as_ref().is_some_and(|special| {
        *special.properties == *publish.properties_raw && special.variant == variant
    });
    if !fits {
        stored.special = None;
    }
    let special = stored.special.get_or_insert_with(|| {
        let properties = publish.properties_raw.into();
        Box::new(Special { properties, variant, envelope: make(), in_chunk: (0, 0) })
    });
    (special.envelope.view(), &mut special.in_chunk)
}

/// Of publishes with properties, those with small ones are kept ready: the cache counts entries, not bytes.
const KEPT_PROPERTIES_BYTES_MAX: usize = 1_024;

/// Call when [`ready`]'s envelope was used.
pub(super) fn forget_large(stored: &mut Stored) {
    let is_large = |special: &Special| special.properties.len() > KEPT_PROPERTIES_BYTES_MAX;
    if stored.special.as_deref().is_some_and(is_large) {
        stored.special = None;
    }
}

fn envelope(
    key: Option<&[u8]>,
    publish: &Publish<'_>,
    client_id: &str,
    selection: HeaderSelection,
    headers: &mut HeadersBuilder,
) -> Envelope {
    headers.clear();
    origin::headers(publish, client_id, |name, value| {
        let wanted = match name {
            origin::TOPIC => selection.topic,
            origin::CLIENT => selection.client,
            origin::QOS => selection.qos,
            origin::RETAIN => selection.retain,
            name if name.starts_with("mqtt.") => selection.properties,
            _ => selection.user_properties,
        };
        if wanted {
            headers.push(name, Some(value));
        }
    });
    Envelope::new(key, &headers.finish())
}
