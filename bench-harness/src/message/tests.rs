//! What the requests of a connection look like on the wire.

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
    let message = composer.next_submit();
    let octets = encoded(&Pdu::SubmitSm(message));
    let Pdu::SubmitSm(read) = decoded(&octets) else { panic!("no submit_sm") };
    assert_eq!(read, message);
    Seen {
        esm_class: read.esm_class.0,
        destination: String::from_utf8(read.destination.digits.to_vec()).expect("digits"),
        short_message: read.short_message.to_vec(),
        tlvs: read.tlvs.as_octets().to_vec(),
        is_last: composer.long_text.is_over(),
    }
}

#[test]
fn a_submit_sm_has_the_octets_of_the_specification() {
    let mut composer =
        composer("octets = 5, registered_delivery = 1, source = \"shop\", destination = \"121255512##\"");
    let octets = encoded(&Pdu::SubmitSm(composer.next_submit()));
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
            assert!(text.chars().all(|character| character.is_alphabetic() || character == ' '), "{text}");
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
            let text =
                segments.each_ref().map(|segment| Udh::split(&segment.short_message).expect("a header").1);
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
        let mut composer = composer(&format!("octets = 400, data_coding = {data_coding}, long = \"sar\""));
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
        let mut composer =
            composer(&format!("octets = 200, data_coding = 3, registered_delivery = 1, long = \"{long}\""));
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
    assert_eq!(composer.next_submit().source, source);
    let query = composer.query(b"17");
    assert_eq!((query.message_id, query.source), (&b"17"[..], source));
    assert_eq!(decoded(&encoded(&Pdu::QuerySm(query))), Pdu::QuerySm(query));
    let cancel = composer.cancel(b"17");
    assert_eq!((cancel.message_id, cancel.source), (&b"17"[..], source));
    assert_eq!(decoded(&encoded(&Pdu::CancelSm(cancel))), Pdu::CancelSm(cancel));
    let replace = composer.replacement(b"17");
    assert_eq!((replace.message_id, replace.source, replace.short_message.len()), (&b"17"[..], source, 50));
    assert_eq!(replace.registered_delivery, RegisteredDelivery::RECEIPT);
    assert_eq!(decoded(&encoded(&Pdu::ReplaceSm(replace))), Pdu::ReplaceSm(replace));
}
