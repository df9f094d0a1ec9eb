//! One session of each side, joined by hand: states, windows and timers without a server.

use std::time::Duration;

use smppd::pdu::{
    Address, Bind, BindResp, CommandId, CommandStatus, Framing, InterfaceVersion, MessageIdResp, Npi, Pdu,
    QuerySm, Tlvs, Ton, next_frame,
};
use smppd::session::{BindMode, CloseReason, Elapsed, Received, Session, SessionSettings, Side, State};
use smppd::time::Instant;

const NOBODY: Address<'static> = Address { ton: Ton(0), npi: Npi(0), digits: b"" };

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn bind(interface_version: InterfaceVersion) -> Pdu<'static> {
    Pdu::BindTransceiver(Bind {
        system_id: b"demo",
        password: b"secret",
        system_type: b"",
        interface_version,
        address_range: NOBODY,
        tlvs: Tlvs::EMPTY,
    })
}

/// The commands and statuses in some octets.
fn commands(octets: &[u8]) -> Vec<(CommandId, CommandStatus)> {
    let mut rest = octets;
    let mut found = Vec::new();
    while let Framing::Frame(frame) = next_frame(rest, usize::MAX) {
        found.push((frame.header.command_id, frame.header.command_status));
        rest = &rest[frame.header.command_length as usize..];
    }
    found
}

fn take_output(session: &mut Session<u32>) -> Vec<u8> {
    std::mem::take(session.output())
}

/// Both ends of a bound session.
fn bound(version: InterfaceVersion, settings: &SessionSettings) -> (Session<u32>, Session<u32>) {
    let mut esme = Session::new(Side::Esme, settings.clone(), at(0));
    let mut mc = Session::new(Side::Mc, settings.clone(), at(0));
    esme.request(at(0), &bind(version), 1).expect("fits");
    let octets = take_output(&mut esme);
    let Some(Received::Request(header, Pdu::BindTransceiver(bind))) = mc.receive(at(0), &mut &octets[..])
    else {
        panic!("no bind");
    };
    let response = Pdu::BindTransceiverResp(BindResp { system_id: b"mc", tlvs: Tlvs::EMPTY });
    mc.accept_bind(BindMode::Transceiver, bind.interface_version, &response, header.sequence_number)
        .expect("fits");
    let octets = take_output(&mut mc);
    let Some(Received::Response { status, .. }) = esme.receive(at(0), &mut &octets[..]) else {
        panic!("no response");
    };
    assert_eq!(status, CommandStatus::ESME_ROK);
    esme.bound(BindMode::Transceiver);
    (esme, mc)
}

#[test]
fn a_session_speaks_the_lower_of_the_two_versions() {
    for (asked, spoken) in
        [(0x00, 0x33), (0x33, 0x33), (0x34, 0x34), (0x40, 0x34), (0x50, 0x50), (0xFF, 0x50)]
    {
        let (_, mc) = bound(InterfaceVersion(asked), &SessionSettings::default());
        assert_eq!(mc.version(), InterfaceVersion(spoken), "{asked:#x}");
    }
}

#[test]
fn silence_brings_enquire_link_and_no_answer_brings_the_end() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    assert_eq!(mc.next_timeout(), Some(at(30)));
    let mut enquiries = 0;
    for second in 1..120 {
        match mc.handle_timeout(at(second)) {
            None => enquiries += commands(&take_output(&mut mc)).len(),
            Some(elapsed) => {
                assert_eq!(elapsed, Elapsed::Close(CloseReason::EnquireLinkUnanswered));
                assert_eq!((second, enquiries), (70, 2));
                return;
            }
        }
    }
    panic!("the session lives on: {:?}", mc.state());
}

#[test]
fn any_pdu_proves_life_and_silence_ends_after_the_inactivity_time() {
    let settings = SessionSettings { enquire_link_unanswered_max: 0, ..SessionSettings::default() };
    let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &settings);
    let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
    esme.request(at(100), &Pdu::QuerySm(query), 7).expect("fits");
    let octets = take_output(&mut esme);
    assert!(matches!(mc.receive(at(100), &mut &octets[..]), Some(Received::Request(..))));
    take_output(&mut mc);
    for second in 101..220 {
        assert_eq!(mc.handle_timeout(at(second)), None, "{second}");
    }
    take_output(&mut mc);
    assert_eq!(mc.handle_timeout(at(220)), Some(Elapsed::Close(CloseReason::Inactivity)));
    assert_eq!(commands(&take_output(&mut mc)), [(CommandId::UNBIND, CommandStatus::ESME_ROK)]);
}

#[test]
fn a_session_that_does_not_bind_is_closed() {
    let mut mc: Session<u32> = Session::new(Side::Mc, SessionSettings::default(), at(0));
    let mut enquire_link = Vec::new();
    Pdu::EnquireLink.encode(CommandStatus::ESME_ROK, 1, &mut enquire_link).expect("fits");
    assert!(mc.receive(at(9), &mut &enquire_link[..]).is_none());
    assert_eq!(mc.handle_timeout(at(9)), None);
    assert_eq!(mc.handle_timeout(at(10)), Some(Elapsed::Close(CloseReason::SessionInitTimeout)));
}

#[test]
fn a_pdu_that_does_not_end_ends_the_session() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut half: &[u8] = &[0, 0, 0, 20, 0, 0];
    assert!(mc.receive(at(1), &mut half).is_none());
    assert_eq!(half.len(), 6, "nothing of half a PDU is used");
    assert_eq!(mc.handle_timeout(at(31)), Some(Elapsed::Close(CloseReason::PduTimeout)));
}

#[test]
fn requests_without_an_answer_come_back_by_name() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    for token in [11, 12] {
        mc.request_with(at(1), CommandId::DELIVER_SM, token, |_| {});
    }
    assert_eq!(mc.window_room(), 8);
    assert_eq!(mc.handle_timeout(at(10)), None);
    assert_eq!(mc.handle_timeout(at(11)), Some(Elapsed::Unanswered(11)));
    assert_eq!(mc.handle_timeout(at(11)), Some(Elapsed::Unanswered(12)));
    assert_eq!(mc.window_room(), 10);
    mc.request_with(at(12), CommandId::DELIVER_SM, 13, |_| {});
    mc.end(CloseReason::PeerClosed);
    assert_eq!((mc.take_unanswered(), mc.take_unanswered()), (Some(13), None));
}

#[test]
fn a_full_window_leaves_the_rest_of_the_stream_alone() {
    let settings = SessionSettings { window_in_max: 2, ..SessionSettings::default() };
    let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &settings);
    for token in 0..3 {
        let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
        esme.request(at(1), &Pdu::QuerySm(query), token).expect("fits");
    }
    let octets = take_output(&mut esme);
    let mut rest = &octets[..];
    let mut first = None;
    for _ in 0..2 {
        let Some(Received::Request(header, _)) = mc.receive(at(1), &mut rest) else { panic!("no request") };
        first.get_or_insert(header.sequence_number);
    }
    assert!(mc.receive(at(1), &mut rest).is_none() && mc.is_window_full());
    assert_eq!(rest.len(), octets.len() / 3);
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RINVMSGID, first.expect("a request"));
    assert!(matches!(mc.receive(at(1), &mut rest), Some(Received::Request(..))));
}

/// An MC whose window is full of two requests, and the sequence_number of the first.
fn full() -> (Session<u32>, Session<u32>, u32) {
    let settings = SessionSettings { window_in_max: 2, ..SessionSettings::default() };
    let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &settings);
    for token in 0..2 {
        let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
        esme.request(at(1), &Pdu::QuerySm(query), token).expect("fits");
    }
    let octets = take_output(&mut esme);
    let mut rest = &octets[..];
    let Some(Received::Request(first, _)) = mc.receive(at(1), &mut rest) else { panic!("no request") };
    let Some(Received::Request(..)) = mc.receive(at(1), &mut rest) else { panic!("no request") };
    (esme, mc, first.sequence_number)
}

#[test]
fn silence_of_our_own_making_is_not_held_against_the_peer() {
    let (_, mut mc, first) = full();
    mc.request_with(at(4), CommandId::DELIVER_SM, 7, |_| {});
    take_output(&mut mc);
    assert!(mc.is_window_full());
    for seconds in [10, 31, 100, 200, 1_000] {
        assert_eq!((mc.next_timeout(), mc.handle_timeout(at(seconds))), (None, None));
    }
    assert!(take_output(&mut mc).is_empty(), "nobody could read the answer to an enquire_link");
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, first);
    // All clocks stood from second 1 on and go on from second 1,000 on: the delivery was sent in between.
    assert_eq!(mc.handle_timeout(at(1_000)), None);
    assert_eq!(mc.handle_timeout(at(1_009)), None);
    assert_eq!(mc.handle_timeout(at(1_030)), Some(Elapsed::Unanswered(7)));
}

#[test]
fn a_peer_that_takes_octets_slowly_has_not_stopped_in_the_middle_of_a_pdu() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut part = &[0, 0, 0, 16, 0, 0][..];
    assert!(mc.receive(at(1), &mut part).is_none());
    mc.pause(at(2), true);
    assert_eq!(mc.handle_timeout(at(500)), None);
    mc.pause(at(500), false);
    assert_eq!(mc.next_timeout(), Some(at(28 + 500)));
    assert_eq!(mc.handle_timeout(at(528)), None, "enquire_link");
    assert_eq!(mc.handle_timeout(at(529)), Some(Elapsed::Close(CloseReason::PduTimeout)));
}

#[test]
fn our_unbind_waits_for_the_answers_we_owe_but_not_for_long() {
    let (_, mut mc, first) = full();
    mc.unbind(at(2));
    assert!(take_output(&mut mc).is_empty());
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, first);
    assert_eq!(commands(&take_output(&mut mc)).len(), 1);
    // No clock ran while the window was full.
    assert_eq!(mc.handle_timeout(at(3)), None);
    assert_eq!(mc.next_timeout(), Some(at(4)));
    assert_eq!(mc.handle_timeout(at(4)), None);
    assert_eq!(commands(&take_output(&mut mc)), [(CommandId::UNBIND, CommandStatus::ESME_ROK)]);
    let mut octets = Vec::new();
    Pdu::UnbindResp.encode(CommandStatus::ESME_ROK, 1, &mut octets).expect("fits");
    assert!(mc.receive(at(5), &mut &octets[..]).is_none());
    assert_eq!(mc.close_reason(), None, "an answer is still owed");
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, first + 1);
    assert_eq!(commands(&take_output(&mut mc)), [(CommandId::QUERY_SM_RESP, CommandStatus::ESME_RQUERYFAIL)]);
    assert_eq!(mc.close_reason(), Some(CloseReason::Unbound));
}

#[test]
fn our_unbind_goes_out_behind_the_last_answer() {
    let (_, mut mc, first) = full();
    mc.unbind(at(2));
    for number in [first, first + 1] {
        mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, number);
    }
    let sent: Vec<CommandId> = commands(&take_output(&mut mc)).into_iter().map(|(id, _)| id).collect();
    assert_eq!(sent, [CommandId::QUERY_SM_RESP, CommandId::QUERY_SM_RESP, CommandId::UNBIND]);
}

#[test]
fn who_has_not_been_told_of_our_unbind_is_told_to_try_again() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let query = |sequence_number| {
        let mut octets = Vec::new();
        let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
        Pdu::QuerySm(query).encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("fits");
        octets
    };
    assert!(matches!(mc.receive(at(1), &mut &query(2)[..]), Some(Received::Request(..))));
    mc.unbind(at(1));
    let refused =
        |mc: &mut Session<u32>, sequence_number| match mc.receive(at(1), &mut &query(sequence_number)[..]) {
            Some(Received::Refused(header, status)) => {
                mc.respond_header(CommandId::QUERY_SM, status, header.sequence_number);
                status
            }
            other => panic!("{other:?}"),
        };
    assert_eq!(refused(&mut mc, 3), CommandStatus::ESME_RTHROTTLED);
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, 2);
    let sent: Vec<CommandId> = commands(&take_output(&mut mc)).into_iter().map(|(id, _)| id).collect();
    assert_eq!(sent, [CommandId::QUERY_SM_RESP, CommandId::QUERY_SM_RESP, CommandId::UNBIND]);
    assert_eq!(refused(&mut mc, 4), CommandStatus::ESME_RINVBNDSTS);
}

#[test]
fn every_unbind_is_answered() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut octets = Vec::new();
    let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
    Pdu::QuerySm(query).encode(CommandStatus::ESME_ROK, 2, &mut octets).expect("fits");
    for sequence_number in [3, 4] {
        Pdu::Unbind.encode(CommandStatus::ESME_ROK, sequence_number, &mut octets).expect("fits");
    }
    let mut rest = &octets[..];
    assert!(matches!(mc.receive(at(1), &mut rest), Some(Received::Request(..))));
    assert!(matches!(mc.receive(at(1), &mut rest), Some(Received::Unbind)));
    mc.let_go();
    assert!(mc.receive(at(1), &mut rest).is_none());
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, 2);
    let sent: Vec<CommandId> = commands(&take_output(&mut mc)).into_iter().map(|(id, _)| id).collect();
    assert_eq!(sent, [CommandId::UNBIND_RESP, CommandId::QUERY_SM_RESP, CommandId::UNBIND_RESP]);
}

#[test]
fn unbind_is_answered_behind_everything_else() {
    let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
    esme.request(at(1), &Pdu::QuerySm(query), 1).expect("fits");
    esme.unbind(at(1));
    assert_eq!(esme.state(), State::Unbinding);
    let octets = take_output(&mut esme);
    let mut rest = &octets[..];
    let Some(Received::Request(header, _)) = mc.receive(at(1), &mut rest) else { panic!("no request") };
    assert!(matches!(mc.receive(at(1), &mut rest), Some(Received::Unbind)));
    mc.let_go();
    assert!(take_output(&mut mc).is_empty());
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, header.sequence_number);
    let octets = take_output(&mut mc);
    assert_eq!(
        commands(&octets),
        [
            (CommandId::QUERY_SM_RESP, CommandStatus::ESME_RQUERYFAIL),
            (CommandId::UNBIND_RESP, CommandStatus::ESME_ROK)
        ]
    );
    assert_eq!(mc.close_reason(), Some(CloseReason::Unbound));
    let mut rest = &octets[..];
    assert!(matches!(esme.receive(at(1), &mut rest), Some(Received::Response { .. })));
    assert!(esme.receive(at(1), &mut rest).is_none());
    assert_eq!(esme.close_reason(), Some(CloseReason::Unbound));
}

#[test]
fn the_mc_unbinds_and_still_takes_what_was_under_way() {
    let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    mc.request_with(at(1), CommandId::DELIVER_SM, 5, |_| {});
    mc.unbind(at(1));
    take_output(&mut mc);
    let body = MessageIdResp { message_id: b"", tlvs: Tlvs::EMPTY };
    let mut octets = Vec::new();
    Pdu::DeliverSmResp(body).encode(CommandStatus::ESME_ROK, 1, &mut octets).expect("fits");
    Pdu::UnbindResp.encode(CommandStatus::ESME_ROK, 2, &mut octets).expect("fits");
    let mut rest = &octets[..];
    let Some(Received::Response { request, .. }) = mc.receive(at(2), &mut rest) else {
        panic!("no response")
    };
    assert_eq!(request.token, Some(5));
    assert!(mc.receive(at(2), &mut rest).is_none());
    assert_eq!(mc.close_reason(), Some(CloseReason::Unbound));
    esme.end(CloseReason::PeerClosed);
}

#[test]
fn a_stream_that_lost_its_framing_is_closed_with_a_nack() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut garbage: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    assert!(mc.receive(at(1), &mut garbage).is_none());
    assert_eq!(commands(&take_output(&mut mc)), [(CommandId::GENERIC_NACK, CommandStatus::ESME_RINVCMDLEN)]);
    assert_eq!(mc.close_reason(), Some(CloseReason::FramingLost));
}

#[test]
fn a_response_of_another_kind_answers_nothing() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    mc.request_with(at(1), CommandId::DELIVER_SM, 5, |_| {});
    let mut octets = Vec::new();
    smppd::pdu::put_header_only(CommandId::SUBMIT_SM_RESP, CommandStatus::ESME_ROK, 1, &mut octets);
    assert!(mc.receive(at(1), &mut &octets[..]).is_none());
    assert_eq!((mc.take_ignored(), mc.window_room()), (1, 9));
    // generic_nack answers any request, and is a failure whatever its status.
    octets.clear();
    smppd::pdu::put_header_only(CommandId::GENERIC_NACK, CommandStatus::ESME_ROK, 1, &mut octets);
    let Some(Received::Response { request, status, .. }) = mc.receive(at(1), &mut &octets[..]) else {
        panic!("no response");
    };
    assert_eq!((request.token, status), (Some(5), CommandStatus::ESME_RUNKNOWNERR));
}

#[test]
fn a_pdu_may_be_a_kibibyte_before_the_bind_and_more_only_after_it() {
    let settings = SessionSettings::default();
    // A request that is in its place in no state: only its length is looked at before that.
    let pdu = |octets: usize| {
        let header = [octets as u32, CommandId::QUERY_SM.0, 0, 7].map(u32::to_be_bytes);
        let mut pdu = header.as_flattened().to_vec();
        pdu.resize(octets, b'x');
        pdu
    };
    for (is_bound, most) in [(false, 1_024), (true, settings.pdu_octets_max)] {
        for octets in [most - 1, most, most + 1] {
            let mut mc = match is_bound {
                true => bound(InterfaceVersion::V5_0, &settings).1,
                false => Session::new(Side::Mc, settings.clone(), at(0)),
            };
            let received = mc.receive(at(0), &mut &pdu(octets)[..]).is_some();
            let is_taken = octets <= most;
            let answers = commands(&take_output(&mut mc));
            assert_eq!(mc.close_reason().is_none(), is_taken, "{is_bound} {octets}");
            if !is_taken {
                let nack = (CommandId::GENERIC_NACK, CommandStatus::ESME_RINVCMDLEN);
                assert!(!received && answers == [nack], "{is_bound} {octets}: {answers:?}");
                assert_eq!(mc.close_reason(), Some(CloseReason::FramingLost));
            }
        }
    }
    // The header alone tells: nobody waits for the rest.
    let mut mc: Session<u32> = Session::new(Side::Mc, settings, at(0));
    assert!(mc.receive(at(0), &mut &pdu(1_025)[..16]).is_none());
    assert_eq!(mc.close_reason(), Some(CloseReason::FramingLost));
}

#[test]
fn while_the_peer_unbinds_pdus_may_be_as_long_as_before() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    mc.request_with(at(1), CommandId::DELIVER_SM, 5, |_| {});
    mc.unbind(at(1));
    let header = [2_000, CommandId::DELIVER_SM_RESP.0, 0, 1].map(u32::to_be_bytes);
    let mut octets = header.as_flattened().to_vec();
    octets.resize(2_000, 0);
    assert!(matches!(mc.receive(at(1), &mut &octets[..]), Some(Received::Response { .. })));
    assert_eq!(mc.close_reason(), None);
}

#[test]
fn a_stream_whose_reads_never_end_where_a_pdu_does_is_not_cut_off() {
    // Nothing but whole PDUs, cut in the middle of each: there is always a part, and never an old one.
    let settings = SessionSettings { enquire_link_unanswered_max: 0, ..SessionSettings::default() };
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &settings);
    let mut octets = Vec::new();
    for number in 2..=101 {
        Pdu::EnquireLink.encode(CommandStatus::ESME_ROK, number, &mut octets).expect("fits");
    }
    let mut left = octets[..8].to_vec();
    assert!(mc.receive(at(1), &mut &left[..]).is_none());
    for (second, chunk) in (2..).zip(octets[8..octets.len() - 8].chunks(16)) {
        left.extend_from_slice(chunk);
        let mut rest = &left[..];
        assert!(mc.receive(at(second), &mut rest).is_none());
        left = rest.to_vec();
        assert_eq!(left.len(), 8, "half a PDU");
        assert_eq!(mc.handle_timeout(at(second)), None, "second {second}");
    }
    assert_eq!(commands(&take_output(&mut mc)).len(), 99);
    assert_eq!(mc.close_reason(), None);
}

#[test]
fn a_part_that_stays_a_part_is_timed_from_its_own_begin() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut octets = Vec::new();
    Pdu::EnquireLink.encode(CommandStatus::ESME_ROK, 2, &mut octets).expect("fits");
    octets.extend_from_slice(&[0, 0, 0, 16]);
    assert!(mc.receive(at(10), &mut &octets[..8]).is_none());
    let mut rest = &octets[..];
    assert!(mc.receive(at(20), &mut rest).is_none());
    assert_eq!(rest, [0, 0, 0, 16]);
    // More of it is not another.
    assert!(mc.receive(at(30), &mut &[0, 0, 0, 16, 0][..]).is_none());
    assert_eq!(mc.handle_timeout(at(49)), None);
    assert_eq!(mc.handle_timeout(at(50)), Some(Elapsed::Close(CloseReason::PduTimeout)));
}

#[test]
fn as_many_requests_wait_as_may_and_outcomes_take_half_of_that() {
    for window_in_max in [1, 2, 5] {
        let settings = SessionSettings { window_in_max, ..SessionSettings::default() };
        let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &settings);
        for token in 0..window_in_max as u32 + 1 {
            let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
            esme.request(at(1), &Pdu::QuerySm(query), token).expect("fits");
        }
        let octets = take_output(&mut esme);
        let mut rest = &octets[..];
        for waiting in 1..=window_in_max {
            assert!(!mc.is_window_full());
            assert!(matches!(mc.receive(at(1), &mut rest), Some(Received::Request(..))));
            assert_eq!(mc.requests_waiting(), waiting);
            assert_eq!(mc.has_room_for_outcome(), 2 * waiting <= window_in_max, "{waiting}");
        }
        assert!(mc.is_window_full() && mc.receive(at(1), &mut rest).is_none());
    }
}

#[test]
fn the_last_bind_that_may_fail_ends_the_session() {
    for most in [1, 3] {
        let settings = SessionSettings { bind_attempts_max: most, ..SessionSettings::default() };
        let mut mc: Session<u32> = Session::new(Side::Mc, settings, at(0));
        for attempt in 1..=most {
            assert_eq!(mc.close_reason(), None, "{attempt} of {most}");
            let mut octets = Vec::new();
            bind(InterfaceVersion::V5_0).encode(CommandStatus::ESME_ROK, 1, &mut octets).expect("fits");
            assert!(matches!(mc.receive(at(0), &mut &octets[..]), Some(Received::Request(..))));
            mc.refuse_bind(CommandId::BIND_TRANSCEIVER, CommandStatus::ESME_RBINDFAIL, 1);
        }
        assert_eq!(mc.close_reason(), Some(CloseReason::BindAttempts), "{most}");
        assert_eq!(commands(&take_output(&mut mc)).len(), usize::from(most), "each is answered");
    }
}

#[test]
fn whoever_says_anything_is_there_though_it_answers_no_enquire_link() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut enquire_link = Vec::new();
    Pdu::EnquireLink.encode(CommandStatus::ESME_ROK, 2, &mut enquire_link).expect("fits");
    let mut asked = 0;
    for second in 1..=350 {
        assert_eq!(mc.handle_timeout(at(second)), None, "second {second}");
        asked +=
            commands(&take_output(&mut mc)).iter().filter(|(id, _)| *id == CommandId::ENQUIRE_LINK).count();
        // Half a minute after it was heard it is asked, and five seconds later it says something else.
        if second % 35 == 0 {
            assert!(mc.receive(at(second), &mut &enquire_link[..]).is_none());
        }
    }
    assert_eq!(asked, 10);
    // Two in a row are too many.
    let closed = (351..500).find_map(|second| mc.handle_timeout(at(second)).map(|elapsed| (second, elapsed)));
    assert_eq!(closed, Some((420, Elapsed::Close(CloseReason::EnquireLinkUnanswered))));
}

#[test]
fn who_unbinds_without_a_bind_is_told_so_and_sent_away() {
    let mut mc: Session<u32> = Session::new(Side::Mc, SessionSettings::default(), at(0));
    let mut octets = Vec::new();
    Pdu::Unbind.encode(CommandStatus::ESME_ROK, 3, &mut octets).expect("fits");
    assert!(mc.receive(at(1), &mut &octets[..]).is_none(), "nobody was bound");
    let answers = commands(&take_output(&mut mc));
    assert_eq!(answers, [(CommandId::UNBIND_RESP, CommandStatus::ESME_RINVBNDSTS)]);
    assert_eq!(mc.close_reason(), Some(CloseReason::Unbound));
}

#[test]
fn an_unbind_that_waits_for_an_outcome_does_not_wait_for_ever() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let mut octets = Vec::new();
    let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
    Pdu::QuerySm(query).encode(CommandStatus::ESME_ROK, 2, &mut octets).expect("fits");
    Pdu::Unbind.encode(CommandStatus::ESME_ROK, 3, &mut octets).expect("fits");
    let mut rest = &octets[..];
    assert!(matches!(mc.receive(at(10), &mut rest), Some(Received::Request(..))));
    assert!(matches!(mc.receive(at(10), &mut rest), Some(Received::Unbind)));
    mc.let_go();
    assert_eq!(mc.next_timeout(), Some(at(130)));
    assert_eq!(mc.handle_timeout(at(129)), None);
    assert_eq!(mc.handle_timeout(at(130)), Some(Elapsed::Close(CloseReason::Inactivity)));
    assert!(take_output(&mut mc).is_empty(), "a peer that unbinds is not asked to");
}

#[test]
fn a_window_that_opens_ends_the_pause_of_the_timers_at_once() {
    let settings = SessionSettings { window_in_max: 1, ..SessionSettings::default() };
    let (mut esme, mut mc) = bound(InterfaceVersion::V5_0, &settings);
    // The bind_transceiver was the one request of the window.
    mc.answered_by(at(0));
    mc.request_with(at(1), CommandId::DELIVER_SM, 7, |_| {});
    let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
    esme.request(at(1), &Pdu::QuerySm(query), 1).expect("fits");
    let octets = take_output(&mut esme);
    let mut rest = &octets[..];
    let Some(Received::Request(header, _)) = mc.receive(at(2), &mut rest) else { panic!("no request") };
    // Three seconds nothing is read; then the peer has as much time left as before, and no more. What is sent meanwhile
    // has its time from then on.
    mc.request_with(at(4), CommandId::DELIVER_SM, 8, |_| {});
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RQUERYFAIL, header.sequence_number);
    mc.answered_by(at(5));
    assert_eq!(mc.next_timeout(), Some(at(14)));
    assert_eq!(mc.handle_timeout(at(13)), None);
    assert_eq!(mc.handle_timeout(at(14)), Some(Elapsed::Unanswered(7)));
    assert_eq!(mc.next_timeout(), Some(at(15)));
    assert_eq!(mc.handle_timeout(at(15)), Some(Elapsed::Unanswered(8)));
}

#[test]
fn an_unbind_of_our_own_is_called_off_when_the_peer_unbinds() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    let query = QuerySm { message_id: b"1", source: NOBODY, tlvs: Tlvs::EMPTY };
    let mut octets = Vec::new();
    Pdu::QuerySm(query).encode(CommandStatus::ESME_ROK, 2, &mut octets).expect("fits");
    assert!(matches!(mc.receive(at(1), &mut &octets[..]), Some(Received::Request(..))));
    // Ours waits a second for the answer that is owed, and the peer does not wait for ours.
    mc.unbind(at(1));
    let mut unbind = Vec::new();
    Pdu::Unbind.encode(CommandStatus::ESME_ROK, 3, &mut unbind).expect("fits");
    mc.receive(at(1), &mut &unbind[..]);
    for second in 2..20 {
        assert_eq!(mc.handle_timeout(at(second)), None);
    }
    assert!(take_output(&mut mc).is_empty(), "a peer that unbinds is not asked to");
    mc.respond_header(CommandId::QUERY_SM, CommandStatus::ESME_RINVMSGID, 2);
    let answers: Vec<CommandId> = commands(&take_output(&mut mc)).iter().map(|(id, _)| *id).collect();
    assert_eq!(answers, [CommandId::QUERY_SM_RESP, CommandId::UNBIND_RESP]);
    assert_eq!(mc.close_reason(), Some(CloseReason::Unbound));
}

#[test]
fn what_was_not_answered_is_told_though_an_enquire_link_is_in_front_of_it() {
    let (_, mut mc) = bound(InterfaceVersion::V5_0, &SessionSettings::default());
    mc.request_with(at(29), CommandId::DELIVER_SM, 11, |_| {});
    assert_eq!(mc.handle_timeout(at(30)), None);
    assert!(commands(&take_output(&mut mc)).iter().any(|(id, _)| *id == CommandId::ENQUIRE_LINK));
    for token in [12, 13] {
        mc.request_with(at(31), CommandId::DELIVER_SM, token, |_| {});
    }
    mc.end(CloseReason::PeerClosed);
    assert_eq!(std::iter::from_fn(|| mc.take_unanswered()).collect::<Vec<_>>(), [11, 12, 13]);
}
