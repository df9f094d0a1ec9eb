#!/usr/bin/env python3
"""python-smpplib (v3.4) as the customer, over TLS; over the plain listener with INTEROP_PLAIN=1."""

import logging
import os
import signal
import threading
import time

import smpplib.client
import smpplib.consts as consts
import smpplib.exceptions
import smpplib.gsm
import smpplib.smpp

import harness
from harness import ABSOLUTE_TIME, NUMBER, OUTCOMES, PASSWORD, Server

PLAIN = os.environ.get("INTEROP_PLAIN") == "1"
logging.disable(logging.WARNING)


class Esme(smpplib.client.Client):
    """A smpplib client that remembers what it was told."""

    def __init__(self, server):
        super().__init__("127.0.0.1", server.plain_port if PLAIN else server.tls_port, timeout=10,
                         ssl_context=None if PLAIN else server.tls_context(), allow_unknown_opt_params=True)
        self.server, self.number = server, None
        self.received, self.delivered = [], []
        self.deliver_status = 0
        self.connect()

    def read_pdu(self):
        pdu = super().read_pdu()
        self.received.append(pdu)
        return pdu

    def message_received_handler(self, pdu):
        self.delivered.append(pdu)
        return self.deliver_status

    def error_pdu_handler(self, pdu):
        pass  # the tests look at the status

    def message_sent_handler(self, pdu):
        pass

    def query_resp_handler(self, pdu):
        pass

    def bind(self, mode="transceiver", system_id="test", password=PASSWORD):
        """The bind's (command_status, response)."""
        self.number = self.server.accounts.get(system_id) and self.server.number(system_id)
        try:
            return 0, self._bind(f"bind_{mode}", system_id=system_id, password=password)
        except smpplib.exceptions.PDUError as error:
            return error.args[1], None

    def wait(self, found, seconds=15):
        """Read until `found()` is true; what it returned, or None when time is up."""
        deadline = time.monotonic() + seconds
        while not (result := found()):
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                self.read_once(auto_send_enquire_link=False)
            except TimeoutError:
                pass
        return result

    def response(self, request):
        answer = self.wait(lambda: next((pdu for pdu in self.received if pdu.sequence == request.sequence and
                                         pdu.command in (request.command + "_resp", "generic_nack")), None))
        assert answer is not None, f"no answer to {request.command}"
        return answer

    def submit(self, destination, text=b"hello", **fields):
        """The submit_sm_resp."""
        values = dict(source_addr_ton=1, source_addr_npi=1, source_addr=self.number, dest_addr_ton=1, dest_addr_npi=1,
                      destination_addr=destination, short_message=text, registered_delivery=1)
        return self.response(self.send_message(**(values | fields)))

    def submit_ok(self, destination, text=b"hello", **fields):
        """The message_id."""
        answer = self.submit(destination, text, **fields)
        assert answer.status == 0, f"submit_sm to {destination}: {answer.status:#x}"
        return answer.message_id.decode()

    def query(self, message_id, source=None):
        return self.response(self.query_message(message_id=message_id, source_addr_ton=1, source_addr_npi=1,
                                                source_addr=source or self.number))

    def receipts(self, message_id, kind=0x04):
        return [pdu for pdu in self.delivered if pdu.esm_class & 0x3C == kind and
                pdu.receipted_message_id == message_id.encode()]

    def receipt(self, message_id, kind=0x04, seconds=15):
        found = self.wait(lambda: self.receipts(message_id, kind), seconds)
        assert found, f"no receipt for {message_id}"
        return found[0]

    def idle(self, seconds):
        self.wait(lambda: False, seconds)

    def leave(self):
        if self._socket is not None:
            try:
                self.unbind()
            except Exception:
                pass
            self.state = consts.SMPP_CLIENT_STATE_OPEN
            self.disconnect()


class Tests(harness.Suite):
    def esme(self, mode="transceiver", system_id="test", server=None):
        client = Esme(server or self.server)
        self.addCleanup(client.leave)
        if mode:
            status, answer = client.bind(mode, system_id)
            self.assertEqual(status, 0)
            client.bind_resp = answer
        return client


class Binding(Tests):
    ACCOUNTS = {
        "test": ["--number", NUMBER],
        "pair": ["--number", "12125550201", "--bind-limit", "2"],
    }

    def test_three_bind_modes(self):
        for mode in ("transmitter", "receiver", "transceiver"):
            with self.subTest(mode):
                client = self.esme(mode)
                self.assertEqual(client.bind_resp.command, f"bind_{mode}_resp")
                self.assertRegex(client.bind_resp.system_id, rb"\A[!-~]{1,15}\Z")
                self.assertEqual(client.bind_resp.sc_interface_version, 0x50)
                answer = client.unbind()
                self.assertEqual((answer.command, answer.status), ("unbind_resp", 0))
                with self.assertRaises(smpplib.exceptions.ConnectionError):
                    client.read_pdu()

    def test_wrong_password_and_unknown_system_id_look_alike(self):
        client = self.esme(None)
        self.assertEqual(client.bind(password="wrong"), (0x0D, None))
        self.assertEqual(client.bind(system_id="nobody"), (0x0D, None))
        self.assertEqual(client.bind()[0], 0)

    def test_bind_limit(self):
        first = self.esme("transmitter", "pair")
        self.esme("receiver", "pair")
        third = self.esme(None)
        self.assertEqual(third.bind("transceiver", "pair")[0], 0x0D)
        first.leave()
        deadline = time.monotonic() + 5
        while (status := third.bind("transceiver", "pair")[0]) and time.monotonic() < deadline:
            third.leave()
            time.sleep(0.2)
            third = self.esme(None)
        self.assertEqual(status, 0)

    def test_bind_limit_is_freed_by_a_broken_connection(self):
        for _ in range(4):
            client = self.esme("transceiver", "pair")
            client._socket.close()
            client._socket = None
            time.sleep(0.5)

    def test_enquire_link(self):
        client = self.esme()
        request = smpplib.smpp.make_pdu("enquire_link", client=client)
        client.send_pdu(request)
        self.assertEqual(client.response(request).status, 0)


class Sending(Tests):
    ACCOUNTS = {
        "test": ["--number", NUMBER, "--number", "12125550199"],
        "any": ["--number", "12125550202", "--any-source"],
        "octets": ["--number", "12125550203", "--binary"],
        "long": ["--number", "12125550204", "--segment-long"],
        "other": ["--number", "12125550205"],
        "prepaid": ["--number", "12125550206", "--credits", "4"],
        "slow": ["--number", "12125550207", "--rate", "5", "--burst", "5"],
    }

    def test_every_supported_data_coding(self):
        client = self.esme()
        texts = {0: b"default", 1: b"ascii", 3: "caf\u00e9 \u00f1".encode("latin-1"),
                 8: "\u041f\u0440\u0438\u0432\u0435\u0442 \U0001f600".encode("utf-16-be")}
        for data_coding, text in texts.items():
            with self.subTest(data_coding=data_coding):
                message_id = client.submit_ok("12125551234", text, data_coding=data_coding)
                self.assert_message_id(message_id)
                receipt = client.receipt(message_id)
                self.assertEqual(receipt.data_coding, 0)
                found = self.assert_receipt(receipt.short_message, id=message_id, stat="DELIVRD", err="000")
                if data_coding < 2:
                    self.assertEqual(found["text"], text.decode())

    def test_unsupported_data_codings(self):
        client = self.esme()
        for data_coding in (2, 4, 5, 6, 7, 9, 10, 11, 13, 14):
            with self.subTest(data_coding=data_coding):
                self.assertEqual(client.submit("12125551234", b"abcd", data_coding=data_coding).status, 0x45)

    def test_binary_when_the_account_may(self):
        client = self.esme(system_id="octets")
        for data_coding in (2, 4):
            with self.subTest(data_coding=data_coding):
                message_id = client.submit_ok("12125551234", bytes(range(140)), data_coding=data_coding)
                self.assert_receipt(client.receipt(message_id).short_message, id=message_id, stat="DELIVRD")

    def test_length_limits(self):
        client = self.esme()
        for data_coding, longest in ((0, 160), (1, 160), (3, 160), (8, 140)):
            with self.subTest(data_coding=data_coding):
                longest_text = (b"\0a" if data_coding == 8 else b"a") * (70 if data_coding == 8 else 160)
                self.assertEqual(len(longest_text), longest)
                step = b"\0a" if data_coding == 8 else b"a"
                self.assertEqual(client.submit("12125551234", longest_text, data_coding=data_coding).status, 0)
                self.assertEqual(client.submit("12125551234", longest_text + step, data_coding=data_coding).status, 0x01)
        self.assertEqual(client.submit("12125551234", b"odd", data_coding=8).status, 0x01)

    def test_long_message_in_udh_segments(self):
        client = self.esme()
        for text, parts_wanted, data_coding in (("long " * 80, 3, 0), ("\u0434\u043b\u0438\u043d\u043d\u043e " * 20, 3, 8)):
            with self.subTest(data_coding=data_coding):
                parts, coding, esm_class = smpplib.gsm.make_parts(text)
                self.assertEqual((len(parts), coding, esm_class), (parts_wanted, data_coding, 0x40))
                ids = [client.submit_ok("12125551234", part, data_coding=coding, esm_class=esm_class) for part in parts]
                self.assertEqual(len(set(ids)), len(parts))
                for message_id in ids:
                    receipt = client.receipt(message_id)
                    self.assert_receipt(receipt.short_message, id=message_id, sub="001", dlvrd="001", stat="DELIVRD")

    def test_long_message_in_sar_segments(self):
        client = self.esme()
        parts, coding, esm_class = smpplib.gsm.make_parts("sar " * 100, use_udhi=False)
        self.assertEqual((len(parts), esm_class), (3, 0))
        ids = [client.submit_ok("12125551234", part, data_coding=coding, sar_msg_ref_num=4711,
                                sar_total_segments=len(parts), sar_segment_seqnum=number)
               for number, part in enumerate(parts, 1)]
        for message_id in ids:
            self.assert_receipt(client.receipt(message_id).short_message, id=message_id, stat="DELIVRD")

    def test_long_message_in_message_payload(self):
        client = self.esme()
        message_id = client.submit_ok("12125551234", None, message_payload=b"payload " * 100)
        receipt = client.receipt(message_id)
        found = self.assert_receipt(receipt.short_message, id=message_id, stat="DELIVRD", text="payload payload payl")
        self.assertEqual(found["sub"], found["dlvrd"])
        client.idle(0.5)
        self.assertEqual(len(client.receipts(message_id)), 1)

    def test_server_segments_when_the_account_says_so(self):
        client = self.esme(system_id="long")
        message_id = client.submit_ok("12125551234", b"x" * 200)
        self.assert_receipt(client.receipt(message_id).short_message, id=message_id, stat="DELIVRD")

    def test_source_address(self):
        client = self.esme()
        self.assertEqual(client.submit("12125551234", source_addr="12125559999").status, 0x0A)
        self.assertEqual(client.submit("12125551234", source_addr="12125550199").status, 0)
        self.assertEqual(client.submit("12125551234", source_addr="+" + NUMBER).status, 0)
        message_id = client.submit_ok("12125551234", source_addr=None, source_addr_ton=0, source_addr_npi=0)
        self.assertEqual(client.receipt(message_id).destination_addr, NUMBER.encode())
        self.assertEqual(self.esme(system_id="any").submit("12125551234", source_addr="12125559999").status, 0)

    def test_destination_address(self):
        client = self.esme()
        for destination in (None, "no number", "+", "1212-555-1234"):
            with self.subTest(destination=destination):
                self.assertEqual(client.submit(destination).status, 0x0B)
        message_id = client.submit_ok("+12125551234")
        self.assertIn(client.receipt(message_id).source_addr, (b"12125551234", b"+12125551234"))
        self.assertEqual(client.submit("12125551234", dest_addr_ton=9).status, 0x50)
        self.assertEqual(client.submit("12125551234", dest_addr_npi=2).status, 0x51)

    def test_times_flags_and_priority(self):
        client = self.esme()
        for status, fields in (
            (0x06, dict(priority_flag=5)),
            (0x54, dict(replace_if_present_flag=2)),
            (0x61, dict(schedule_delivery_time="not a time here!")),
            (0x62, dict(validity_period="269999000000000+")),
            (0x63, dict(sm_default_msg_id=7)),
            (0x00, dict(validity_period="000001000000000R")),
            (0x00, dict(priority_flag=3, esm_class=3)),
        ):
            with self.subTest(**fields):
                self.assertEqual(client.submit("12125551234", **fields).status, status)

    def test_credits_are_charged_per_accepted_segment_only(self):
        client = self.esme(system_id="prepaid")
        self.assertEqual(client.submit("nobody").status, 0x0B)
        self.assertEqual([client.submit("12125551234").status for _ in range(5)], [0, 0, 0, 0, 0x45])

    def test_throttling(self):
        first, second = self.esme(system_id="slow"), self.esme(system_id="slow")
        started = time.monotonic()
        statuses = [client.submit("12125551234", registered_delivery=0).status for _ in range(15) for client in (first, second)]
        elapsed = time.monotonic() - started
        self.assertLessEqual(set(statuses), {0, 0x58})
        self.assertGreaterEqual(statuses.count(0), 5)
        self.assertLessEqual(statuses.count(0), 5 + 5 * elapsed + 1)
        self.assertEqual(statuses[:5], [0] * 5)
        time.sleep(1.1)
        self.assertEqual(first.submit("12125551234", registered_delivery=0).status, 0)


class Receipts(Tests):
    SERVER_CONFIG = "[messages]\ndeliver_retry_delay_min_seconds = 1\n"
    ACCOUNTS = {
        "test": ["--number", NUMBER],
        "split": ["--number", "12125550208"],
        "later": ["--number", "12125550209"],
        "deaf": ["--number", "12125550210"],
        "other": ["--number", "12125550211"],
    }

    def test_every_outcome(self):
        client = self.esme()
        sent = {}
        for prefix, *outcome in OUTCOMES:
            destination = f"{prefix}0345551"
            sent[client.submit_ok(destination, b"twenty characters is the limit", user_message_reference=777)] = destination, outcome
        for message_id, (destination, (stat, state, dlvrd, err)) in sent.items():
            with self.subTest(stat=stat, destination=destination):
                pdu = client.receipt(message_id)
                self.assert_receipt(pdu.short_message, id=message_id, sub="001", dlvrd=dlvrd, stat=stat,
                                    err=err, text="twenty characters is")
                self.assertEqual(pdu.esm_class, 0x04)
                self.assertEqual((pdu.data_coding, pdu.registered_delivery, pdu.priority_flag), (0, 0, 0))
                self.assertEqual((pdu.schedule_delivery_time, pdu.validity_period), (b"", b""))
                self.assertEqual((pdu.source_addr, pdu.source_addr_ton, pdu.source_addr_npi), (destination.encode(), 1, 1))
                self.assertEqual((pdu.destination_addr, pdu.dest_addr_ton, pdu.dest_addr_npi), (NUMBER.encode(), 1, 1))
                self.assertEqual(pdu.message_state, state)
                if err != "000" or pdu.network_error_code:
                    self.assertEqual(pdu.network_error_code[1:], bytes([0, int(err)]))
                self.assertEqual(pdu.user_message_reference, 777)
        client.idle(1)
        self.assertEqual([len(client.receipts(message_id)) for message_id in sent], [1] * len(sent))

    def test_other_destinations_are_delivered(self):
        client = self.esme()
        message_id = client.submit_ok("4930123456", b"")
        pdu = client.receipt(message_id)
        self.assert_receipt(pdu.short_message, id=message_id, dlvrd="001", stat="DELIVRD", err="000", text="")
        self.assertEqual(pdu.message_state, 2)

    def test_receipt_comes_after_its_response(self):
        client = self.esme()
        requests = [client.send_message(source_addr_ton=1, source_addr_npi=1, source_addr=NUMBER, dest_addr_ton=1,
                                        dest_addr_npi=1, destination_addr="12125551234", short_message=b"many",
                                        registered_delivery=1) for _ in range(100)]
        ids = [client.response(request).message_id.decode() for request in requests]
        self.assertEqual(len(set(ids)), 100)
        for message_id in ids:
            client.receipt(message_id)
        order = [(pdu.command, pdu.message_id if pdu.command == "submit_sm_resp" else pdu.receipted_message_id)
                 for pdu in client.received if pdu.command in ("submit_sm_resp", "deliver_sm")]
        for message_id in ids:
            self.assertLess(order.index(("submit_sm_resp", message_id.encode())),
                            order.index(("deliver_sm", message_id.encode())))

    def test_registered_delivery(self):
        client = self.esme()
        cases = {(0, "9992"): False, (0, "9995"): False, (1, "9992"): True, (1, "9995"): True,
                 (2, "9992"): False, (2, "9995"): True, (3, "9992"): True, (3, "9995"): False}
        ids = {case: client.submit_ok(f"{case[1]}0015551", registered_delivery=case[0]) for case in cases}
        client.idle(2)
        for case, wanted in cases.items():
            with self.subTest(registered_delivery=case[0], destination=case[1]):
                self.assertEqual(len(client.receipts(ids[case])), int(wanted))

    def test_intermediate_notification(self):
        client = self.esme()
        message_id = client.submit_ok("99960005551", registered_delivery=0x11)
        final = client.receipt(message_id)
        self.assert_receipt(final.short_message, id=message_id, stat="DELIVRD")
        notes = client.receipts(message_id, 0x20)
        self.assertEqual(len(notes), 1)
        self.assertEqual(notes[0].esm_class, 0x20)
        found = self.assert_receipt(notes[0].short_message, id=message_id, dlvrd="000")
        self.assertIn((found["stat"], notes[0].message_state), (("ENROUTE", 1), ("ACCEPTD", 6)))
        self.assertLess(client.delivered.index(notes[0]), client.delivered.index(final))

    def test_receipts_go_to_the_receiver_only(self):
        transmitter, receiver = self.esme("transmitter", "split"), self.esme("receiver", "split")
        stranger = self.esme(system_id="other")
        message_id = transmitter.submit_ok("12125551234")
        receiver.receipt(message_id)
        transmitter.idle(0.5)
        stranger.idle(0.5)
        self.assertEqual([pdu.command for pdu in transmitter.received], ["bind_transmitter_resp", "submit_sm_resp"])
        self.assertEqual(stranger.delivered, [])

    def test_receipts_wait_for_a_receiver(self):
        transmitter = self.esme("transmitter", "later")
        ids = [transmitter.submit_ok("12125551234") for _ in range(5)]
        time.sleep(1)
        transmitter.leave()
        receiver = self.esme("receiver", "later")
        for message_id in ids:
            receiver.receipt(message_id)

    def test_unacknowledged_receipt_comes_again(self):
        deaf = self.esme("transceiver", "deaf")
        message_id = deaf.submit_ok("12125551234")
        while deaf.read_pdu().command != "deliver_sm":
            pass
        deaf._socket.close()
        deaf._socket = None
        again = self.esme("receiver", "deaf")
        again.receipt(message_id, seconds=30)

    def test_refused_receipt_comes_again(self):
        client = self.esme("transceiver", "deaf")
        client.deliver_status = 0x14
        message_id = client.submit_ok("12125551234")
        first = client.receipt(message_id)
        client.deliver_status = 0
        self.assertTrue(client.wait(lambda: len(client.receipts(message_id)) > 1, 60), "not delivered again")
        self.assertEqual(client.receipts(message_id)[1].short_message, first.short_message)

    def test_reply_of_the_subscriber(self):
        client = self.esme()
        for text, reply in ((b"reply hello back", b"hello back"), (b"REPLY Case", b"Case")):
            with self.subTest(text=text):
                client.submit_ok("12125551234", text, registered_delivery=0)
                pdu = client.wait(lambda: next((pdu for pdu in client.delivered if pdu.short_message == reply), None))
                self.assertIsNotNone(pdu, "no reply")
                self.assertEqual(pdu.esm_class, 0x00)
                self.assertEqual((pdu.source_addr, pdu.destination_addr), (b"12125551234", NUMBER.encode()))
                self.assertIn(pdu.data_coding, (0, 1))
                self.assertIsNone(pdu.receipted_message_id)


class Management(Tests):
    ACCOUNTS = {"test": ["--number", NUMBER], "other": ["--number", "12125550177"]}

    def test_query(self):
        client = self.esme()
        for prefix, _stat, state, _dlvrd, err in OUTCOMES:
            with self.subTest(state=state, prefix=prefix):
                message_id = client.submit_ok(f"{prefix}0345551")
                client.receipt(message_id)
                answer = client.query(message_id)
                self.assertEqual((answer.status, answer.message_id.decode()), (0, message_id))
                self.assertEqual(answer.message_state, state)
                self.assertEqual(answer.error_code, int(err))
                if state != 7:
                    self.assertRegex(answer.final_date.decode(), rf"\A{ABSOLUTE_TIME.pattern}\Z")

    def test_query_of_a_message_on_its_way(self):
        client = self.esme()
        message_id = client.submit_ok("99990005551")
        answer = client.query(message_id)
        self.assertEqual((answer.status, answer.message_id.decode(), answer.final_date, answer.message_state, answer.error_code),
                         (0, message_id, b"", 1, 0))

    def test_query_of_what_is_not_mine(self):
        client, other = self.esme(), self.esme(system_id="other")
        message_id = client.submit_ok("12125551234")
        self.assertEqual(other.query(message_id).status, 0x0C)
        self.assertEqual(other.query(message_id, client.number).status, 0x0C)
        self.assertEqual(client.query(message_id, "12125559999").status, 0x0C)
        for unknown in ("1", "nosuchid", "9223372036854775807", "9" * 64):
            with self.subTest(message_id=unknown):
                self.assertEqual(client.query(unknown).status, 0x0C)


class Timers(Tests):
    SERVER_CONFIG = """
[session]
enquire_link_interval_seconds = 1
inactivity_timeout_seconds = 4
response_timeout_seconds = 2
"""

    def test_server_asks_and_keeps_who_answers(self):
        client = self.esme()
        client.idle(6)
        asked = [pdu for pdu in client.received if pdu.command == "enquire_link"]
        self.assertGreaterEqual(len(asked), 4)
        self.assertEqual(client.submit("12125551234").status, 0)

    def test_server_closes_who_is_silent(self):
        client = self.esme()
        started = time.monotonic()
        with self.assertRaises(smpplib.exceptions.ConnectionError):
            while True:
                client.read_pdu()
        self.assertTrue(2 < time.monotonic() - started < 9)


class Restarts(Tests):
    def setUp(self):
        self.server = self.enterContext(Server(self.ACCOUNTS))

    def test_sigterm_drains(self):
        client = self.esme()
        message_id = client.submit_ok("99990005551")
        exits = []
        stopper = threading.Thread(target=lambda: exits.append(self.server.stop(signal.SIGTERM)))
        stopper.start()
        unbind = client.wait(lambda: next((pdu for pdu in client.received if pdu.command == "unbind"), None))
        self.assertIsNotNone(unbind, "the server does not unbind when it stops")
        answer = smpplib.smpp.make_pdu("unbind_resp", client=client)
        answer.sequence = unbind.sequence
        client.send_pdu(answer)
        stopper.join()
        self.server.start()
        self.assertEqual(exits, [0])
        again = self.esme()
        self.assertEqual(again.query(message_id).message_state, 1)

    def test_sigterm_does_not_wait_for_nothing(self):
        client = self.esme()
        client.receipt(client.submit_ok("12125551234"))
        client.leave()
        started = time.monotonic()
        status = self.server.stop(signal.SIGTERM)
        took = time.monotonic() - started
        self.server.start()
        self.assertEqual(status, 0)
        self.assertLess(took, 3, "nobody is bound and nothing is in flight")

    def test_sigterm_at_once(self):
        self.assertEqual(self.server.stop(signal.SIGTERM), 0)
        for _ in range(5):
            self.server.start()
            status = self.server.stop(signal.SIGTERM)
            if status:
                break
        self.server.start()
        self.assertEqual(status, 0)

    def test_kill_loses_nothing_acknowledged(self):
        client = self.esme("transmitter")
        waiting = [client.submit_ok("99990005551") for _ in range(20)]
        decided = [client.submit_ok("99950345551") for _ in range(20)]
        self.server.stop(signal.SIGKILL)
        client._socket.close()
        client._socket = None
        self.server.start()
        again = self.esme()
        for message_id in decided:
            self.assert_receipt(again.receipt(message_id, seconds=30).short_message, id=message_id,
                                stat="UNDELIV", err="034")
        for message_id in waiting:
            self.assertEqual(again.query(message_id).message_state, 1)
        fresh = again.submit_ok("12125551234")
        self.assertNotIn(fresh, waiting + decided)


if __name__ == "__main__":
    harness.main()
