// node `smpp` (v5.0) as the customer. Arguments: the URL (ssmpp:// for TLS), the accounts' numbers, parts of test names.
'use strict';

const assert = require('node:assert/strict');
const smpp = require('smpp');

const [url, numbers, ...only] = process.argv.slice(2);
const NUMBERS = JSON.parse(numbers); // by system_id
const NUMBER = NUMBERS.test;
const RECEIPT = /^id:([1-9][0-9]{0,18}) sub:([0-9]{3}) dlvrd:([0-9]{3}) submit date:([0-9]{10}) done date:([0-9]{10}) stat:([A-Z]{5,7}) err:([0-9]{3}) text:([ -~]{0,20})$/;
const MESSAGE_ID = /^[1-9][0-9]{0,18}$/;

const tests = [];
const test = (name, body) => tests.push({ name, body });
const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** Wait until `found` returns something; a failure after `seconds`. */
async function until(found, what, seconds = 15) {
    for (const deadline = Date.now() + seconds * 1000; Date.now() < deadline; await sleep(10)) {
        const result = found();
        if (result) return result;
    }
    assert.fail(`timed out waiting for ${what}`);
}

/** A session that remembers what was delivered and answers it. */
class Esme {
    static open = [];

    static async connect() {
        const esme = new Esme();
        Esme.open.push(esme);
        esme.delivered = [];
        esme.number = NUMBER;
        esme.session = smpp.connect({ url, rejectUnauthorized: false });
        esme.session.on('error', (error) => { esme.error = error; });
        esme.session.on('close', () => { esme.closed = true; });
        esme.session.on('deliver_sm', (pdu) => {
            esme.delivered.push(pdu);
            esme.session.send(pdu.response());
        });
        esme.session.on('enquire_link', (pdu) => esme.session.send(pdu.response()));
        const ready = url.startsWith('ssmpp:') ? 'secureConnect' : 'connect';
        await new Promise((resolve, reject) => esme.session.once(ready, resolve).once('error', reject));
        return esme;
    }

    static async bound(mode = 'transceiver', fields = {}) {
        const esme = await Esme.connect();
        const response = await esme.bind(mode, fields);
        assert.equal(response.command_status, 0, `bind_${mode}`);
        return Object.assign(esme, { bindResponse: response });
    }

    bind(mode = 'transceiver', fields = {}) {
        this.number = NUMBERS[fields.system_id || 'test'];
        return this.request(`bind_${mode}`, { system_id: 'test', password: 'secret', ...fields });
    }

    /** Send a request; its response. */
    request(command, fields = {}) {
        return new Promise((resolve, reject) => {
            const timer = setTimeout(() => reject(new Error(`no answer to ${command}`)), 10000);
            this.session.send(new smpp.PDU(command, fields), (pdu) => { clearTimeout(timer); resolve(pdu); });
        });
    }

    submit(destination_addr, message, fields = {}) {
        return this.request('submit_sm', {
            ...this.source(), dest_addr_ton: 1, dest_addr_npi: 1, destination_addr,
            registered_delivery: 1, short_message: message, ...fields,
        });
    }

    async submitted(destination_addr, message = 'hello', fields = {}) {
        const response = await this.submit(destination_addr, message, fields);
        assert.equal(response.command_status, 0, `submit_sm to ${destination_addr}`);
        assert.match(response.message_id, MESSAGE_ID);
        return response.message_id;
    }

    receipts(message_id, esm_class = 0x04) {
        return this.delivered.filter((pdu) => pdu.esm_class === esm_class && pdu.receipted_message_id === message_id);
    }

    async receipt(message_id, wanted = {}, esm_class = 0x04) {
        const pdu = await until(() => this.receipts(message_id, esm_class)[0], `the receipt of ${message_id}`);
        return { pdu, ...checkReceipt(pdu, { id: message_id, ...wanted }) };
    }

    /** The MO message with this text. */
    reply(text) {
        return until(() => this.delivered.find((pdu) => pdu.esm_class === 0 && pdu.short_message.message === text), `MO "${text}"`);
    }

    source() {
        return { source_addr_ton: 1, source_addr_npi: 1, source_addr: this.number };
    }

    async query(message_id) {
        return this.request('query_sm', { message_id, ...this.source() });
    }

    async cancel(message_id) {
        return this.request('cancel_sm', { message_id, ...this.source() });
    }
}

function checkReceipt(pdu, wanted) {
    const match = RECEIPT.exec(pdu.short_message.message);
    assert.ok(match, `not a canonical receipt: ${pdu.short_message.message}`);
    const [, id, sub, dlvrd, submitted, done, stat, err, text] = match;
    const found = { id, sub, dlvrd, submitted, done, stat, err, text };
    for (const name of Object.keys(wanted)) assert.equal(found[name], wanted[name], `${name} of the receipt`);
    return found;
}

const segments = (text, size, reference) => {
    const total = Math.ceil(text.length / size);
    return Array.from({ length: total }, (_, index) => ({
        udh: Buffer.from([5, 0, 3, reference, total, index + 1]),
        message: text.slice(index * size, (index + 1) * size),
    }));
};

test('binds in all three modes', async () => {
    for (const mode of ['transmitter', 'receiver', 'transceiver']) {
        const { session, bindResponse } = await Esme.bound(mode);
        assert.equal(bindResponse.command, `bind_${mode}_resp`);
        assert.match(bindResponse.system_id, /^[!-~]{1,15}$/);
        assert.equal(bindResponse.sc_interface_version, 0x50);
        session.close();
    }
});

test('refuses a wrong password and an unknown system_id alike', async () => {
    const esme = await Esme.connect();
    for (const fields of [{ password: 'wrong' }, { system_id: 'nobody' }]) {
        const response = await esme.bind('transceiver', fields);
        assert.deepEqual([response.command, response.command_status, response.command_length], ['bind_transceiver_resp', 0x0D, 16]);
    }
    assert.equal((await esme.bind()).command_status, 0);
});

test('answers enquire_link before and after the bind', async () => {
    const esme = await Esme.connect();
    assert.equal((await esme.request('enquire_link')).command, 'enquire_link_resp');
    await esme.bind();
    assert.equal((await esme.request('enquire_link')).command_status, 0);
});

test('refuses what the session state does not allow', async () => {
    const open = await Esme.connect();
    assert.equal((await open.submit('12125551234', 'too early')).command_status, 0x04);
    const receiver = await Esme.bound('receiver');
    assert.equal((await receiver.submit('12125551234', 'wrong bind')).command_status, 0x04);
    assert.equal((await receiver.query('1')).command_status, 0x04);
    const again = await receiver.bind('transceiver');
    assert.deepEqual([again.command, again.command_status], ['bind_transceiver_resp', 0x05]);
    assert.equal((await receiver.request('enquire_link')).command_status, 0);
});

test('speaks v3.3 without TLVs', async () => {
    for (const interface_version of [0x00, 0x33]) {
        const esme = await Esme.bound('transceiver', { interface_version });
        assert.equal(esme.bindResponse.sc_interface_version, undefined);
        const response = await esme.submit('12125551234', 'old client');
        assert.equal(response.command_status, 0);
        const pdu = await until(() => esme.delivered.find((pdu) => pdu.short_message.message.startsWith(`id:${response.message_id} `)), 'the receipt');
        checkReceipt(pdu, { id: response.message_id, stat: 'DELIVRD' });
        for (const name of ['receipted_message_id', 'message_state', 'network_error_code']) assert.equal(pdu[name], undefined);
        esme.session.close();
    }
});

test('carries every data_coding there and back', async () => {
    const esme = await Esme.bound();
    for (const [data_coding, text] of [[0, 'plain'], [1, 'IA5'], [3, 'café ñandú'], [8, 'Привет 你好 👋']]) {
        const message_id = await esme.submitted('12125551234', `reply ${text}`, { data_coding });
        await esme.receipt(message_id, { stat: 'DELIVRD' });
        const mo = await esme.reply(text);
        assert.deepEqual([mo.source_addr, mo.destination_addr, mo.receipted_message_id], ['12125551234', NUMBER, undefined]);
    }
});

test('carries the GSM default alphabet when the account says so', async () => {
    const esme = await Esme.bound('transceiver', { system_id: 'gsm' });
    const text = '@£$ Öl für 5€ [x]';
    await esme.submitted('12125551234', `reply ${text}`, { data_coding: 0 });
    await esme.reply(text);
});

test('refuses other data_codings with the v5 status', async () => {
    const esme = await Esme.bound();
    for (const data_coding of [2, 4, 5, 6, 7, 9, 10, 11, 13, 14]) {
        const response = await esme.submit('12125551234', Buffer.from('abcd'), { data_coding });
        assert.equal(response.command_status, 0x104, `data_coding ${data_coding}`);
    }
    const old = await Esme.bound('transceiver', { interface_version: 0x34 });
    assert.equal((await old.submit('12125551234', Buffer.from('abcd'), { data_coding: 4 })).command_status, 0x45);
});

test('takes binary when the account may', async () => {
    const esme = await Esme.bound('transceiver', { system_id: 'octets' });
    for (const data_coding of [2, 4]) {
        const message_id = await esme.submitted('12125551234', Buffer.from([0, 1, 2, 254, 255]), { data_coding });
        await esme.receipt(message_id, { stat: 'DELIVRD' });
    }
});

test('takes long messages in UDH segments', async () => {
    const esme = await Esme.bound();
    for (const [text, size, data_coding] of [['x'.repeat(400), 153, 1], ['Ж'.repeat(150), 67, 8]]) {
        const ids = [];
        for (const short_message of segments(text, size, 42)) {
            ids.push(await esme.submitted('12125551234', short_message, { data_coding, esm_class: 0x40 }));
        }
        assert.equal(new Set(ids).size, 3);
        for (const id of ids) await esme.receipt(id, { sub: '001', dlvrd: '001', stat: 'DELIVRD' });
    }
});

test('takes long messages in SAR segments', async () => {
    const esme = await Esme.bound();
    const parts = segments('s'.repeat(300), 153, 0).map((part) => part.message);
    for (const [index, part] of parts.entries()) {
        const id = await esme.submitted('12125551234', part, {
            data_coding: 1, sar_msg_ref_num: 0x1234, sar_total_segments: parts.length, sar_segment_seqnum: index + 1,
        });
        await esme.receipt(id, { stat: 'DELIVRD' });
    }
});

test('takes long messages in message_payload', async () => {
    const esme = await Esme.bound();
    const id = await esme.submitted('12125551234', '', { data_coding: 1, message_payload: { message: 'payload '.repeat(200) } });
    const { sub, dlvrd } = await esme.receipt(id, { stat: 'DELIVRD', text: 'payload payload payl' });
    assert.equal(sub, dlvrd);
});

test('refuses a short_message over the segment limit', async () => {
    const esme = await Esme.bound();
    assert.equal((await esme.submit('12125551234', 'x'.repeat(161), { data_coding: 1 })).command_status, 0x01);
    assert.equal((await esme.submit('12125551234', 'Ж'.repeat(71), { data_coding: 8 })).command_status, 0x01);
    await esme.submitted('12125551234', 'x'.repeat(160), { data_coding: 1 });
    await esme.submitted('12125551234', 'Ж'.repeat(70), { data_coding: 8 });
});

test('sends receipts for every outcome', async () => {
    const esme = await Esme.bound();
    const outcomes = [['9992', 'DELIVRD', 2], ['9993', 'EXPIRED', 3], ['9994', 'DELETED', 4], ['9995', 'UNDELIV', 5],
        ['9996', 'DELIVRD', 2], ['9997', 'UNKNOWN', 7], ['9998', 'REJECTD', 8]];
    await Promise.all(outcomes.map(async ([prefix, stat, state]) => {
        const destination = `${prefix}2345551`;
        const id = await esme.submitted(destination, 'the first twenty characters', { user_message_reference: 4711 });
        const { pdu } = await esme.receipt(id, { sub: '001', stat, err: state === 2 ? '000' : '234', text: 'the first twenty cha', dlvrd: state === 2 ? '001' : '000' });
        assert.deepEqual([pdu.source_addr, pdu.destination_addr], [destination, NUMBER]);
        assert.deepEqual([pdu.source_addr_ton, pdu.source_addr_npi, pdu.dest_addr_ton, pdu.dest_addr_npi], [1, 1, 1, 1]);
        assert.equal(pdu.message_state, state);
        if (state !== 2) assert.equal(Buffer.from(pdu.network_error_code).readUInt16BE(1), 234);
        assert.equal(pdu.user_message_reference, 4711);
        assert.equal(pdu.data_coding, 0);
    }));
    await sleep(500);
    const counts = new Map();
    for (const { receipted_message_id: id } of esme.delivered) counts.set(id, (counts.get(id) || 0) + 1);
    assert.ok([...counts.values()].every((count) => count === 1), 'one receipt each');
});

test('sends intermediate notifications on request', async () => {
    const esme = await Esme.bound();
    const id = await esme.submitted('99960005551', 'accepted first', { registered_delivery: 0x11 });
    await esme.receipt(id, { stat: 'DELIVRD' });
    const { stat, pdu } = await esme.receipt(id, { dlvrd: '000' }, 0x20);
    assert.deepEqual({ ENROUTE: 1, ACCEPTD: 6 }[stat], pdu.message_state);
});

test('answers a full pipeline', async () => {
    const esme = await Esme.bound();
    const ids = await Promise.all(Array.from({ length: 300 }, (_, number) => esme.submitted(`1212555${1000 + number}`, `number ${number}`)));
    assert.equal(new Set(ids).size, 300);
    await Promise.all(ids.map((id) => esme.receipt(id, { stat: 'DELIVRD' })));
});

test('queries, cancels and tells of it', async () => {
    const esme = await Esme.bound();
    const id = await esme.submitted('99990005551', 'never answered');
    const enroute = await esme.query(id);
    assert.deepEqual([enroute.command_status, enroute.message_id, enroute.message_state, enroute.final_date], [0, id, 1, '']);
    assert.equal((await esme.cancel(id)).command_status, 0);
    const { pdu } = await esme.receipt(id, { stat: 'DELETED', dlvrd: '000' });
    assert.equal(pdu.message_state, 4);
    const deleted = await esme.query(id);
    assert.deepEqual([deleted.command_status, deleted.message_state], [0, 4]);
    assert.ok(Math.abs(Date.now() - deleted.final_date) < 60000, `final_date ${deleted.final_date}`);
    assert.equal((await esme.cancel(id)).command_status, 0x11);
});

test('refuses to cancel what is final, unknown or not mine', async () => {
    const [esme, other] = [await Esme.bound(), await Esme.bound('transceiver', { system_id: 'other' })];
    const id = await esme.submitted('12125551234');
    await esme.receipt(id);
    assert.equal((await esme.cancel(id)).command_status, 0x11);
    assert.equal((await esme.cancel('nosuchid')).command_status, 0x0C);
    assert.equal((await other.cancel(id)).command_status, 0x0C);
    assert.equal((await other.query(id)).command_status, 0x0C);
});

test('remembers what is over when it has left memory', async () => {
    const [esme, other] = [await Esme.bound(), await Esme.bound('transceiver', { system_id: 'other' })];
    const id = await esme.submitted('99950345551');
    await esme.receipt(id);
    const facts = ({ command_status, message_id, message_state, error_code, final_date }) =>
        [command_status, message_id, message_state, error_code, String(final_date)];
    const fresh = facts(await esme.query(id));
    assert.deepEqual(fresh.slice(0, 4), [0, id, 5, 34]);
    await sleep(3000);
    assert.deepEqual(facts(await esme.query(id)), fresh);
    assert.equal((await other.query(id)).command_status, 0x0C);
    assert.equal((await other.cancel(id)).command_status, 0x0C);
    assert.equal((await esme.cancel(id)).command_status, 0x11);
    assert.equal((await esme.request('replace_sm', { message_id: id, ...esme.source(), short_message: 'late' })).command_status, 0x13);
});

test('replaces a scheduled message', async () => {
    const esme = await Esme.bound();
    const id = await esme.submitted('12125551234', 'first text', { schedule_delivery_time: '000001000000000R' });
    assert.deepEqual([(await esme.query(id)).message_state], [0]);
    const replacement = { message_id: id, ...esme.source(), short_message: 'second text', registered_delivery: 1 };
    assert.equal((await esme.request('replace_sm', replacement)).command_status, 0);
    assert.equal((await esme.cancel(id)).command_status, 0);
    await esme.receipt(id, { stat: 'DELETED', text: 'second text' });
    assert.equal((await esme.request('replace_sm', replacement)).command_status, 0x13);
    assert.equal((await esme.request('replace_sm', { ...replacement, message_id: 'nosuchid' })).command_status, 0x0C);
});

test('delivers at the scheduled time', async () => {
    const esme = await Esme.bound();
    const id = await esme.submitted('12125551234', 'in two seconds', { schedule_delivery_time: '000000000002000R' });
    await sleep(1000);
    assert.equal(esme.receipts(id).length, 0);
    await esme.receipt(id, { stat: 'DELIVRD' });
});

test('submits to many and names the bad ones', async () => {
    const esme = await Esme.bound();
    const dest = (destination_addr) => ({ dest_addr_ton: 1, dest_addr_npi: 1, destination_addr });
    const good = ['12125550201', '12125550202', '99950035551'];
    const response = await esme.request('submit_multi', {
        ...esme.source(), dest_address: [...good, 'nonsense'].map(dest), short_message: 'to many', registered_delivery: 1, data_coding: 1,
    });
    assert.equal(response.command_status, 0);
    assert.match(response.message_id, MESSAGE_ID);
    assert.deepEqual(response.unsuccess_sme.map((one) => [one.destination_addr, one.error_status_code]), [['nonsense', 0x0B]]);
    for (const number of good) {
        const pdu = await until(() => esme.delivered.find((pdu) => pdu.esm_class === 4 && pdu.source_addr === number), number);
        checkReceipt(pdu, { stat: number.startsWith('9995') ? 'UNDELIV' : 'DELIVRD', text: 'to many' });
    }
});

test('takes data_sm', async () => {
    const esme = await Esme.bound();
    const response = await esme.request('data_sm', {
        ...esme.source(), dest_addr_ton: 1, dest_addr_npi: 1, destination_addr: '12125551234', registered_delivery: 1, data_coding: 1,
        message_payload: { message: 'by data sm' },
    });
    assert.deepEqual([response.command, response.command_status], ['data_sm_resp', 0]);
    assert.match(response.message_id, MESSAGE_ID);
    await esme.receipt(response.message_id, { stat: 'DELIVRD', text: 'by data sm' });
});

test('refuses broadcast cleanly', async () => {
    const esme = await Esme.bound();
    for (const command of ['query_broadcast_sm', 'cancel_broadcast_sm']) {
        const response = await esme.request(command, { message_id: '1', ...esme.source() });
        assert.ok(['generic_nack', `${command}_resp`].includes(response.command));
        assert.ok([0x03, 0x101].includes(response.command_status), `status ${response.command_status}`);
    }
    assert.equal((await esme.request('enquire_link')).command_status, 0);
});

test('refuses bad times and flags by number', async () => {
    const esme = await Esme.bound();
    for (const [status, fields] of [
        [0x06, { priority_flag: 9 }], [0x54, { replace_if_present_flag: 7 }], [0x63, { sm_default_msg_id: 3 }],
        [0x0B, { destination_addr: '' }], [0x0A, { source_addr: '4930999999' }], [0x48, { source_addr_ton: 12 }],
    ]) {
        const response = await esme.submit('12125551234', 'hello', fields);
        assert.deepEqual([response.command, response.command_status], ['submit_sm_resp', status], JSON.stringify(fields));
    }
});

test('throttles and recovers', async () => {
    const esme = await Esme.bound('transceiver', { system_id: 'slow' });
    const responses = await Promise.all(Array.from({ length: 40 }, () => esme.submit('12125551234', 'fast')));
    const accepted = responses.filter((pdu) => pdu.command_status === 0).length;
    assert.ok(responses.every((pdu) => [0, 0x58].includes(pdu.command_status)));
    assert.ok(accepted >= 10 && accepted <= 15, `${accepted} of 40 accepted with burst 10, rate 10`);
    await sleep(500);
    await esme.submitted('12125551234', 'slowly');
});

test('keeps the bind limit', async () => {
    const pair = { system_id: 'pair' };
    const first = await Esme.bound('transceiver', pair);
    await Esme.bound('transmitter', pair);
    const third = await Esme.connect();
    assert.equal((await third.bind('receiver', pair)).command_status, 0x0D);
    await first.request('unbind');
    await until(() => first.closed, 'the close');
    assert.equal((await third.bind('receiver', pair)).command_status, 0);
});

test('shares receipts among receivers and loses none', async () => {
    const receivers = [await Esme.bound('receiver', { system_id: 'other' }), await Esme.bound('receiver', { system_id: 'other' })];
    const transmitter = await Esme.bound('transmitter', { system_id: 'other' });
    const ids = await Promise.all(Array.from({ length: 50 }, () => transmitter.submitted('12125551234', 'shared')));
    const arrived = () => receivers.flatMap((esme) => esme.delivered.map((pdu) => pdu.receipted_message_id));
    await until(() => arrived().length >= ids.length, 'all receipts');
    assert.deepEqual(arrived().sort(), [...ids].sort());
    assert.equal(transmitter.delivered.length, 0);
});

test('unbinds and closes', async () => {
    const esme = await Esme.bound();
    assert.deepEqual([(await esme.request('unbind')).command], ['unbind_resp']);
    await until(() => esme.closed, 'the close', 5);
});

(async () => {
    let [passed, failed] = [0, 0];
    for (const { name, body } of tests.filter((one) => !only.length || only.some((part) => one.name.includes(part)))) {
        try {
            await body();
            passed += 1;
            console.log(`ok    ${name}`);
        } catch (error) {
            failed += 1;
            console.log(`FAIL  ${name}\n      ${String(error.stack).replaceAll('\n', '\n      ')}`);
        }
        // Leave as a good customer: unbind, so that nothing is left in flight for the next test.
        await Promise.all(Esme.open.splice(0).map(async (esme) => {
            if (!esme.closed) await Promise.race([esme.request('unbind').catch(() => {}), sleep(500)]);
            esme.session.destroy();
        }));
    }
    console.log(`${passed} passed, ${failed} failed`);
    process.exit(failed || !passed ? 1 : 0);
})();
