// node `smpp` as a message centre that knows nobody and takes everything. Arguments: the port, and how it lies, if it does:
// each hundredth message gets the id before it (`id-again`), or its receipt twice (`receipt-again`) or never (`receipt-lost`).
'use strict';

const smpp = require('smpp');

const [port, lie] = process.argv.slice(2);
let messages = 0;

const receipt = (id, submit) => new smpp.PDU('deliver_sm', {
    source_addr_ton: submit.dest_addr_ton, source_addr_npi: submit.dest_addr_npi, source_addr: submit.destination_addr,
    dest_addr_ton: submit.source_addr_ton, dest_addr_npi: submit.source_addr_npi, destination_addr: submit.source_addr,
    esm_class: 0x04, receipted_message_id: id, message_state: 2,
    short_message: `id:${id} sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:DELIVRD err:000 text:`,
});

smpp.createServer((session) => {
    const answer = (pdu, fields, then) => session.send(pdu.response(fields), then);
    for (const mode of ['transceiver', 'transmitter', 'receiver']) {
        session.on(`bind_${mode}`, (pdu) => answer(pdu, { system_id: 'node' }));
    }
    session.on('submit_sm', (submit) => {
        messages += 1;
        const isHundredth = messages % 100 === 0;
        const id = `node-${isHundredth && lie === 'id-again' ? messages - 1 : messages}`;
        answer(submit, { message_id: id });
        if (!(submit.registered_delivery & 3) || (isHundredth && lie === 'receipt-lost')) return;
        setTimeout(() => {
            for (let times = isHundredth && lie === 'receipt-again' ? 2 : 1; times > 0; times -= 1) session.send(receipt(id, submit));
        }, 5);
    });
    session.on('enquire_link', (pdu) => answer(pdu));
    session.on('unbind', (pdu) => answer(pdu, {}, () => session.close()));
    session.on('error', () => session.destroy());
}).listen(Number(port), '127.0.0.1');
