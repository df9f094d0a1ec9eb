//! What the ESMEs of many tests ask for. A test changes what it is about, and nothing else.

use smppd::pdu::{
    Address, Bind, CancelSm, DataCoding, DestAddress, DestAddresses, EsmClass, InterfaceVersion, Npi, Pdu,
    QuerySm, RegisteredDelivery, ReplaceSm, ShortMessage, Tag, TlvBuf, Tlvs, Ton,
};

/// No address.
pub const NOBODY: Address<'static> = Address { ton: Ton(0), npi: Npi(0), digits: b"" };
/// A number of the account `demo`.
pub const NUMBER: Address<'static> = Address { ton: Ton(1), npi: Npi(1), digits: b"12125550100" };
/// Where messages are delivered.
pub const SUBSCRIBER: Address<'static> = Address { digits: b"12125559999", ..NUMBER };
/// Where no carrier ever takes a message.
pub const NEVER_TAKEN: Address<'static> = Address { digits: b"9999000555", ..NUMBER };

pub const BIND: Bind<'static> = Bind {
    system_id: b"demo",
    password: b"secret",
    system_type: b"",
    interface_version: InterfaceVersion::V5_0,
    address_range: NOBODY,
    tlvs: Tlvs::EMPTY,
};

/// A message to a subscriber, with a receipt.
pub const MESSAGE: ShortMessage<'static, Address<'static>> = ShortMessage {
    service_type: b"",
    source: NUMBER,
    destination: SUBSCRIBER,
    esm_class: EsmClass::DEFAULT,
    protocol_id: 0,
    priority_flag: 0,
    schedule_delivery_time: b"",
    validity_period: b"",
    registered_delivery: RegisteredDelivery(1),
    replace_if_present_flag: 0,
    data_coding: DataCoding::DEFAULT,
    sm_default_msg_id: 0,
    short_message: b"hello",
    tlvs: Tlvs::EMPTY,
};
/// The same without a receipt.
pub const QUIET: ShortMessage<'static, Address<'static>> =
    ShortMessage { registered_delivery: RegisteredDelivery(0), ..MESSAGE };
/// One that stays where it is.
pub const UNTAKEN: ShortMessage<'static, Address<'static>> =
    ShortMessage { destination: NEVER_TAKEN, ..QUIET };

/// About no message yet.
pub const QUERY: QuerySm<'static> = QuerySm { message_id: b"", source: NUMBER, tlvs: Tlvs::EMPTY };
/// Of no message yet.
pub const CANCEL: CancelSm<'static> =
    CancelSm { service_type: b"", message_id: b"", source: NUMBER, destination: NOBODY, tlvs: Tlvs::EMPTY };
/// Of no message yet, and of its text alone.
pub const REPLACE: ReplaceSm<'static> = ReplaceSm {
    message_id: b"",
    source: NUMBER,
    schedule_delivery_time: b"",
    validity_period: b"",
    registered_delivery: RegisteredDelivery(0),
    sm_default_msg_id: 0,
    short_message: b"another",
    tlvs: Tlvs::EMPTY,
};

/// Destinations of a submit_multi, as on the wire.
#[derive(Default)]
pub struct Destinations {
    count: u8,
    octets: Vec<u8>,
}

impl Destinations {
    pub fn of<'a>(addresses: impl IntoIterator<Item = Address<'a>>) -> Self {
        let mut destinations = Self::default();
        for address in addresses {
            destinations.count += 1;
            DestAddress::Sme(address).put(&mut destinations.octets).expect("an address");
        }
        destinations
    }

    /// So many numbers that begin with these digits.
    pub fn beginning_with(prefix: &str, count: u8) -> Self {
        let numbers: Vec<String> = (0..count).map(|number| format!("{prefix}{number:03}")).collect();
        Self::of(numbers.iter().map(|number| Address { digits: number.as_bytes(), ..NUMBER }))
    }

    fn read(&self) -> DestAddresses<'_> {
        DestAddresses::new(self.count, &self.octets).expect("destinations")
    }
}

/// The same message to all of these.
pub fn multi<'a>(message: ShortMessage<'a, Address<'a>>, to: &'a Destinations) -> Pdu<'a> {
    Pdu::SubmitMulti(ShortMessage {
        service_type: message.service_type,
        source: message.source,
        destination: to.read(),
        esm_class: message.esm_class,
        protocol_id: message.protocol_id,
        priority_flag: message.priority_flag,
        schedule_delivery_time: message.schedule_delivery_time,
        validity_period: message.validity_period,
        registered_delivery: message.registered_delivery,
        replace_if_present_flag: message.replace_if_present_flag,
        data_coding: message.data_coding,
        sm_default_msg_id: message.sm_default_msg_id,
        short_message: message.short_message,
        tlvs: message.tlvs,
    })
}

/// One TLV.
pub fn tlv(tag: Tag, value: &[u8]) -> TlvBuf {
    let mut tlvs = TlvBuf::default();
    tlvs.put(tag, value).expect("a TLV");
    tlvs
}

/// A text that is longer than a short message, or may be.
pub fn payload(text: &[u8]) -> TlvBuf {
    tlv(Tag::MESSAGE_PAYLOAD, text)
}
