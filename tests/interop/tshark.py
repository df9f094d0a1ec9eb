#!/usr/bin/env python3
"""The session of node_client.js over the plain listener, captured on lo and dissected by Wireshark's engine."""

import re
import signal
import subprocess
import time
import unittest
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict

import harness
from harness import MESSAGE_ID, RECEIPT, Server
from node_client import ACCOUNTS, run_node

STATES = {"ENROUTE": 1, "DELIVRD": 2, "EXPIRED": 3, "DELETED": 4, "UNDELIV": 5, "ACCEPTD": 6, "UNKNOWN": 7, "REJECTD": 8}
RECEIPT_TYPE, NOTIFICATION_TYPE = 0x01, 0x08  # bits 5-2 of esm_class, as tshark shows them


class Pdu:
    """One dissected PDU: `show` and `octets` of a field by its Wireshark name."""

    def __init__(self, stream, from_server, element):
        self.stream, self.from_server = stream, from_server
        self.fields = [(field.get("name"), field.get("show"), field.get("value") or "") for field in element.iter("field")]
        self.command_id = self.number("command_id")
        self.status = self.number("command_status")
        self.sequence_number = self.number("sequence_number")
        self.is_response = bool(self.command_id & 0x80000000)

    def show(self, name):
        return next((show for field, show, _ in self.fields if field == "smpp." + name), None)

    def octets(self, name):
        return next((bytes.fromhex(value) for field, _, value in self.fields if field == "smpp." + name), b"")

    def number(self, name):
        show = self.show(name)
        return None if show is None else int(show, 0)

    def tags(self):
        return [int(show, 16) for field, show, _ in self.fields if field == "smpp.opt_param_tag"]


def is_a(pdu, command_id):
    return pdu.command_id == command_id


class Dissection(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Server(ACCOUNTS) as server:
            cls.capture = server.directory / "session.pcapng"
            cls.port = server.plain_port
            dumpcap = subprocess.Popen(["dumpcap", "-q", "-i", "lo", "-f", f"tcp port {cls.port}", "-w", cls.capture],
                                       stderr=subprocess.PIPE, text=True)
            try:
                while not dumpcap.stderr.readline().startswith("File:"):
                    assert dumpcap.poll() is None, "dumpcap does not capture"
                cls.session = run_node(server.plain_url, stdout=subprocess.PIPE, text=True)
                time.sleep(1)
            finally:
                dumpcap.send_signal(signal.SIGINT)
                cls.capture_report = dumpcap.communicate(timeout=20)[1]
            cls.pdus, cls.tcp_octets = cls.dissect()
            cls.malformed = cls.tshark("-Y", "_ws.malformed || _ws.unreassembled || smpp && _ws.expert.severity >= 0x600000")
        cls.by_stream = defaultdict(list)
        for pdu in cls.pdus:
            cls.by_stream[pdu.stream].append(pdu)

    @classmethod
    def tshark(cls, *arguments):
        command = ["tshark", "-r", cls.capture, "-d", f"tcp.port=={cls.port},smpp", *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, timeout=120).stdout

    @classmethod
    def dissect(cls):
        """All PDUs in order, and how many octets TCP carried by (stream, direction)."""
        pdus, octets = [], Counter()
        xml = re.sub(rb"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]", b"?", cls.tshark("-T", "pdml"))
        for packet in ElementTree.fromstring(xml.decode("utf-8", "replace")).iter("packet"):
            tcp = next(proto for proto in packet.iter("proto") if proto.get("name") == "tcp")
            value = {field.get("name"): field.get("show") for field in tcp.iter("field")}
            flow = int(value["tcp.stream"]), value["tcp.srcport"] == str(cls.port)
            if "tcp.analysis.retransmission" not in value:
                octets[flow] += int(value["tcp.len"])
            pdus += [Pdu(*flow, proto) for proto in packet.iter("proto") if proto.get("name") == "smpp"]
        return pdus, octets

    def responses(self, stream, from_server):
        return {pdu.sequence_number: pdu for pdu in self.by_stream[stream] if pdu.is_response and pdu.from_server == from_server}

    def accepted(self):
        """message_id to (request, response) of every accepted submit_sm and data_sm."""
        pairs = {}
        for pdu in self.pdus:
            if not pdu.from_server and pdu.command_id in (0x04, 0x103):
                response = self.responses(pdu.stream, True)[pdu.sequence_number]
                if response.status == 0:
                    pairs[response.show("message_id")] = pdu, response
        return pairs

    def receipts(self):
        return [pdu for pdu in self.pdus if is_a(pdu, 0x05) and pdu.number("esm.submit.msg_type") in (RECEIPT_TYPE, NOTIFICATION_TYPE)]

    def test_session_itself_passes(self):
        self.assertEqual(self.session.returncode, 0, self.session.stdout)

    def test_capture_is_complete(self):
        self.assertRegex(self.capture_report, r"/0 \(pcap:0/")
        self.assertGreater(len(self.pdus), 1000)

    def test_nothing_is_malformed(self):
        self.assertEqual(self.malformed.decode(), "")

    def test_every_octet_belongs_to_a_pdu(self):
        lengths = Counter()
        for pdu in self.pdus:
            lengths[pdu.stream, pdu.from_server] += pdu.number("command_length")
        self.assertEqual({flow: count for flow, count in self.tcp_octets.items() if count}, dict(lengths))

    def test_every_request_is_answered_once(self):
        for stream, pdus in self.by_stream.items():
            for from_server in (False, True):
                requests = Counter((pdu.sequence_number, pdu.command_id) for pdu in pdus
                                   if not pdu.is_response and pdu.from_server == from_server)
                answers = [pdu for pdu in pdus if pdu.is_response and pdu.from_server != from_server]
                self.assertEqual(sorted(sequence for sequence, _ in requests), sorted(pdu.sequence_number for pdu in answers), stream)
                commands = dict(requests.keys())
                for pdu in answers:
                    self.assertIn(pdu.command_id, (commands[pdu.sequence_number] | 0x80000000, 0x80000000))

    def test_own_sequence_numbers_count_from_one(self):
        for stream, pdus in self.by_stream.items():
            numbers = [pdu.sequence_number for pdu in pdus if pdu.from_server and not pdu.is_response]
            self.assertEqual(numbers, list(range(1, len(numbers) + 1)), stream)

    def test_error_responses_are_a_header_only(self):
        refused = [pdu for pdu in self.pdus if pdu.from_server and pdu.is_response and pdu.status]
        self.assertGreater(len(refused), 20)
        for pdu in refused:
            self.assertEqual(pdu.number("command_length"), 16)

    def test_requests_carry_status_zero(self):
        self.assertEqual({pdu.status for pdu in self.pdus if pdu.from_server and not pdu.is_response} - {None, 0}, set())

    def test_bind_responses(self):
        for pdu in self.pdus:
            if pdu.command_id in (1, 2, 9):
                response = self.responses(pdu.stream, True)[pdu.sequence_number]
                self.assertEqual(response.command_id, pdu.command_id | 0x80000000)
                if response.status == 0:
                    self.assertTrue(response.show("system_id"))
                    wanted = [0x0210] if pdu.number("interface_version") >= 0x34 else []
                    self.assertEqual((response.tags(), response.number("SC_interface_version")), (wanted, 0x50 if wanted else None))

    def test_old_sessions_get_no_tlv_and_transmitters_no_message(self):
        for pdus in self.by_stream.values():
            bind = next((pdu for pdu in pdus if pdu.command_id in (1, 2, 9)), None)
            if bind and bind.number("interface_version") < 0x34:
                self.assertEqual([pdu.tags() for pdu in pdus if pdu.from_server and pdu.tags()], [])
            if bind and bind.command_id == 2:
                self.assertEqual([pdu for pdu in pdus if is_a(pdu, 0x05)], [])

    def test_message_ids(self):
        ids = [pdu.show("message_id") for pdu in self.pdus
               if pdu.from_server and pdu.command_id in (0x80000004, 0x80000021, 0x80000103) and pdu.status == 0]
        self.assertGreater(len(ids), 300)
        self.assertEqual(len(set(ids)), len(ids))
        for message_id in ids:
            self.assertRegex(message_id, rf"\A{MESSAGE_ID.pattern}\Z")

    def test_receipts(self):
        accepted = self.accepted()
        several = {pdu.show("message_id") for pdu in self.pdus if is_a(pdu, 0x80000021)}
        seen = Counter()
        for pdu in self.receipts():
            match = RECEIPT.fullmatch(pdu.octets("message").decode("ascii"))
            self.assertIsNotNone(match, pdu.octets("message"))
            self.assertEqual(pdu.number("sm_length"), len(match[0]))
            self.assertEqual([pdu.number(name) for name in ("data_coding", "protocol_id", "priority_flag", "sm_default_msg_id",
                                                            "esm.submit.msg_mode", "esm.submit.features", "regdel.receipt")], [0] * 7)
            self.assertEqual((pdu.octets("schedule_delivery_time_r"), pdu.octets("validity_period_r")), (b"\0", b"\0"))
            if pdu.tags():
                self.assertEqual(pdu.tags()[:2], [0x001E, 0x0427])
                self.assertEqual(pdu.octets("receipted_message_id"), match["id"].encode() + b"\0")
                self.assertEqual(pdu.number("message_state"), STATES[match["stat"]])
                if 0x0423 in pdu.tags() or match["err"] != "000":
                    self.assertIn(pdu.number("network_error.type"), (3, 8))
                    self.assertEqual(pdu.number("network_error.code"), int(match["err"]))
            if match["id"] in accepted:
                request, response = accepted[match["id"]]
                self.assertGreater(self.pdus.index(pdu), self.pdus.index(response))
                for wanted, got in (("source_addr", "destination_addr"), ("destination_addr", "source_addr")):
                    self.assertEqual(pdu.show(got).lstrip("+"), request.show(wanted).lstrip("+"))
                seen[match["id"], pdu.number("esm.submit.msg_type")] += 1
            else:
                self.assertTrue(several, "a receipt of nothing submitted")
        self.assertGreater(len(seen), 300)
        self.assertEqual(set(seen.values()), {1})

    def test_replies(self):
        replies = [pdu for pdu in self.pdus if is_a(pdu, 0x05) and pdu.number("esm.submit.msg_type") == 0]
        self.assertGreaterEqual(len(replies), 5)
        for pdu in replies:
            self.assertNotIn(0x001E, pdu.tags())
            self.assertEqual(len(pdu.octets("message")), pdu.number("sm_length"))
        codings = {pdu.number("data_coding") for pdu in replies}
        self.assertLessEqual({3, 8}, codings)


if __name__ == "__main__":
    harness.main()
