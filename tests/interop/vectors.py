#!/usr/bin/env python3
"""Every line of tests/vectors/invalid.jsonl gets the reaction the reference asks for, over TLS."""

import json
import socket
import ssl
import struct
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import harness
from harness import NUMBER, PASSWORD, ROOT

COMMANDS = {
    0x00000001: "bind_receiver", 0x00000002: "bind_transmitter", 0x00000003: "query_sm", 0x00000004: "submit_sm",
    0x00000005: "deliver_sm", 0x00000006: "unbind", 0x00000007: "replace_sm", 0x00000008: "cancel_sm",
    0x00000009: "bind_transceiver", 0x0000000B: "outbind", 0x00000015: "enquire_link", 0x00000021: "submit_multi",
    0x00000102: "alert_notification", 0x00000103: "data_sm", 0x00000111: "broadcast_sm",
    0x00000112: "query_broadcast_sm", 0x00000113: "cancel_broadcast_sm",
}
BINDS = {"BOUND_RX": 1, "BOUND_TX": 2, "BOUND_TRX": 9}
CLOSED = "closed"
SILENT = "silent"
PROBE = 0x5EED  # the sequence number of our own enquire_link


def name_of(command_id):
    if command_id == 0x80000000:
        return "generic_nack"
    name = COMMANDS.get(command_id & 0x7FFFFFFF, hex(command_id))
    return name + "_resp" if command_id & 0x80000000 else name


class Session:
    """Raw octets over TLS."""

    def __init__(self, server, context):
        tcp = socket.create_connection(("127.0.0.1", server.tls_port), 10)
        self.tls = context.wrap_socket(tcp)
        self.buffer = b""

    def send(self, octets):
        try:
            self.tls.sendall(octets)
        except OSError:
            pass  # the server may close while we are still sending; reading shows what it said

    def send_pdu(self, command_id, sequence_number, body=b"", status=0):
        self.send(struct.pack(">4I", 16 + len(body), command_id, status, sequence_number) + body)

    def bind(self, command_id, interface_version=0x34, system_id="test", password=PASSWORD):
        body = f"{system_id}\0{password}\0\0".encode() + bytes([interface_version, 0, 0, 0])
        self.send_pdu(command_id, 1, body)
        return self.read_pdu(10)

    def read_pdu(self, seconds):
        """The next PDU as (name, status, sequence_number), or CLOSED, or SILENT."""
        deadline = time.monotonic() + seconds
        while len(self.buffer) < 16 or len(self.buffer) < struct.unpack(">I", self.buffer[:4])[0]:
            left = deadline - time.monotonic()
            if left <= 0:
                return SILENT
            self.tls.settimeout(left)
            try:
                octets = self.tls.recv(65536)
            except TimeoutError:
                return SILENT
            except OSError:
                return CLOSED
            if not octets:
                return CLOSED
            self.buffer += octets
        length, command_id, status, sequence_number = struct.unpack(">4I", self.buffer[:16])
        self.buffer = self.buffer[length:]
        return name_of(command_id), status, sequence_number

    def read_reply(self, seconds):
        """The next PDU that is not a request of the server's; those are answered."""
        deadline = time.monotonic() + seconds
        while True:
            pdu = self.read_pdu(max(deadline - time.monotonic(), 0.01))
            if pdu in (CLOSED, SILENT) or pdu[0].endswith("_resp") or pdu[0] == "generic_nack":
                return pdu
            if pdu[0] == "deliver_sm":
                self.send_pdu(0x80000005, pdu[2], b"\0")
            elif pdu[0] == "enquire_link":
                self.send_pdu(0x80000015, pdu[2])

    def close(self):
        self.tls.close()


def observe(vector, server, context):
    """Send one vector and return what came back: the replies, then 'keep', 'close' or 'hangs'."""
    session = Session(server, context)
    try:
        if vector["state"] != "OPEN":
            answer = session.bind(BINDS[vector["state"]], int(vector["interface_version"], 16))
            if answer[1] != 0:
                return [answer], "not bound"
        session.send(bytes.fromhex(vector["hex"]))
        if vector.get("after") == "shutdown_write":
            socket.socket.shutdown(session.tls, socket.SHUT_WR)
        else:
            # A keep-alive right behind: its answer marks the end of what the vector earned.
            session.send_pdu(0x15, PROBE)
        replies = []
        connection = "hangs"
        while True:
            # A bind is answered when its password is checked, which may be after the keep-alive.
            reply = session.read_reply(8 if connection == "hangs" else 0.01 if passes(vector, replies, connection) else 2)
            if reply == CLOSED:
                return replies, "close"
            if reply == SILENT:
                return replies, connection
            if reply[0] == "enquire_link_resp" and reply[2] == PROBE:
                connection = "keep"
            else:
                replies.append(reply)
    finally:
        session.close()


def agrees(wanted, then, replies, connection):
    """Does what was seen pass this expectation?"""
    wants = ([wanted] if wanted["reply"] else []) + ([then] if then else [])
    if len(replies) != len(wants):
        return False
    for want, (name, status, sequence_number) in zip(wants, replies):
        if name != want["reply"] or want.get("status", status) != status or want.get("seq", sequence_number) != sequence_number:
            return False
    return wanted.get("connection", connection) == connection


def passes(vector, replies, connection):
    return any(agrees(wanted, vector.get("then"), replies, connection) for wanted in [vector["expect"], *vector["also_ok"]])


class Vectors(harness.Suite):
    ACCOUNTS = {"test": ["--number", NUMBER, "--any-source", "--bind-limit", "0"]}
    SERVER_CONFIG = "[session]\nsession_init_timeout_seconds = 3\n"

    def test_invalid_vectors(self):
        lines = (ROOT / "tests/vectors/invalid.jsonl").read_text().splitlines()
        vectors = [json.loads(line) for line in lines]
        context = self.server.tls_context()
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda vector: observe(vector, self.server, context), vectors))
        passed = 0
        exact = 0
        for vector, (replies, connection) in zip(vectors, seen):
            exact += agrees(vector["expect"], vector.get("then"), replies, connection)
            passed += passes(vector, replies, connection)
            if not passes(vector, replies, connection):
                print(f"      {vector['id']} {vector['state']} {vector['note']}\n        wanted {vector['expect']}\n"
                      f"        seen   {replies} {connection}\n        sent   {vector['hex'][:160]}")
        print(f"      {passed} of {len(vectors)} ({exact} with the first choice of the reference)")
        self.assertEqual(len(vectors), 204)
        self.assertEqual(passed, len(vectors))

    def test_server_still_serves_afterwards(self):
        session = Session(self.server, self.server.tls_context())
        self.assertEqual(session.bind(9), ("bind_transceiver_resp", 0, 1))
        session.send_pdu(0x06, 2)
        self.assertEqual(session.read_reply(5), ("unbind_resp", 0, 2))
        self.assertEqual(session.read_reply(5), CLOSED)

    def test_pdu_arrives_octet_by_octet(self):
        session = Session(self.server, self.server.tls_context())
        self.assertEqual(session.bind(9)[1], 0)
        for octet in struct.pack(">4I", 16, 0x15, 0, 77):
            session.send(bytes([octet]))
            time.sleep(0.01)
        self.assertEqual(session.read_reply(5), ("enquire_link_resp", 0, 77))
        session.close()

    def test_third_failed_bind_closes(self):
        session = Session(self.server, self.server.tls_context())
        for _ in range(3):
            self.assertEqual(session.bind(9, password="wrong"), ("bind_transceiver_resp", 0x0D, 1))
        self.assertEqual(session.read_reply(3), CLOSED)

    def test_unbound_session_is_closed_in_time(self):
        started = time.monotonic()
        session = Session(self.server, self.server.tls_context())
        self.assertEqual(session.read_reply(10), CLOSED)
        self.assertTrue(2 < time.monotonic() - started < 7, "session_init_timeout_seconds = 3")

    def test_tls_versions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.server.tls_context()
            context.minimum_version = context.maximum_version = version
            session = Session(self.server, context)
            self.assertEqual(session.tls.version().replace(".", "_"), version.name)
            self.assertEqual(session.bind(9)[1], 0)
            session.close()

    def test_old_tls_is_refused(self):
        context = self.server.tls_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with self.assertRaises(OSError):
            Session(self.server, context)

    def test_plain_text_on_the_tls_port_is_refused(self):
        with socket.create_connection(("127.0.0.1", self.server.tls_port), 10) as tcp:
            tcp.sendall(bytes.fromhex("00000021000000090000000000000001") + b"test\0secret\0\0\x34\0\0\0")
            answer = b""
            try:
                while octets := tcp.recv(4096):
                    answer += octets
            except ConnectionResetError:
                pass
            self.assertNotIn(bytes.fromhex("80000009"), answer)

    def test_tls_on_the_plain_port_is_refused(self):
        tcp = socket.create_connection(("127.0.0.1", self.server.plain_port), 10)
        with self.assertRaises(OSError):
            self.server.tls_context().wrap_socket(tcp)
        tcp.close()


if __name__ == "__main__":
    harness.main()
