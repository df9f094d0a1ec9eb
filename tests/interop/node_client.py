#!/usr/bin/env python3
"""Starts a server for node_client.js and runs it over TLS. tshark.py runs the same session over the plain listener."""

import os
import subprocess
import sys

from harness import HERE, NODE_PATH, NUMBER, Server

ACCOUNTS = {
    "test": ["--number", NUMBER],
    "other": ["--number", "12125550177"],
    "gsm": ["--number", NUMBER, "--default-alphabet", "gsm"],
    "octets": ["--number", NUMBER, "--binary"],
    "pair": ["--number", NUMBER, "--bind-limit", "2"],
    "slow": ["--number", NUMBER, "--rate", "10", "--burst", "10"],
}


def run_node(url, *names):
    """Run node_client.js (or only the tests whose names contain one of `names`); its exit status."""
    command = ["node", HERE / "node_client.js", url, *names]
    return subprocess.run(command, env=os.environ | {"NODE_PATH": str(NODE_PATH)}, timeout=150).returncode


if __name__ == "__main__":
    with Server(ACCOUNTS) as server:
        status = run_node(server.tls_url, *sys.argv[1:])
        if status:
            server.print_log()
    sys.exit(status)
