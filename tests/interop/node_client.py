#!/usr/bin/env python3
"""Starts a server for node_client.js and runs it over TLS. tshark.py runs the same session over the plain listener."""

import json
import os
import subprocess
import sys

from harness import HERE, NODE_PATH, NUMBER, Server

ACCOUNTS = {
    "test": ["--number", NUMBER],
    "other": ["--number", "12125550177"],
    "gsm": ["--number", "12125550178", "--default-alphabet", "gsm"],
    "octets": ["--number", "12125550179", "--binary"],
    "pair": ["--number", "12125550180", "--bind-limit", "2"],
    "slow": ["--number", "12125550181", "--rate", "10", "--burst", "10"],
}


def run_node(url, *names, **how):
    """Run node_client.js (or only the tests whose names contain one of `names`)."""
    numbers = {system_id: options[1] for system_id, options in ACCOUNTS.items()}
    command = ["node", HERE / "node_client.js", url, json.dumps(numbers), *names]
    return subprocess.run(command, env=os.environ | {"NODE_PATH": str(NODE_PATH)}, timeout=150, **how)


if __name__ == "__main__":
    with Server(ACCOUNTS) as server:
        status = run_node(server.tls_url, *sys.argv[1:]).returncode
        if status:
            server.print_log()
    sys.exit(status)
