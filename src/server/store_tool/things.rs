//! Messages, receipts and replies as programs read them: one JSON object each.

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value;

use crate::message::{Content, ParcelKey, ParcelView, Standing, State};
use crate::pdu::{Framing, HEADER_OCTETS, Pdu, ShortMessage, next_frame};
use crate::store::{BlockKey, FinalMessage, RestPlace};
use crate::time::Timestamp;

/// An object whose fields keep their order.
#[derive(Default)]
pub(super) struct Fields(Vec<(String, Value)>);

impl Fields {
    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.0.push((name.to_owned(), value.into()));
        self
    }

    /// Octets: as a string when they are printable ASCII, else in hexadecimal under a name of their own.
    pub(super) fn text(&mut self, name: &str, octets: &[u8]) -> &mut Self {
        match printable(octets) {
            Some(text) => self.put(name, text),
            None => self.hex(name, octets),
        }
    }

    /// Octets that are no text.
    pub(super) fn hex(&mut self, name: &str, octets: &[u8]) -> &mut Self {
        self.put(&format!("{name}_hex"), hex(octets))
    }

    /// A moment; null when there is none.
    pub(super) fn time(&mut self, name: &str, at: Timestamp) -> &mut Self {
        match at {
            Timestamp::ZERO | Timestamp::MAX => self.put(name, Value::Null),
            at => self.put(name, date(at)),
        }
    }

    /// Where something at rest lies.
    pub(super) fn place(&mut self, place: Option<RestPlace>) -> &mut Self {
        match place {
            Some(place) => self.put("kept", "rest").put("block", place.block.0).put("slot", place.slot),
            None => self.put("kept", "journal"),
        }
    }

    /// A line of its own.
    pub(super) fn write_line(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self).map_err(io::Error::from)?;
        out.write_all(b"\n")
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Octets as text, if they are.
pub(super) fn printable(octets: &[u8]) -> Option<&str> {
    let is_text = |octet: &u8| matches!(octet, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    if octets.iter().all(is_text) { str::from_utf8(octets).ok() } else { None }
}

/// Octets as text, or in hexadecimal.
pub(super) fn shown(octets: &[u8]) -> String {
    printable(octets).map_or_else(|| format!("0x{}", hex(octets)), str::to_owned)
}

pub(super) fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A moment in UTC with its milliseconds.
pub(super) fn date(at: Timestamp) -> String {
    let whole = at.to_string();
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), at.as_millis() % 1000)
}

/// The name of a state before the end.
pub(super) const fn state_name(state: State) -> &'static str {
    match state {
        State::Scheduled => "SCHEDULED",
        State::Queued => "QUEUED",
        State::Attempting => "ATTEMPTING",
        State::Forwarded => "FORWARDED",
        State::Final(_) => "FINAL",
    }
}

/// What a parcel is.
pub(super) const fn parcel_kind(key: ParcelKey) -> &'static str {
    match key.part {
        ParcelKey::REPLY => "reply",
        ParcelKey::FINAL_RECEIPT => "receipt",
        _ => "notification",
    }
}

/// A message that is not over.
pub(super) fn message(content: &Content<'_>, standing: &Standing, place: Option<RestPlace>) -> Fields {
    let mut fields = Fields::default();
    fields.put("kind", "message");
    names(&mut fields, content.id, content.batch_offset, content.batch_count);
    fields
        .put("partition", content.id.partition().0)
        .text("system_id", content.system_id)
        .put("state", state_name(standing.state))
        .time("due_at", standing.deadline.max(content.accepted_at).min(content.expires_at))
        .put("carrier", standing.carrier)
        .put("deferrals", standing.deferrals)
        .put("error", standing.error)
        .put("notifications", standing.notifications);
    put_content(&mut fields, content);
    fields.place(place);
    fields
}

/// What was submitted.
pub(super) fn put_content(fields: &mut Fields, content: &Content<'_>) {
    fields
        .time("accepted_at", content.accepted_at)
        .time("deliver_at", content.deliver_at)
        .time("expires_at", content.expires_at)
        .put("segments", content.segments)
        .text("service_type", content.service_type)
        .put("source_addr_ton", content.source.ton.0)
        .put("source_addr_npi", content.source.npi.0)
        .text("source_addr", content.source.digits)
        .put("dest_addr_ton", content.destination.ton.0)
        .put("dest_addr_npi", content.destination.npi.0)
        .text("destination_addr", content.destination.digits)
        .put("esm_class", content.esm_class.0)
        .put("protocol_id", content.protocol_id)
        .put("priority_flag", content.priority_flag)
        .put("registered_delivery", content.registered_delivery.0)
        .put("data_coding", content.data_coding.0)
        .text("user_data", content.user_data)
        .hex("tlvs", content.tlvs);
}

/// A receipt or reply.
pub(super) fn parcel(view: &ParcelView<'_>, expires_at: Timestamp, place: Option<RestPlace>) -> Fields {
    let mut fields = Fields::default();
    fields
        .put("kind", parcel_kind(view.key))
        .put("id", view.key.id.to_string())
        .put("part", view.key.part)
        .put("partition", view.key.id.partition().0)
        .text("system_id", view.system_id)
        .time("created_at", view.created_at)
        .time("expires_at", expires_at);
    with_deliver_sm(view, |deliver_sm| match deliver_sm {
        Some(body) => {
            fields
                .put("source_addr_ton", body.source.ton.0)
                .put("source_addr_npi", body.source.npi.0)
                .text("source_addr", body.source.digits)
                .put("dest_addr_ton", body.destination.ton.0)
                .put("dest_addr_npi", body.destination.npi.0)
                .text("destination_addr", body.destination.digits)
                .put("esm_class", body.esm_class.0)
                .put("data_coding", body.data_coding.0)
                .text("short_message", body.short_message);
        }
        None => {
            fields.hex("mandatory", view.mandatory);
        }
    });
    fields.hex("tlvs", view.tlvs).place(place);
    fields
}

/// The deliver_sm that a parcel is.
pub(super) fn with_deliver_sm<R>(
    view: &ParcelView<'_>,
    read: impl FnOnce(Option<&ShortMessage<'_>>) -> R,
) -> R {
    let length = HEADER_OCTETS + view.mandatory.len();
    let mut octets = Vec::with_capacity(length);
    for field in [length as u32, 0x0000_0005, 0, 1] {
        octets.extend_from_slice(&field.to_be_bytes());
    }
    octets.extend_from_slice(view.mandatory);
    let Framing::Frame(frame) = next_frame(&octets, usize::MAX) else { return read(None) };
    match frame.decode() {
        Ok(Pdu::DeliverSm(body)) => read(Some(&body)),
        Ok(_) | Err(_) => read(None),
    }
}

/// A message that is over.
pub(super) fn ended(message: &FinalMessage<'_>, block: Option<BlockKey>) -> Fields {
    let mut fields = Fields::default();
    fields.put("kind", "final");
    names(&mut fields, message.id, message.batch_offset, message.batch_count);
    fields
        .put("partition", message.id.partition().0)
        .text("system_id", &message.system_id)
        .put("state", message.state.to_string())
        .put("error", message.error)
        .time("final_date", message.final_date)
        .text("source_addr", &message.source_addr);
    match block {
        Some(key) => {
            fields.put("kept", "rest").put("block", key.first.to_string()).put("generation", key.generation);
        }
        None => {
            fields.place(None);
        }
    }
    fields
}

fn names(fields: &mut Fields, id: crate::message::MessageId, batch_offset: u8, batch_count: u8) {
    fields.put("id", id.to_string()).put("message_id", id.of_batch(batch_offset).to_string());
    if batch_count > 1 {
        fields.put("batch_offset", batch_offset).put("batch_count", batch_count);
    }
}
