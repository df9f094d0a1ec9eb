//! Makes the requests of a connection.

mod destination;
mod kind;
mod long_text;
mod text;

use std::ops::Range;

use smppd::pdu::{
    Address, Alphabet, CancelSm, CommandId, DataCoding, DataSm, DestAddress, DestAddresses, EsmClass, Npi,
    QuerySm, Reference, RegisteredDelivery, ReplaceSm, ShortMessage, Tag, Tlvs, Ton, put_tlv,
};

pub(crate) use self::kind::Kind;

use self::destination::Destination;
use self::long_text::LongText;
use self::text::Book;
use crate::scenario::{Group, Long, Message, Mix};

/// Makes the requests of one connection. They borrow from it, so that none of them allocates.
pub(crate) struct Composer {
    message: Message,
    alphabet: Alphabet,
    book: Book,
    /// That of the last request but segments, which have their own.
    destination: Destination,
    long_text: LongText,
    /// The last segment, with its header.
    user_data: Vec<u8>,
    /// The TLVs of the last request, as on the wire.
    tlvs: Vec<u8>,
    /// The destinations of the last submit_multi, as on the wire.
    dest_addresses: Vec<u8>,
    random: fastrand::Rng,
}

impl Composer {
    /// Makes what `group` submits; another seed, other random digits and lengths.
    pub(crate) fn new(group: &Group, seed: u64) -> Self {
        let message = group.message.clone();
        let mut random = fastrand::Rng::with_seed(seed);
        // What 0 means is set per account; our words have the same octets in all that it can mean.
        let alphabet = DataCoding(message.data_coding).alphabet(Alphabet::Gsm7).unwrap_or(Alphabet::Binary);
        let [_, octets_max] = message.octets.range();
        let book = Book::new(alphabet, octets_max, &mut random);
        let destination = Destination::new(&message.destination);
        // Connections may share destinations, so they do not all begin with the same reference.
        let reference = match message.long {
            Long::Udh => Reference::Eight(random.u8(..)),
            Long::Sar | Long::No | Long::Payload => Reference::Sixteen(random.u16(..)),
        };
        let long_text = LongText::new(alphabet, destination.clone(), reference);
        Self {
            message,
            alphabet,
            book,
            destination,
            long_text,
            user_data: Vec::new(),
            tlvs: Vec::new(),
            dest_addresses: Vec::new(),
            random,
        }
    }

    /// What to request next, at random by the shares of `mix`. What asks about an earlier message gives way to
    /// submit_sm while there is none.
    pub(crate) fn kind(&mut self, mix: &Mix, has_earlier: bool) -> Kind {
        Kind::draw(mix, has_earlier, &mut self.random)
    }

    /// The next submit_sm: a whole text, or the next segment of one.
    pub(crate) fn next_submit(&mut self) -> ShortMessage<'_> {
        match self.message.long {
            Long::No | Long::Payload => {
                let text = self.put_text();
                self.destination.draw(&mut self.random);
                self.short_message(self.destination.address(), self.book.text(text))
            }
            Long::Udh | Long::Sar => self.next_segment(),
        }
    }

    /// A data_sm with a whole text.
    pub(crate) fn next_data_sm(&mut self) -> DataSm<'_> {
        self.put_payload();
        self.destination.draw(&mut self.random);
        DataSm {
            service_type: b"",
            source: self.source(),
            destination: self.destination.address(),
            esm_class: EsmClass::DEFAULT,
            registered_delivery: RegisteredDelivery(self.message.registered_delivery),
            data_coding: DataCoding(self.message.data_coding),
            tlvs: self.tlvs(),
        }
    }

    /// A submit_multi with a whole text for so many destinations, 1 to 255.
    pub(crate) fn next_multi(&mut self, destinations: usize) -> ShortMessage<'_, DestAddresses<'_>> {
        let text = self.put_text();
        let number_of_dests = destinations.clamp(1, 255) as u8;
        self.dest_addresses.clear();
        for _ in 0..number_of_dests {
            self.destination.draw(&mut self.random);
            DestAddress::Sme(self.destination.address())
                .put(&mut self.dest_addresses)
                .unwrap_or_else(|wrong| unreachable!("the scenario was checked: {wrong}"));
        }
        let dest_addresses = DestAddresses::new(number_of_dests, &self.dest_addresses)
            .unwrap_or_else(|_| unreachable!("they have just been put"));
        self.short_message(dest_addresses, self.book.text(text))
    }

    /// A replace_sm that gives an earlier message another text.
    pub(crate) fn replacement<'a>(&'a mut self, message_id: &'a [u8]) -> ReplaceSm<'a> {
        let text = self.put_text();
        ReplaceSm {
            message_id,
            source: self.source(),
            schedule_delivery_time: b"",
            validity_period: b"",
            registered_delivery: RegisteredDelivery(self.message.registered_delivery),
            sm_default_msg_id: 0,
            short_message: self.book.text(text),
            tlvs: self.tlvs(),
        }
    }

    /// A query_sm about an earlier message.
    pub(crate) fn query<'a>(&'a self, message_id: &'a [u8]) -> QuerySm<'a> {
        QuerySm { message_id, source: self.source(), tlvs: Tlvs::EMPTY }
    }

    /// A cancel_sm of an earlier message.
    pub(crate) fn cancel<'a>(&'a self, message_id: &'a [u8]) -> CancelSm<'a> {
        CancelSm {
            service_type: b"",
            message_id,
            source: self.source(),
            // The message_id says enough.
            destination: Address::default(),
            tlvs: Tlvs::EMPTY,
        }
    }

    /// The next segment of the long text, or the first of another one.
    fn next_segment(&mut self) -> ShortMessage<'_> {
        if self.long_text.is_over() {
            let text = self.next_text();
            self.long_text.begin(text, &mut self.random);
        }
        let text = self.long_text.next();
        self.user_data.clear();
        self.tlvs.clear();
        let esm_class = self.long_text.put_header(&mut self.user_data, &mut self.tlvs);
        self.user_data.extend_from_slice(self.book.text(text));
        let message = self.short_message(self.long_text.destination(), &self.user_data);
        ShortMessage { esm_class, ..message }
    }

    /// Puts the next text where `long` has it, for requests that are not cut into segments: into the TLVs, or into
    /// short_message, whose place in the book is returned.
    fn put_text(&mut self) -> Range<usize> {
        if self.message.long == Long::No {
            self.tlvs.clear();
            return self.next_text();
        }
        self.put_payload();
        0..0
    }

    /// Puts the next text into the TLVs.
    fn put_payload(&mut self) {
        let text = self.next_text();
        self.tlvs.clear();
        put(Tag::MESSAGE_PAYLOAD, self.book.text(text), &mut self.tlvs);
    }

    /// The place of the next text.
    fn next_text(&mut self) -> Range<usize> {
        let unit_octets = unit_octets(self.alphabet);
        let [least, most] = self.message.octets.range();
        let units = self.random.usize(least / unit_octets..=most / unit_octets);
        self.book.next(units * unit_octets)
    }

    fn short_message<'a, D>(&'a self, destination: D, short_message: &'a [u8]) -> ShortMessage<'a, D> {
        ShortMessage {
            service_type: b"",
            source: self.source(),
            destination,
            esm_class: EsmClass::DEFAULT,
            protocol_id: 0,
            priority_flag: 0,
            schedule_delivery_time: b"",
            validity_period: b"",
            registered_delivery: RegisteredDelivery(self.message.registered_delivery),
            replace_if_present_flag: 0,
            data_coding: DataCoding(self.message.data_coding),
            sm_default_msg_id: 0,
            short_message,
            tlvs: self.tlvs(),
        }
    }

    fn source(&self) -> Address<'_> {
        let digits = self.message.source.as_bytes();
        let (ton, npi) = match digits.strip_prefix(b"+").unwrap_or(digits) {
            [] => (Ton::UNKNOWN, Npi::UNKNOWN),
            number if number.iter().all(u8::is_ascii_digit) => (Ton::INTERNATIONAL, Npi::ISDN),
            _ => (Ton::ALPHANUMERIC, Npi::UNKNOWN),
        };
        Address { ton, npi, digits }
    }

    fn tlvs(&self) -> Tlvs<'_> {
        // Those of a submit_sm have the same lengths in all that we make.
        Tlvs::read(&self.tlvs, CommandId::SUBMIT_SM)
            .unwrap_or_else(|_| unreachable!("they have just been put"))
    }
}

/// Octets on the wire for each unit that segments are measured in.
const fn unit_octets(alphabet: Alphabet) -> usize {
    match alphabet {
        Alphabet::Gsm7 | Alphabet::Ascii | Alphabet::Latin1 | Alphabet::Binary => 1,
        Alphabet::Ucs2 => 2,
    }
}

fn put(tag: Tag, value: &[u8], tlvs: &mut Vec<u8>) {
    put_tlv(tag, value, tlvs).unwrap_or_else(|wrong| unreachable!("the scenario was checked: {wrong}"));
}

#[cfg(test)]
mod tests;
