#!/usr/bin/env python3
"""Kannel as the customer: bearerbox binds to us (plain, and TLS by itself), smsbox sends and receives over HTTP."""

import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import harness
from harness import NUMBER, PASSWORD, RECEIPT, free_port, wait_for_port

SMSC = """
group = smsc
smsc = smpp
smsc-id = {name}
allowed-smsc-id = {name}
host = 127.0.0.1
{port_key} = {port}
use-ssl = {ssl}
transceiver-mode = {transceiver}
smsc-username = {name}
smsc-password = {password}
system-type = ""
interface-version = 34
source-addr-ton = 1
source-addr-npi = 1
dest-addr-ton = 1
dest-addr-npi = 1
enquire-link-interval = 2
reconnect-delay = 1
"""

BOXES = """
group = core
admin-port = {admin}
admin-password = {password}
smsbox-port = {smsbox}
log-file = {directory}/bearerbox-core.log
log-level = 0
dlr-storage = internal

group = smsbox
bearerbox-host = 127.0.0.1
bearerbox-port = {smsbox}
sendsms-port = {sendsms}

group = sendsms-user
username = test
password = {password}
concatenation = true
max-messages = 10

group = sms-service
keyword = default
catch-all = true
max-messages = 0
omit-empty = true
get-url = "http://127.0.0.1:{http}/mo?from=%p&to=%P&text=%a&smsc=%i&coding=%c"
"""


class Callbacks(ThreadingHTTPServer):
    """Where smsbox reports receipts and incoming messages."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.calls = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            url = urllib.parse.urlsplit(self.path)
            self.server.calls.append((url.path, dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))))
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass


class Kannel(harness.Suite):
    ACCOUNTS = {
        "plain": ["--number", NUMBER],
        "tls": ["--number", "12125550111"],
        "pair": ["--number", "12125550122"],
    }
    NUMBERS = {"plain": NUMBER, "tls": "12125550111", "pair": "12125550122"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(super().tearDownClass)
        cls.callbacks = Callbacks()
        cls.addClassCleanup(cls.callbacks.shutdown)
        cls.admin, cls.sendsms = free_port(), free_port()
        values = dict(admin=cls.admin, smsbox=free_port(), sendsms=cls.sendsms, http=cls.callbacks.server_port,
                      password=PASSWORD, directory=cls.server.directory)
        smsc = lambda name, port, port_key="port", ssl="false", transceiver="true": SMSC.format(
            name=name, port=port, port_key=port_key, ssl=ssl, transceiver=transceiver, password=PASSWORD)
        groups = [
            smsc("plain", cls.server.plain_port),
            smsc("tls", cls.server.tls_port, ssl="true"),
            smsc("pair", cls.server.plain_port, transceiver="false"),
            smsc("pair", cls.server.plain_port, port_key="receive-port", transceiver="false"),
        ]
        (cls.server.directory / "kannel.conf").write_text(BOXES.format(**values) + "".join(groups))
        cls.start_box("bearerbox", cls.admin)
        cls.start_box("smsbox", cls.sendsms)

    @classmethod
    def tearDownClass(cls):
        pass  # the class clean-ups stop smsbox, bearerbox and the server, in this order

    @classmethod
    def start_box(cls, name, port):
        with open(cls.server.directory / f"{name}.log", "wb") as log:
            box = subprocess.Popen([f"/usr/sbin/{name}", "kannel.conf"], cwd=cls.server.directory, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=subprocess.STDOUT)
        cls.addClassCleanup(cls.stop_box, box)
        if not wait_for_port(port, alive=lambda: box.poll() is None):
            print((cls.server.directory / f"{name}.log").read_text(errors="replace")[-3000:])
            raise RuntimeError(f"{name} does not start")

    @staticmethod
    def stop_box(box):
        box.terminate()
        try:
            box.wait(10)
        except subprocess.TimeoutExpired:
            box.kill()
            box.wait()

    def get(self, port, path, **query):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def status(self):
        return self.get(self.admin, "status.txt", password=PASSWORD)[1]

    def wait_online(self):
        """All four SMPP links are up."""
        online = lambda: self.status().count("(online")
        self.assertEqual(self.until(lambda: online() == 4 and 4, 20) or online(), 4, self.status())

    def until(self, found, seconds=15):
        deadline = time.monotonic() + seconds
        while not (result := found()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return result

    def send(self, smsc, to, text, tag, **query):
        report = f"http://127.0.0.1:{self.callbacks.server_port}/dlr?tag={tag}&type=%d&text=%A&smsc=%i"
        status, body = self.get(self.sendsms, "cgi-bin/sendsms", username="test", password=PASSWORD, smsc=smsc,
                                **{"from": self.NUMBERS[smsc], "dlr-mask": 31, "dlr-url": report} | query, to=to, text=text)
        self.assertEqual(status, 202, body)

    def reports(self, tag):
        return [call for path, call in list(self.callbacks.calls) if path == "/dlr" and call["tag"] == tag]

    def report(self, tag, kind, count=1):
        """The reports of one type (1 delivered, 2 failed, 8 accepted, 16 refused by the server)."""
        found = self.until(lambda: len(self.reports_of(tag, kind)) >= count and self.reports_of(tag, kind))
        self.assertTrue(found, f"no report of type {kind} for {tag}: {self.reports(tag)}")
        return found

    def reports_of(self, tag, kind):
        return [call for call in self.reports(tag) if int(call["type"]) & kind]

    def test_1_binds_in_all_three_modes_plain_and_tls(self):
        self.wait_online()

    def test_2_sends_and_gets_the_receipt(self):
        self.wait_online()
        for smsc in self.NUMBERS:
            with self.subTest(smsc):
                self.send(smsc, "12125551234", "hello from Kannel", f"ok-{smsc}")
                self.report(f"ok-{smsc}", 8)
                receipt = self.report(f"ok-{smsc}", 1)[0]
                match = RECEIPT.fullmatch(receipt["text"])
                self.assertIsNotNone(match, receipt["text"])
                self.assertEqual(match.group("stat", "dlvrd", "err", "text"), ("DELIVRD", "001", "000", "hello from Kannel"))

    def test_3_learns_of_failures(self):
        self.wait_online()
        for number, stat in (("99930345551", "EXPIRED"), ("99950345551", "UNDELIV"), ("99980345551", "REJECTD")):
            with self.subTest(stat):
                self.send("plain", number, "will fail", stat)
                receipt = self.report(stat, 2)[0]
                match = RECEIPT.fullmatch(receipt["text"])
                self.assertIsNotNone(match, receipt["text"])
                self.assertEqual((match["stat"], match["err"]), (stat, "034"))

    def test_4_is_refused_a_foreign_source(self):
        self.wait_online()
        self.send("plain", "12125551234", "not my number", "refused", **{"from": "12125559999"})
        self.assertIn("0x0000000a", self.report("refused", 16)[0]["text"])

    def test_5_sends_long_and_unicode_messages(self):
        self.wait_online()
        for smsc in ("plain", "tls"):
            with self.subTest(smsc):
                self.send(smsc, "12125551234", "long message " * 30, f"long-{smsc}")
                self.assertEqual(len(self.report(f"long-{smsc}", 8)), 1)
                self.report(f"long-{smsc}", 1)
                self.send(smsc, "12125551234", "\u041f\u0440\u0438\u0432\u0435\u0442 " * 20, f"ucs-{smsc}", coding=2, charset="UTF-8")
                self.report(f"ucs-{smsc}", 1)

    def test_6_receives_replies(self):
        self.wait_online()
        for smsc, number in self.NUMBERS.items():
            with self.subTest(smsc):
                self.send(smsc, "12125551234", f"reply to {smsc}", f"mo-{smsc}")
                wanted = {"from": "12125551234", "to": number, "text": f"to {smsc}"}
                match = lambda: next((call for path, call in list(self.callbacks.calls) if path == "/mo" and
                                      {key: call[key].lstrip("+") if key != "text" else call[key] for key in wanted} == wanted), None)
                call = self.until(match)
                self.assertIsNotNone(call, [call for path, call in self.callbacks.calls if path == "/mo"])
                self.assertEqual(call["smsc"], smsc)

    def test_7_stays_bound_by_enquire_link(self):
        time.sleep(5)
        self.wait_online()
        log = (self.server.directory / "bearerbox-core.log").read_text(errors="replace")
        self.assertIn("enquire_link_resp", log)
        self.assertNotIn("generic_nack", log)
        self.assertEqual(log.count("Couldn't connect"), 0)


if __name__ == "__main__":
    harness.main()
