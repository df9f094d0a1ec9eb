"""Starts and stops the server under test, and knows what a receipt looks like."""

import calendar
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
NODE_PATH = ROOT / "target/interop/node/node_modules"
PASSWORD = "secret"
NUMBER = "12125550100"

MESSAGE_ID = re.compile(r"[1-9][0-9]{0,18}")
ABSOLUTE_TIME = re.compile(r"[0-9]{12}[0-9][0-4][0-9][+-]")
RECEIPT = re.compile(
    r"id:(?P<id>[1-9][0-9]{0,18}) sub:(?P<sub>[0-9]{3}) dlvrd:(?P<dlvrd>[0-9]{3})"
    r" submit date:(?P<submitted>[0-9]{10}) done date:(?P<done>[0-9]{10})"
    r" stat:(?P<stat>[A-Z]{5,7}) err:(?P<err>[0-9]{3}) text:(?P<text>[ -~]{0,20})"
)

# What the simulator carrier does with a destination: prefix, stat, message_state, and the receipt's dlvrd and err
# when the digits behind the prefix are 034. A delivered message has no error.
OUTCOMES = [
    ("9992", "DELIVRD", 2, "001", "000"),
    ("9993", "EXPIRED", 3, "000", "034"),
    ("9994", "DELETED", 4, "000", "034"),
    ("9995", "UNDELIV", 5, "000", "034"),
    ("9996", "DELIVRD", 2, "001", "000"),
    ("9997", "UNKNOWN", 7, "000", "034"),
    ("9998", "REJECTD", 8, "000", "034"),
]

CONFIG = """
[carrier.simulator]
kind = "simulator"
seed = 1
delay_min_millis = 20
delay_max_millis = 150
"""


def binary():
    """The smppd to test: SMPPD, or the newest usual build."""
    if os.environ.get("SMPPD"):
        return str(Path(os.environ["SMPPD"]).resolve())
    for build in ("release", "debug"):
        if (ROOT / "target" / build / "smppd").exists():
            return str(ROOT / "target" / build / "smppd")
    sys.exit("no smppd built: give its path")


def free_port():
    """A port nobody listens on, found by binding to port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, seconds=20, alive=lambda: True):
    """Wait until something accepts on the port; False if it never does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and alive():
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


class Server:
    """One smppd with its own directory and ports, a TLS and a plain listener. Use it in `with`."""

    def __init__(self, accounts, config=""):
        self.accounts, self.config = accounts, config
        self.process = None

    def __enter__(self):
        self.directory = Path(tempfile.mkdtemp(prefix="smppd-interop-"))
        self.data = self.directory / "data"
        (self.directory / "config.toml").write_text(self.config + CONFIG)
        self.tls_port, self.plain_port = free_port(), free_port()
        self.tls_url = f"ssmpp://127.0.0.1:{self.tls_port}"
        self.plain_url = f"smpp://127.0.0.1:{self.plain_port}"
        try:
            for system_id, options in self.accounts.items():
                self._run("account", "add", system_id, "--password", PASSWORD, *options, "--data-dir", self.data)
            self.start()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, *_):
        try:
            if self.process and self.process.poll() is None:
                self.stop(signal.SIGTERM)
        finally:
            if kind:
                self.print_log()
            shutil.rmtree(self.directory, ignore_errors=True)

    def number(self, system_id):
        """The account's default sending number; no two accounts have the same."""
        options = self.accounts[system_id]
        return options[options.index("--number") + 1]

    def _run(self, *arguments):
        done = subprocess.run([binary(), *map(str, arguments)], cwd=self.directory, text=True, timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, f"smppd {' '.join(map(str, arguments))}: exit {done.returncode}\n{done.stdout}"

    def start(self):
        """Start the server (again, after `stop`) and wait until it says that both listeners are ready."""
        self.log = open(self.directory / "smppd.log", "wb")
        self.process = subprocess.Popen(
            [binary(), "serve", "--config", "config.toml", "--data-dir", self.data,
             "--listen", f"127.0.0.1:{self.tls_port}", "--listen-plain", f"127.0.0.1:{self.plain_port}",
             "--admin", f"127.0.0.1:{free_port()}", "--log-level", "info"],
            cwd=self.directory, stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        for port in (self.tls_port, self.plain_port):
            ready = re.compile(rf"listening.* 127\.0\.0\.1:{port}\b")
            deadline = time.monotonic() + 30
            while not ready.search(self.read_log()):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"smppd does not listen on {port}, exit status {self.process.poll()}\n{self.read_log()}")
                time.sleep(0.02)

    def stop(self, how=signal.SIGTERM, seconds=30):
        """Signal the server, wait for its end and return its exit status."""
        self.process.send_signal(how)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "still running"
        finally:
            self.log.close()

    def read_log(self):
        path = self.directory / "smppd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def print_log(self):
        print("--- the end of the server's log ---")
        print("\n".join(self.read_log().splitlines()[-25:]), flush=True)

    def tls_context(self):
        """A client context that trusts the certificate the server made for itself, and nothing else."""
        context = ssl.create_default_context(cafile=self.data / "tls/cert.pem")
        context.check_hostname = False
        return context


class Suite(unittest.TestCase):
    """Tests that share one server with the class's accounts."""

    ACCOUNTS = {"test": ["--number", NUMBER]}
    SERVER_CONFIG = ""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.ACCOUNTS, cls.SERVER_CONFIG).__enter__()

    @classmethod
    def tearDownClass(cls):
        failed = any(not ok for ok in cls.outcomes) if hasattr(cls, "outcomes") else False
        died = cls.server.process.poll()
        cls.server.__exit__(RuntimeError if failed or died is not None else None)
        assert died is None, f"the server died during the tests, exit status {died}"

    def assert_receipt(self, octets, /, **fields):
        """These octets are exactly a receipt's text, and these of its fields have these values."""
        text = octets.decode("ascii")
        match = RECEIPT.fullmatch(text)
        self.assertIsNotNone(match, f"not a canonical receipt: {text!r}")
        found = match.groupdict()
        self.assertEqual({name: found[name] for name in fields}, fields)
        now = time.time()
        for date in (found["submitted"], found["done"]):
            age = now - calendar.timegm(time.strptime(date, "%y%m%d%H%M"))
            self.assertTrue(-60 <= age <= 600, f"{date} is not the present time in UTC")
        self.assertLessEqual(found["submitted"], found["done"])
        return found

    def assert_message_id(self, message_id):
        self.assertRegex(message_id, rf"\A{MESSAGE_ID.pattern}\Z")


class Result(unittest.TextTestResult):
    """One line per test."""

    def addSuccess(self, test):
        super().addSuccess(test)
        print(f"ok    {test._testMethodName}", flush=True)

    def addError(self, test, error):
        super().addError(test, error)
        print(f"ERROR {getattr(test, '_testMethodName', test)}", flush=True)

    def addFailure(self, test, error):
        super().addFailure(test, error)
        print(f"FAIL  {test._testMethodName}", flush=True)

    def addSubTest(self, test, subtest, error):
        super().addSubTest(test, subtest, error)
        if error:
            print(f"FAIL  {subtest}", flush=True)


def main():
    """Run the tests of the calling script; the last line is the count."""
    names = [f"{owner}.{name}" for pattern in sys.argv[1:] for owner, name in _tests(pattern)]
    loader = unittest.defaultTestLoader
    suite = loader.loadTestsFromNames(names, sys.modules["__main__"]) if names else \
        loader.loadTestsFromModule(sys.modules["__main__"])
    runner = unittest.TextTestRunner(stream=sys.stdout, resultclass=Result, verbosity=0)
    result = runner.run(suite)
    bad = {str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors}
    print(f"{max(result.testsRun - len(bad), 0)} passed, {len(bad)} failed")
    sys.exit(1 if bad or not result.testsRun else 0)


def _tests(pattern):
    for owner, cls in vars(sys.modules["__main__"]).items():
        if isinstance(cls, type) and issubclass(cls, unittest.TestCase):
            for name in unittest.defaultTestLoader.getTestCaseNames(cls):
                if pattern in name:
                    yield owner, name
