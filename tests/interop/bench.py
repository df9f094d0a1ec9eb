#!/usr/bin/env python3
"""smpp-bench against message centres that nobody here wrote, honest ones and ones that lie, and against smppd over TLS."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import harness
from harness import HERE, NODE_PATH, PASSWORD, Suite

BENCH = Path(harness.binary()).parent / "smpp-bench"

# What a lying server does, and the promise that is broken by it.
LIES = {
    "id-again": "message_ids were given out again",
    "receipt-again": "receipts came again, or unasked",
    "receipt-lost": "receipts were lost",
}


class Foreign:
    """A message centre of another project on a free port. Use it in `with`."""

    def __init__(self, command, **environment):
        self.command, self.environment = command, environment

    def __enter__(self):
        self.port = harness.free_port()
        self.process = subprocess.Popen([argument if argument != "PORT" else str(self.port) for argument in self.command],
                                        cwd=HERE, env=os.environ | self.environment, stdin=subprocess.DEVNULL)
        if not harness.wait_for_port(self.port, alive=lambda: self.process.poll() is None):
            self.__exit__()
            raise RuntimeError(f"{self.command[0]} does not listen, exit status {self.process.poll()}")
        return f"127.0.0.1:{self.port}"

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def node(*lie):
    return Foreign(["node", "node_server.js", "PORT", *lie], NODE_PATH=str(NODE_PATH))


class Bench:
    """What both kinds of tests do: a run with few connections in a short time, for it shows that it works, not how fast."""

    def play(self, address, scenario, *arguments, seconds=2, expected=0):
        """The document of a run and what it printed; it ends with this exit status."""
        with tempfile.TemporaryDirectory(prefix="smpp-bench-") as directory:
            path = Path(directory) / "run.json"
            command = [BENCH, "run", scenario, "--address", address, "--connections", "3", "--window", "20", "--seconds", seconds,
                       "--warm-up", "0.3", "--drain", "2", "--json", path, "--quiet", *arguments]
            done = subprocess.run([str(part) for part in command], text=True, timeout=60, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
            self.assertEqual(done.returncode, expected, done.stdout)
            return json.loads(path.read_text()), done.stdout

    def assert_held(self, document, printed, receipts):
        """Every promise held, and nothing is missing."""
        self.assertEqual(document["faults"], [])
        self.assertIn("every promise held", printed)
        self.assert_answered(document, receipts)

    def assert_answered(self, document, receipts):
        """All that was asked was answered, and each message had its receipt, if it should."""
        total = document["total"]
        self.assertGreater(total["requests"]["submit_sm"], 100)
        self.assertEqual(list(total["statuses"]), ["ESME_ROK"], total["statuses"])
        self.assertEqual([total[name] for name in ("unanswered", "unsent", "connections_lost", "binds")], [0, 0, 0, 3])
        # A message is counted when it was due, and its receipt belongs to it however late it comes.
        timed = {name: latency["count"] for name, latency in total["latencies"].items()}
        self.assertEqual(timed["submit_sm"], total["requests"]["submit_sm"])
        self.assertEqual(timed.get("receipt", 0), timed["submit_sm"] if receipts else 0)


class BenchOfOthers(Bench, unittest.TestCase):
    def test_submits_to_node(self):
        with node() as address:
            self.assert_held(*self.play(address, "submit"), receipts=False)

    def test_matches_the_receipts_of_node(self):
        with node() as address:
            self.assert_held(*self.play(address, "receipts"), receipts=True)

    def test_matches_the_receipts_of_smpp34(self):
        with Foreign([sys.executable, "smpp34_server.py", "PORT"]) as address:
            document, _ = self.play(address, "receipts", expected=1)
        # It closes where it should answer unbind; all else is as it should be.
        self.assertEqual([(fault["kind"], fault["count"]) for fault in document["faults"]], [("unbinds were never answered", 3)])
        self.assert_answered(document, receipts=True)

    def test_names_the_promise_that_node_breaks(self):
        for lie, promise in LIES.items():
            with self.subTest(lie), node(lie) as address:
                document, printed = self.play(address, "receipts", seconds=0.5, expected=1)
                kinds = {fault["kind"]: fault["count"] for fault in document["faults"]}
                self.assertGreater(kinds.get(promise, 0), 0, kinds)
                self.assertIn(promise, printed)
                self.assertNotIn("every promise held", printed)


class BenchOfOurs(Bench, Suite):
    def test_plays_against_smppd_over_tls(self):
        account = ["--system-id", "test", "--password", PASSWORD]
        tls = ["--tls-ca", self.server.data / "tls/cert.pem"]
        document, printed = self.play(f"127.0.0.1:{self.server.tls_port}", "receipts", *account, *tls)
        self.assert_held(document, printed, receipts=True)
        self.assertEqual(document["target"]["tls"], "TLS 1.3")


if __name__ == "__main__":
    if not BENCH.exists():
        sys.exit(f"no smpp-bench beside smppd: {BENCH}")
    harness.main()
