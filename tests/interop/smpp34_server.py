"""smpp34 (tokio behind Python, v3.4) as a message centre that knows nobody and takes everything. Argument: the port."""

import asyncio
import sys

import smpp34


async def main(port):
    server = smpp34.Server(host="127.0.0.1", port=port, system_id="smpp34")
    await server.start()
    sessions, receipts = {}, set()
    messages = 0
    while True:
        event = await server.next()
        if isinstance(event, smpp34.Esme):
            sessions[event.session_id] = event
        elif isinstance(event, smpp34.SubmitSmEvent):
            messages += 1
            event.accept(f"smpp34-{messages}")
            if event.registered_delivery & 3:
                receipt = asyncio.create_task(send_receipt(sessions[event.session_id], event, f"smpp34-{messages}"))
                receipts.add(receipt)
                receipt.add_done_callback(receipts.discard)
        elif isinstance(event, smpp34.Unbound):
            sessions.pop(event.session_id, None)


async def send_receipt(esme, submit, message_id):
    # Its responses and what it delivers do not wait for one another.
    await asyncio.sleep(0.05)
    text = f"id:{message_id} sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:DELIVRD err:000 text:"
    await esme.deliver_sm(destination_addr=submit.source_addr, source_addr=submit.destination_addr, esm_class=0x04,
                          short_message=text.encode())


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
