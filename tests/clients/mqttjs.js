// mqtt.js (Debian's node-mqtt) against the broker. usage: mqttjs.js HOST PORT [PROTOCOL_VERSION]
// Ends with 0 when everything came back as it was sent.
'use strict';
const assert = require('assert');
const mqtt = require('mqtt');
const [host, port, level] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4] || 4)];

const giveUp = setTimeout(() => { console.error('nothing for 30 s'); process.exit(2); }, 30000);
const once = (emitter, name) => new Promise((resolve, reject) => {
  emitter.once(name, (...values) => resolve(values));
  emitter.once('error', reject);
});
const call = (client, method, ...values) => new Promise((resolve, reject) =>
  client[method](...values, (error, result) => (error ? reject(error) : resolve(result))));

async function connect(clientId, more) {
  const client = mqtt.connect({ host, port, clientId, protocolVersion: level, reconnectPeriod: 0, ...more });
  const [connack] = await once(client, 'connect');
  return [client, connack];
}

// The next messages of a client, in order.
function inbox(client) {
  const waiting = [], arrived = [];
  client.on('message', (topic, payload, packet) => {
    const message = { topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, packet };
    if (waiting.length) waiting.shift()(message); else arrived.push(message);
  });
  return () => (arrived.length ? Promise.resolve(arrived.shift()) : new Promise((go) => waiting.push(go)));
}

async function main() {
  const persistent = { clean: false, properties: level === 5 ? { sessionExpiryInterval: 600 } : undefined };
  let [device] = await connect('js-device', { ...persistent,
    will: { topic: 'js/will', payload: 'gone', qos: 1, retain: false } });
  let next = inbox(device);
  const granted = await call(device, 'subscribe', { 'js/+/x': { qos: 2 }, 'js/kept': { qos: 1 } });
  assert.deepStrictEqual(granted.map((one) => one.qos), [2, 1]);

  const [other] = await connect('js-other', {});
  for (const qos of [0, 1, 2]) {
    for (let number = 0; number < 20; number += 1) {
      const topic = `js/${qos}/x`;
      await call(other, 'publish', topic, `message ${number}`, { qos });
      const message = await next();
      assert.deepStrictEqual([message.topic, message.payload, message.qos], [topic, `message ${number}`, qos]);
    }
  }

  await call(other, 'publish', 'js/kept', 'retained', { qos: 1, retain: true });
  assert.strictEqual((await next()).retain, false);
  const [late] = await connect('js-late', {});
  const lateNext = inbox(late);
  await call(late, 'subscribe', 'js/kept', { qos: 1 });
  const kept = await lateNext();
  assert.deepStrictEqual([kept.payload, kept.retain], ['retained', true]);
  await call(other, 'publish', 'js/kept', '', { qos: 1, retain: true });
  assert.strictEqual((await next()).payload, '');
  assert.strictEqual((await lateNext()).payload, '');

  // What comes while the device is away, and its will.
  await call(late, 'subscribe', 'js/will', { qos: 1 });
  device.stream.destroy();
  assert.strictEqual((await lateNext()).payload, 'gone');
  for (const qos of [1, 2]) await call(other, 'publish', 'js/away/x', `at ${qos}`, { qos });
  const again = mqtt.connect({ host, port, clientId: 'js-device', protocolVersion: level, reconnectPeriod: 0,
    ...persistent });
  next = inbox(again);
  const [connack] = await once(again, 'connect');
  assert.strictEqual(connack.sessionPresent, true);
  assert.strictEqual((await next()).payload, 'at 1');
  assert.strictEqual((await next()).payload, 'at 2');

  await call(again, 'unsubscribe', 'js/+/x');
  for (const client of [again, other, late]) await call(client, 'end', false);
  clearTimeout(giveUp);
  console.log('mqtt.js: all as it was sent');
}

main().catch((error) => { console.error(error); process.exit(1); });
