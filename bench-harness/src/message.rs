//! Makes the requests of a connection.

mod text;

use std::ops::Range;

use smppd::pdu::{
    Address, Alphabet, CancelSm, CommandId, Concatenation, DataCoding, DataSm, DestAddress, DestAddresses,
    EsmClass, Npi, QuerySm, Reference, RegisteredDelivery, ReplaceSm, ShortMessage, Tag, Tlvs, Ton, put_tlv,
};

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

/// The operation of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    SubmitSm,
    QuerySm,
    CancelSm,
    ReplaceSm,
    SubmitMulti,
    DataSm,
}

/// A submit_sm, and its place in its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Submit<'a> {
    /// What to send.
    pub(crate) message: ShortMessage<'a>,
    /// Whether its text ends with it; of several segments only the last says so.
    pub(crate) is_last: bool,
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
        let long_text =
            LongText { destination: destination.clone(), left: 0..0, reference, total: 0, sequence: 0 };
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
        let mut drawn = self.random.f64() * 100.0;
        for (kind, share) in [
            (Kind::QuerySm, mix.query_sm),
            (Kind::CancelSm, mix.cancel_sm),
            (Kind::ReplaceSm, mix.replace_sm),
            (Kind::SubmitMulti, mix.submit_multi),
            (Kind::DataSm, mix.data_sm),
        ] {
            if drawn < share {
                return if has_earlier || !kind.needs_earlier() { kind } else { Kind::SubmitSm };
            }
            drawn -= share;
        }
        Kind::SubmitSm
    }

    /// The next submit_sm: a whole text, or the next segment of one.
    pub(crate) fn next_submit(&mut self) -> Submit<'_> {
        match self.message.long {
            Long::No | Long::Payload => {
                let text = self.put_text();
                self.destination.draw(&mut self.random);
                let message = self.short_message(self.destination.address(), self.book.text(text));
                Submit { message, is_last: true }
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

    /// The next segment of the long text, or the first of another one. What fits one message is no segment.
    fn next_segment(&mut self) -> Submit<'_> {
        if self.long_text.is_over() {
            self.begin_long_text();
        }
        let octets_max = self.segment_octets_max();
        let long_text = &mut self.long_text;
        let text = long_text.next(octets_max);
        let LongText { reference, total, sequence, .. } = *long_text;
        let is_last = long_text.is_over();
        self.user_data.clear();
        self.tlvs.clear();
        let mut esm_class = EsmClass::DEFAULT;
        match reference {
            _ if total == 1 => {}
            Reference::Eight(_) => {
                esm_class = EsmClass::UDHI;
                Concatenation { reference, total, sequence }.put(&mut self.user_data);
            }
            Reference::Sixteen(number) => {
                put(Tag::SAR_MSG_REF_NUM, &number.to_be_bytes(), &mut self.tlvs);
                put(Tag::SAR_TOTAL_SEGMENTS, &[total], &mut self.tlvs);
                put(Tag::SAR_SEGMENT_SEQNUM, &[sequence], &mut self.tlvs);
            }
        }
        self.user_data.extend_from_slice(self.book.text(text));
        let message = self.short_message(self.long_text.destination.address(), &self.user_data);
        Submit { message: ShortMessage { esm_class, ..message }, is_last }
    }

    fn begin_long_text(&mut self) {
        let text = self.next_text();
        let octets = text.len();
        let fits_one = octets <= self.alphabet.single_units_max() * unit_octets(self.alphabet);
        let total = if fits_one { 1 } else { octets.div_ceil(self.segment_octets_max()) };
        let long_text = &mut self.long_text;
        long_text.left = text;
        long_text.total =
            u8::try_from(total).unwrap_or_else(|_| unreachable!("the scenario was checked: {octets}"));
        long_text.sequence = 0;
        long_text.reference = match long_text.reference {
            Reference::Eight(number) => Reference::Eight(number.wrapping_add(1)),
            Reference::Sixteen(number) => Reference::Sixteen(number.wrapping_add(1)),
        };
        long_text.destination.draw(&mut self.random);
    }

    /// Octets of text in each segment but the last. With sar_ TLVs it is the MC that puts a header on air, with a
    /// reference of the same 16 bits, so the room for it is left as well.
    fn segment_octets_max(&self) -> usize {
        self.alphabet.segment_units_max(self.long_text.reference) * unit_octets(self.alphabet)
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

impl Kind {
    /// Whether it is about a message that was submitted before.
    const fn needs_earlier(self) -> bool {
        match self {
            Self::QuerySm | Self::CancelSm | Self::ReplaceSm => true,
            Self::SubmitSm | Self::SubmitMulti | Self::DataSm => false,
        }
    }
}

/// The text that is being sent in segments.
struct LongText {
    /// The same for all its segments.
    destination: Destination,
    /// The place of what is not sent yet.
    left: Range<usize>,
    reference: Reference,
    /// How many segments it has.
    total: u8,
    /// The number of the last that was sent.
    sequence: u8,
}

impl LongText {
    const fn is_over(&self) -> bool {
        self.sequence == self.total
    }

    /// The place of the next segment's text. A text that is alone may be longer than a segment, as it has no header.
    fn next(&mut self, octets_max: usize) -> Range<usize> {
        self.sequence += 1;
        let Range { start, end } = self.left;
        let cut = if self.is_over() { end } else { start + octets_max };
        self.left.start = cut;
        start..cut
    }
}

/// A destination_addr, with its random digits.
#[derive(Clone)]
struct Destination {
    digits: Box<[u8]>,
    /// Where the random ones are.
    random: Box<[usize]>,
}

impl Destination {
    fn new(pattern: &str) -> Self {
        let digits = pattern.as_bytes();
        let random = (0..digits.len()).filter(|&index| digits[index] == b'#').collect();
        Self { digits: digits.into(), random }
    }

    /// Draws other digits.
    fn draw(&mut self, random: &mut fastrand::Rng) {
        for &index in &self.random {
            self.digits[index] = random.u8(b'0'..=b'9');
        }
    }

    fn address(&self) -> Address<'_> {
        Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits: &self.digits }
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
mod tests {
    use smppd::pdu::{CommandStatus, Framing, Pdu, Udh, next_frame, segment};

    use super::*;
    use crate::scenario::Scenario;

    fn composer(message: &str) -> Composer {
        let text = format!("about = \"\"\n[[group]]\nname = \"g\"\nmessage = {{ {message} }}");
        Composer::new(&Scenario::parse(&text).expect("it is valid").groups[0], 7)
    }

    fn encoded(pdu: &Pdu<'_>) -> Vec<u8> {
        let mut octets = Vec::new();
        pdu.encode(CommandStatus::ESME_ROK, 1, &mut octets).expect("every value fits its field");
        octets
    }

    fn decoded(octets: &[u8]) -> Pdu<'_> {
        let Framing::Frame(frame) = next_frame(octets, 1 << 17) else { panic!("no whole PDU") };
        frame.decode().expect("it can be read")
    }

    /// The fields of a submit_sm that these tests are about, after it was on the wire.
    struct Seen {
        esm_class: u8,
        destination: String,
        short_message: Vec<u8>,
        tlvs: Vec<u8>,
        is_last: bool,
    }

    fn submit(composer: &mut Composer) -> Seen {
        let Submit { message, is_last } = composer.next_submit();
        let octets = encoded(&Pdu::SubmitSm(message));
        let Pdu::SubmitSm(read) = decoded(&octets) else { panic!("no submit_sm") };
        assert_eq!(read, message);
        Seen {
            esm_class: read.esm_class.0,
            destination: String::from_utf8(read.destination.digits.to_vec()).expect("digits"),
            short_message: read.short_message.to_vec(),
            tlvs: read.tlvs.as_octets().to_vec(),
            is_last,
        }
    }

    #[test]
    fn a_submit_sm_has_the_octets_of_the_specification() {
        let mut composer =
            composer("octets = 5, registered_delivery = 1, source = \"shop\", destination = \"121255512##\"");
        let octets = encoded(&Pdu::SubmitSm(composer.next_submit().message));
        // Behind the header (§4.2.1): service_type, source_addr (5 is alphanumeric), destination_addr (international,
        // ISDN).
        assert_eq!(octets[16..26], *b"\0\x05\0shop\0\x01\x01");
        assert!(octets[26..].starts_with(b"121255512"));
        assert!(octets[35..37].iter().all(u8::is_ascii_digit));
        // NUL; esm_class, protocol_id, priority_flag; both times empty; registered_delivery, replace_if_present_flag,
        // data_coding, sm_default_msg_id; sm_length.
        assert_eq!(octets[37..47], [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!((octets[47], octets.len()), (5, 53));
    }

    #[test]
    fn whole_texts_are_of_the_alphabet_and_the_lengths_asked_for() {
        for (data_coding, alphabet) in [
            (0, Alphabet::Gsm7),
            (0, Alphabet::Ascii),
            (1, Alphabet::Ascii),
            (3, Alphabet::Latin1),
            (8, Alphabet::Ucs2),
        ] {
            let mut composer = composer(&format!("octets = [2, 254], data_coding = {data_coding}"));
            let mut lengths = std::collections::BTreeSet::new();
            for _ in 0..10_000 {
                let Seen { short_message, tlvs, esm_class, is_last, .. } = submit(&mut composer);
                assert!(is_last && esm_class == 0 && tlvs.is_empty());
                let text = alphabet.decode(&short_message);
                assert!(
                    text.chars().all(|character| character.is_alphabetic() || character == ' '),
                    "{text}"
                );
                // The simulator would answer it.
                assert!(!text.starts_with("reply"));
                lengths.insert(short_message.len());
            }
            let all = (2..=254).filter(|octets| data_coding != 8 || octets % 2 == 0);
            assert!(lengths.into_iter().eq(all), "data_coding {data_coding}");
        }
    }

    #[test]
    fn binary_texts_are_random_octets() {
        for data_coding in [2, 4] {
            let mut composer = composer(&format!("octets = 140, data_coding = {data_coding}"));
            let (first, second) = (submit(&mut composer).short_message, submit(&mut composer).short_message);
            assert!(first.len() == 140 && second.len() == 140 && first != second);
            let distinct: std::collections::HashSet<u8> = first.into_iter().collect();
            assert!(distinct.len() > 70, "{}", distinct.len());
        }
    }

    #[test]
    fn texts_and_destinations_change() {
        let mut composer = composer("destination = \"9999###\"");
        let first = submit(&mut composer);
        let mut destinations = std::collections::HashSet::new();
        for _ in 0..100 {
            let next = submit(&mut composer);
            assert!(next.destination.starts_with("9999") && next.destination.len() == 7);
            destinations.insert(next.destination);
        }
        assert!(destinations.len() > 80);
        assert_ne!(first.short_message, submit(&mut composer).short_message);
    }

    #[test]
    fn segments_with_a_user_data_header_carry_the_text() {
        for (data_coding, octets, lengths) in [
            // 6 octets of header, and 153 septets, 67 × 2 or 134 octets.
            (0, 400, [159, 159, 100]),
            (3, 400, [159, 159, 100]),
            (8, 400, [140, 140, 138]),
            (4, 400, [140, 140, 138]),
        ] {
            let message = format!(
                "octets = {octets}, data_coding = {data_coding}, long = \"udh\", destination = \"12####\""
            );
            let mut composer = composer(&message);
            let mut references = Vec::new();
            for _ in 0..300 {
                let segments = [(); 3].map(|()| submit(&mut composer));
                let reference = segments[0].short_message[3];
                references.push(reference);
                for (index, segment) in segments.iter().enumerate() {
                    assert_eq!(segment.esm_class, 0x40);
                    assert_eq!(segment.short_message[..6], [5, 0, 3, reference, 3, index as u8 + 1]);
                    assert_eq!(segment.short_message.len(), lengths[index], "data_coding {data_coding}");
                    assert_eq!(segment.destination, segments[0].destination);
                    assert!(segment.tlvs.is_empty());
                    assert_eq!(segment.is_last, index == 2);
                }
                // The library cuts the same text at the same places.
                let text = segments
                    .each_ref()
                    .map(|segment| Udh::split(&segment.short_message).expect("a header").1);
                let alphabet = DataCoding(data_coding).alphabet(Alphabet::Gsm7).expect("a known one");
                let built = segment::segments(alphabet, &text.concat(), Reference::Eight(reference));
                assert_eq!(built, Ok(segments.map(|segment| segment.short_message).to_vec()));
            }
            assert!(references.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{references:?}");
        }
    }

    #[test]
    fn segments_with_sar_tlvs_carry_the_text() {
        for (data_coding, lengths) in [(0, [152, 152, 96]), (8, [132, 132, 136]), (4, [133, 133, 134])] {
            // 400 octets are four segments of UCS-2 and of octets; the third and the fourth are added up here.
            let mut composer =
                composer(&format!("octets = 400, data_coding = {data_coding}, long = \"sar\""));
            let mut reference = None;
            for _ in 0..2 {
                let mut segments = vec![submit(&mut composer)];
                while !segments.last().is_some_and(|segment| segment.is_last) {
                    segments.push(submit(&mut composer));
                }
                let total = segments.len() as u8;
                let [high, low] = [segments[0].tlvs[4], segments[0].tlvs[5]];
                for (sequence, segment) in (1..).zip(&segments) {
                    assert_eq!(segment.esm_class, 0);
                    #[rustfmt::skip]
                    assert_eq!(segment.tlvs, [
                        0x02, 0x0C, 0, 2, high, low,
                        0x02, 0x0E, 0, 1, total,
                        0x02, 0x0F, 0, 1, sequence,
                    ]);
                    assert!(segment.short_message.len() <= lengths[0]);
                }
                let octets = segments.iter().map(|segment| segment.short_message.len());
                assert!(octets.clone().take(2).eq(lengths[..2].iter().copied()));
                assert_eq!(octets.skip(2).sum::<usize>(), lengths[2]);
                let number = u16::from_be_bytes([high, low]);
                assert_eq!(number, reference.map_or(number, |last: u16| last.wrapping_add(1)));
                reference = Some(number);
            }
        }
    }

    #[test]
    fn what_fits_one_message_is_no_segment() {
        for (long, octets, data_coding, segments) in [
            ("udh", 160, 0, 1),
            ("udh", 161, 0, 2),
            ("udh", 140, 8, 1),
            ("udh", 142, 8, 2),
            ("udh", 306, 0, 2),
            ("udh", 307, 0, 3),
            ("sar", 160, 0, 1),
            ("sar", 161, 0, 2),
            ("sar", 304, 0, 2),
            ("sar", 305, 0, 3),
            ("udh", 0, 0, 1),
            ("udh", 255 * 153, 0, 255),
            ("udh", 255 * 134, 8, 255),
            ("sar", 255 * 133, 4, 255),
        ] {
            let mut composer =
                composer(&format!("octets = {octets}, data_coding = {data_coding}, long = \"{long}\""));
            let what = format!("{octets} octets of {data_coding} with {long}");
            for sequence in 1..=segments {
                let segment = submit(&mut composer);
                assert_eq!(segment.is_last, sequence == segments, "{what}");
                let has_header = segment.esm_class == 0x40 || !segment.tlvs.is_empty();
                assert_eq!(has_header, segments > 1, "{what}");
                let octets_max = if data_coding == 0 { 160 } else { 140 };
                assert!(segment.short_message.len() <= octets_max, "{what}");
            }
        }
    }

    #[test]
    fn other_requests_do_not_disturb_a_long_text() {
        let mut composer = composer("octets = 300, long = \"udh\", destination = \"12####\"");
        let first = submit(&mut composer);
        composer.next_data_sm();
        composer.next_multi(3);
        let second = submit(&mut composer);
        assert_eq!(first.destination, second.destination);
        assert_eq!((second.short_message[3], second.short_message[5]), (first.short_message[3], 2));
        assert!(second.tlvs.is_empty() && second.is_last);
    }

    #[test]
    fn a_payload_leaves_short_message_empty() {
        for octets in [0, 10, 1_000, 65_535] {
            let mut composer = composer(&format!("octets = {octets}, long = \"payload\""));
            let Seen { esm_class, short_message, tlvs, is_last, .. } = submit(&mut composer);
            assert!(is_last && esm_class == 0 && short_message.is_empty());
            let [high, low] = (octets as u16).to_be_bytes();
            assert_eq!(tlvs[..4], [0x04, 0x24, high, low]);
            assert_eq!(tlvs.len(), 4 + octets);
        }
    }

    #[test]
    fn a_data_sm_has_its_text_in_the_payload() {
        for long in ["no", "udh", "payload"] {
            let mut composer = composer(&format!(
                "octets = 200, data_coding = 3, registered_delivery = 1, long = \"{long}\""
            ));
            let data = composer.next_data_sm();
            let octets = encoded(&Pdu::DataSm(data));
            assert_eq!(decoded(&octets), Pdu::DataSm(data));
            assert_eq!(data.tlvs.get(Tag::MESSAGE_PAYLOAD).map(<[u8]>::len), Some(200));
            // esm_class, registered_delivery, data_coding, and the head of the TLV.
            let at = octets.len() - 207;
            assert_eq!(octets[at..at + 7], [0, 1, 3, 0x04, 0x24, 0, 200]);
        }
    }

    #[test]
    fn a_submit_multi_has_the_destinations_asked_for() {
        for (destinations, long) in [(1, "no"), (7, "no"), (255, "payload")] {
            let mut composer =
                composer(&format!("octets = 200, long = \"{long}\", destination = \"1212555####\""));
            let multi = composer.next_multi(destinations);
            let octets = encoded(&Pdu::SubmitMulti(multi));
            assert_eq!(decoded(&octets), Pdu::SubmitMulti(multi));
            // number_of_dests, behind service_type and source_addr; then dest_flag 1, TON and NPI of each.
            assert_eq!(octets[20..24], [destinations as u8, 1, 1, 1]);
            let seen: std::collections::HashSet<_> =
                multi.destination.iter().map(|destination| format!("{destination:?}")).collect();
            assert!(seen.len() * 10 > destinations * 9, "{} of {destinations}", seen.len());
            let payload_octets = multi.tlvs.get(Tag::MESSAGE_PAYLOAD).map_or(0, <[u8]>::len);
            assert_eq!(multi.short_message.len() + payload_octets, 200);
            assert_eq!(payload_octets > 0, long == "payload");
        }
    }

    #[test]
    fn what_is_about_an_earlier_message_names_it_and_its_sender() {
        let mut composer = composer("octets = 50, source = \"+12125550100\", registered_delivery = 1");
        let source = Address { ton: Ton::INTERNATIONAL, npi: Npi::ISDN, digits: b"+12125550100" };
        assert_eq!(composer.next_submit().message.source, source);
        let query = composer.query(b"17");
        assert_eq!((query.message_id, query.source), (&b"17"[..], source));
        assert_eq!(decoded(&encoded(&Pdu::QuerySm(query))), Pdu::QuerySm(query));
        let cancel = composer.cancel(b"17");
        assert_eq!((cancel.message_id, cancel.source), (&b"17"[..], source));
        assert_eq!(decoded(&encoded(&Pdu::CancelSm(cancel))), Pdu::CancelSm(cancel));
        let replace = composer.replacement(b"17");
        assert_eq!(
            (replace.message_id, replace.source, replace.short_message.len()),
            (&b"17"[..], source, 50)
        );
        assert_eq!(replace.registered_delivery, RegisteredDelivery::RECEIPT);
        assert_eq!(decoded(&encoded(&Pdu::ReplaceSm(replace))), Pdu::ReplaceSm(replace));
    }

    #[test]
    fn kinds_come_by_their_shares() {
        let mix = Mix {
            query_sm: 10.0,
            cancel_sm: 5.0,
            replace_sm: 0.0,
            submit_multi: 1.0,
            data_sm: 20.0,
            ..Mix::default()
        };
        let mut composer = composer("octets = 1");
        let mut share = |kind, has_earlier| {
            let drawn = (0..100_000).filter(|_| composer.kind(&mix, has_earlier) == kind).count();
            drawn as f64 / 1_000.0
        };
        for (kind, with_earlier, without) in [
            (Kind::SubmitSm, 64.0, 79.0),
            (Kind::QuerySm, 10.0, 0.0),
            (Kind::CancelSm, 5.0, 0.0),
            (Kind::ReplaceSm, 0.0, 0.0),
            (Kind::SubmitMulti, 1.0, 1.0),
            (Kind::DataSm, 20.0, 20.0),
        ] {
            for (has_earlier, expected) in [(true, with_earlier), (false, without)] {
                let share = share(kind, has_earlier);
                // Four standard errors of a share of 100,000 are 0.6 at most.
                assert!((share - expected).abs() < 0.65, "{kind:?}: {share} of {expected}");
                assert_eq!(share == 0.0, expected == 0.0, "{kind:?}");
            }
        }
    }

    #[test]
    fn a_full_mix_has_no_submit_sm_but_the_first() {
        let mix = Mix { query_sm: 50.0, cancel_sm: 50.0, ..Mix::default() };
        let mut composer = composer("octets = 1");
        assert!((0..10_000).all(|_| composer.kind(&mix, true) != Kind::SubmitSm));
        assert!((0..10_000).all(|_| composer.kind(&mix, false) == Kind::SubmitSm));
    }
}
