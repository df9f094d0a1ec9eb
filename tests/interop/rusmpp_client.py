#!/usr/bin/env python3
"""rusmpp (v5.0, Rust, by way of rusmppyc) as the customer, over TLS by rustls, which checks the certificate and the name."""

import asyncio
import os

from rusmppyc import (Client, CommandId, DataCoding, Event, GsmFeatures, EsmClass, InterfaceVersion,
                      MCDeliveryReceipt, MessagePayload, MessageSubmissionRequestTlvValue, Npi, RegisteredDelivery, Ton)
from rusmppyc.exceptions import ConnectionClosedException, UnexpectedResponseException

import harness
from harness import NUMBER, PASSWORD

RECEIPT = RegisteredDelivery(MCDeliveryReceipt.McDeliveryReceiptRequestedWhereFinalDeliveryOutcomeIsSuccessOrFailure())


def text(octets):
    """A C-Octet String as rusmppyc gives it."""
    return bytes(octets).rstrip(b"\0").decode()


class Session:
    """A bound client, and what was delivered to it."""

    @classmethod
    async def bound(cls, server, mode="transceiver", **bind):
        os.environ["SSL_CERT_FILE"] = str(server.data / "tls/cert.pem")
        self = cls()
        self.client, events = await Client.connect(f"smpps://localhost:{server.tls_port}", max_command_length=70000,
                                                   response_timeout=5000, enquire_link_interval=1000)
        self.delivered, self.errors = [], []
        self.reader = asyncio.create_task(self.read(events))
        bind = dict(system_id="test", password=PASSWORD, interface_version=InterfaceVersion.Smpp5_0()) | bind
        self.bind_resp = await getattr(self.client, f"bind_{mode}")(**bind)
        return self

    async def read(self, events):
        async for event in events:
            if isinstance(event, Event.Incoming) and isinstance(event._0.id, CommandId.DeliverSm):
                await self.client.deliver_sm_resp(event._0.sequence_number)
                self.delivered.append(event._0.pdu._0)
            elif isinstance(event, Event.Error):
                self.errors.append(event._0)

    async def submit(self, destination="12125551234", message=b"hello", **fields):
        values = dict(source_addr_ton=Ton.International(), source_addr_npi=Npi.Isdn(), source_addr=NUMBER,
                      dest_addr_ton=Ton.International(), dest_addr_npi=Npi.Isdn(), destination_addr=destination,
                      registered_delivery=RECEIPT, short_message=message)
        return text((await self.client.submit_sm(**(values | fields))).message_id)

    async def receipt(self, message_id, seconds=10):
        return await self.until(lambda pdu: bytes(pdu.short_message).startswith(f"id:{message_id} ".encode()), seconds)

    async def until(self, wanted, seconds=10):
        for _ in range(seconds * 100):
            for pdu in self.delivered:
                if wanted(pdu):
                    return pdu
            await asyncio.sleep(0.01)
        raise AssertionError("nothing was delivered")

    async def leave(self):
        self.reader.cancel()
        await self.client.unbind()
        await asyncio.wait_for(self.client.closed(), 5)


class Rusmpp(harness.Suite):
    ACCOUNTS = {"test": ["--number", NUMBER], "pair": ["--number", "12125550180", "--bind-limit", "1"]}

    def run_async(self, coroutine):
        asyncio.run(asyncio.wait_for(coroutine, 60))

    def test_three_bind_modes(self):
        async def body():
            for mode in ("transmitter", "receiver", "transceiver"):
                session = await Session.bound(self.server, mode)
                self.assertTrue(text(session.bind_resp.system_id))
                self.assertIn("Smpp5_0", repr(session.bind_resp.sc_interface_version))
                await session.leave()
        self.run_async(body())

    def test_refused_binds(self):
        async def body():
            for fields in (dict(password="wrong"), dict(system_id="nobody")):
                with self.assertRaisesRegex(UnexpectedResponseException, "status: EsmeRbindfail"):
                    await Session.bound(self.server, **fields)
            session = await Session.bound(self.server, system_id="pair")
            with self.assertRaisesRegex(UnexpectedResponseException, "status: EsmeRbindfail"):
                await Session.bound(self.server, system_id="pair")
            await session.leave()
        self.run_async(body())

    def test_submits_and_reads_receipts(self):
        async def body():
            session = await Session.bound(self.server)
            for prefix, stat, _state, dlvrd, err in harness.OUTCOMES:
                message_id = await session.submit(f"{prefix}0345551", b"hello from rusmpp")
                self.assert_message_id(message_id)
                pdu = await session.receipt(message_id)
                self.assert_receipt(bytes(pdu.short_message), id=message_id, stat=stat, err=err, dlvrd=dlvrd, text="hello from rusmpp")
                self.assertIn("message_type: ShortMessageContainsMCDeliveryReceipt", repr(pdu.esm_class))
                self.assertEqual((text(pdu.source_addr), text(pdu.destination_addr)), (f"{prefix}0345551", NUMBER))
                tlvs = [repr(tlv) for tlv in pdu.tlvs]
                wanted = ["ReceiptedMessageId", "MessageState", "NetworkErrorCode"][: 2 if err == "000" else 3]
                self.assertEqual([tlv.split("tag: ")[1].split(",")[0] for tlv in tlvs[:len(wanted)]], wanted)
                if err != "000":
                    self.assertIn(f"error_code: {int(err)}", tlvs[2])
            self.assertEqual(session.errors, [])
            await session.leave()
        self.run_async(body())

    def test_every_data_coding(self):
        async def body():
            session = await Session.bound(self.server)
            for coding, text, encoding in ((DataCoding.McSpecific(), "plain", "ascii"), (DataCoding.Ia5(), "IA5", "ascii"),
                                           (DataCoding.Latin1(), "caf\u00e9", "latin-1"),
                                           (DataCoding.Ucs2(), "\u4f60\u597d", "utf-16-be")):
                await session.submit(message=f"reply {text}".encode(encoding), data_coding=coding)
                pdu = await session.until(lambda pdu: bytes(pdu.short_message) == text.encode(encoding))
                self.assertIn("message_type: Default", repr(pdu.esm_class))
            with self.assertRaisesRegex(UnexpectedResponseException, "status: EsmeRinvdcs"):
                await session.submit(data_coding=DataCoding.Jis())
            await session.leave()
        self.run_async(body())

    def test_long_messages(self):
        async def body():
            session = await Session.bound(self.server)
            udhi = EsmClass(gsm_features=GsmFeatures.UdhiIndicator())
            parts = [bytes([5, 0, 3, 9, 2, number]) + b"part %d " % number * 10 for number in (1, 2)]
            ids = [await session.submit(message=part, esm_class=udhi) for part in parts]
            payload = MessageSubmissionRequestTlvValue.MessagePayload(MessagePayload(b"rusmpp payload " * 200))
            ids.append(await session.submit(message=b"", tlvs=[payload]))
            self.assertEqual(len(set(ids)), 3)
            for message_id in ids:
                pdu = await session.receipt(message_id)
                self.assert_receipt(bytes(pdu.short_message), id=message_id, stat="DELIVRD")
            await session.leave()
        self.run_async(body())

    def test_refusals_by_name(self):
        async def body():
            session = await Session.bound(self.server)
            for status, fields in (("EsmeRinvdstadr", dict(destination="nonsense")), ("EsmeRinvsrcadr", dict(source_addr="4912345")),
                                   ("EsmeRinvmsglen", dict(message=b"x" * 161)), ("EsmeRinvprtflg", dict(priority_flag=9))):
                with self.assertRaisesRegex(UnexpectedResponseException, f"status: {status}"):
                    await session.submit(**fields)
            await session.leave()
        self.run_async(body())

    def test_pipeline_and_keep_alive(self):
        async def body():
            session = await Session.bound(self.server)
            ids = await asyncio.gather(*(session.submit() for _ in range(200)))
            self.assertEqual(len(set(ids)), 200)
            for message_id in ids:
                await session.receipt(message_id)
            await asyncio.sleep(3)  # the client asks with enquire_link every second and closes if unanswered
            await session.submit()
            self.assertEqual(session.errors, [])
            await session.leave()
            with self.assertRaises(ConnectionClosedException):
                await session.submit()
        self.run_async(body())


if __name__ == "__main__":
    harness.main()
