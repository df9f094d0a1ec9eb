#!/usr/bin/env python3
"""Five minutes with smppd: send, read the receipt, query, cancel, get a reply. Needs `pip install smpplib`.

    python3 scripts/tour.py --password PASSWORD [--port 2776] [--ca smppd-data/tls/cert.pem] [--system-id demo]
"""

import argparse
import logging
import ssl
import struct
import time

import smpplib.client
import smpplib.smpp

# The simulator that answers for the carrier: 9999... never takes a message, so it can still be cancelled.
DELIVERED = "12125551234"
NEVER_TAKEN = "9999000555"

STATES = ["SCHEDULED", "ENROUTE", "DELIVERED", "EXPIRED", "DELETED", "UNDELIVERABLE", "ACCEPTED", "UNKNOWN", "REJECTED"]


class Tourist:
    """One bound session and what has come in on it."""

    def __init__(self, options):
        # The certificate is our own, so trust exactly that one; smpplib does not tell TLS which host it wants.
        context = ssl.create_default_context(cafile=options.ca)
        context.check_hostname = False
        self.client = smpplib.client.Client(
            options.host, options.port, ssl_context=context, timeout=10, allow_unknown_opt_params=True
        )
        self.client.logger.setLevel(logging.ERROR)
        self.responses, self.answers, self.inbox = [], [], []
        self.client.set_message_sent_handler(lambda pdu, **_: self.responses.append(pdu))
        self.client.set_query_resp_handler(lambda pdu, **_: self.answers.append(pdu))
        self.client.set_message_received_handler(lambda pdu, **_: self.inbox.append(pdu))
        self.client.connect()
        self.client.bind_transceiver(system_id=options.system_id, password=options.password)

    def wait(self, inbox):
        """Read until something is there; the oldest of it."""
        end = time.monotonic() + 10
        while not inbox:
            if time.monotonic() > end:
                raise SystemExit("nothing came within 10 seconds")
            self.client.read_once()
        return inbox.pop(0)

    def send(self, destination, text, receipt=True):
        """submit_sm; the message_id of its response."""
        self.client.send_message(
            source_addr_ton=1, source_addr_npi=1, source_addr="",
            dest_addr_ton=1, dest_addr_npi=1, destination_addr=destination,
            short_message=text.encode(), registered_delivery=receipt,
        )
        return self.wait(self.responses).message_id.decode()

    def query(self, message_id):
        """query_sm; the name of the message_state."""
        self.client.query_message(message_id=message_id, source_addr_ton=1, source_addr_npi=1, source_addr="")
        return STATES[self.wait(self.answers).message_state]

    def cancel(self, message_id):
        """cancel_sm, which smpplib does not have, put together by hand; the command_status."""
        body = b"\0" + message_id.encode() + b"\0" + b"\1\1\0" + b"\0\0\0"
        sequence = self.client.next_sequence()
        self.client._socket.sendall(struct.pack(">IIII", 16 + len(body), 8, 0, sequence) + body)
        while True:
            length = self.client._recv_exact(4)
            raw = length + self.client._recv_exact(struct.unpack(">I", length)[0] - 4)
            _, command, status, _ = struct.unpack(">IIII", raw[:16])
            if command == 0x80000008:
                return status
            pdu = smpplib.smpp.parse_pdu(raw, client=self.client, allow_unknown_opt_params=True)
            self.client._message_received(pdu)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=2776)
    parser.add_argument("--ca", default="smppd-data/tls/cert.pem", help="the certificate to trust")
    parser.add_argument("--system-id", default="demo")
    parser.add_argument("--password", required=True)
    tourist = Tourist(parser.parse_args())
    print("bound")

    message_id = tourist.send(DELIVERED, "hello")
    print(f"sent to {DELIVERED}: message_id {message_id}")
    print(f"query: {tourist.query(message_id)}")
    print(f"receipt: {tourist.wait(tourist.inbox).short_message.decode()}")
    print(f"query: {tourist.query(message_id)}")

    message_id = tourist.send(NEVER_TAKEN, "too late?")
    print(f"sent to {NEVER_TAKEN}: message_id {message_id}")
    time.sleep(0.5)
    print(f"cancel: {'done' if tourist.cancel(message_id) == 0 else 'refused'}")
    print(f"receipt: {tourist.wait(tourist.inbox).short_message.decode()}")

    tourist.send(DELIVERED, "reply good to hear from you", receipt=False)
    reply = tourist.wait(tourist.inbox)
    print(f"reply from {reply.source_addr.decode()}: {reply.short_message.decode()}")

    tourist.client.unbind()
    tourist.client.disconnect()
    print("unbound")


if __name__ == "__main__":
    main()
