#!/usr/bin/python3
"""The cases of Eclipse Paho's interoperability suites, by their names, with paho-mqtt as the client.

The suites (eclipse/paho.mqtt.testing, client_test.py for 3.1.1 and client_test5.py for 5) bring their own
client and want a broker on port 1883. These are their cases written anew: the same steps and the same
expectations. usage: paho_interop.py HOST PORT [3|5 CASE]. Prints a line a case, ends with 1 if one failed.
"""

import itertools
import queue
import socket
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

TOPICS = ["TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"]
WILDCARDS = ["TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"]
PATIENCE_S = 20
# Connections of the case that runs; whatever it left open ends with it.
ALL = []
FENCES = itertools.count()


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """One connection at a time, in steps that wait for their answers."""

    def __init__(self, level, client_id):
        self.level = level
        protocol = mqtt.MQTTv5 if level == 5 else mqtt.MQTTv311
        more = {} if level == 5 else {"clean_session": True}
        self.paho = mqtt.Client(client_id, protocol=protocol, reconnect_on_failure=False, **more)
        ALL.append(self)
        self.messages = queue.Queue()
        self.events = queue.Queue()
        self.paho.on_message = lambda _c, _u, message: self.messages.put(message)
        self.paho.on_connect = lambda _c, _u, flags, code, props=None: self.events.put(
            ("connected", flags, getattr(code, "value", code), props))
        self.paho.on_disconnect = lambda _c, _u, code, props=None: self.events.put(
            ("disconnected", getattr(code, "value", code)))
        self.paho.on_subscribe = lambda _c, _u, mid, codes, props=None: self.events.put(
            ("subscribed", [getattr(code, "value", code) for code in codes]))
        self.paho.on_unsubscribe = lambda *_: self.events.put(("unsubscribed",))

    def expect(self, name):
        while True:
            event = self.events.get(timeout=PATIENCE_S)
            if event[0] == name:
                return event
            if event[0] == "disconnected":
                raise AssertionError(f"{event} while waiting for {name}")

    def connect(self, clean=True, keepalive=60, will=None, expiry=None, more=None, will_delay=None):
        """Returns session present and the properties of CONNACK."""
        while not self.events.empty():
            self.events.get()
        if will is not None:
            topic, payload, qos, retain = will
            if self.level == 5:
                about = properties(PacketTypes.WILLMESSAGE)
                if will_delay is not None:
                    about.WillDelayInterval = will_delay
                self.paho.will_set(topic, payload, qos, retain, about)
            else:
                self.paho.will_set(topic, payload, qos, retain)
        if self.level == 5:
            about = properties(PacketTypes.CONNECT, **(more or {}))
            if expiry is not None:
                about.SessionExpiryInterval = expiry
            self.paho.connect(HOST, PORT, keepalive, clean_start=clean, properties=about)
        else:
            self.paho._clean_session = clean
            self.paho.connect(HOST, PORT, keepalive)
        self.paho.loop_start()
        _, flags, code, props = self.expect("connected")
        assert code == 0, f"refused with {code}"
        return flags["session present"] == 1, props

    def disconnect(self, expiry=None):
        if expiry is None:
            self.paho.disconnect()
        else:
            about = properties(PacketTypes.DISCONNECT, SessionExpiryInterval=expiry)
            self.paho.disconnect(properties=about)
        self.expect("disconnected")
        self.paho.loop_stop()

    def terminate(self):
        """The socket goes without DISCONNECT."""
        self.paho.loop_stop()
        self.paho._sock_close()
        while not self.events.empty():
            self.events.get()

    def close(self):
        self.paho.loop_stop()
        self.paho._sock_close()

    def subscribe(self, *filters, **more):
        if self.level == 5:
            identifier = more.pop("identifier", None)
            about = properties(PacketTypes.SUBSCRIBE)
            if identifier is not None:
                about.SubscriptionIdentifier = identifier
            wanted = [(name, SubscribeOptions(qos, **more)) for name, qos in filters]
            self.paho.subscribe(wanted, properties=about)
        else:
            self.paho.subscribe(list(filters))
        return self.expect("subscribed")[1]

    def unsubscribe(self, *filters):
        self.paho.unsubscribe(list(filters))
        self.expect("unsubscribed")

    def publish(self, topic, payload, qos=0, retain=False, **values):
        about = properties(PacketTypes.PUBLISH, **values) if self.level == 5 else None
        info = self.paho.publish(topic, payload, qos, retain, about)
        info.wait_for_publish(PATIENCE_S)
        assert info.is_published(), f"{payload} was not acknowledged"

    def take(self, count):
        """So many messages, in whatever order."""
        return [self.messages.get(timeout=PATIENCE_S) for _ in range(count)]

    def take_until_fence(self, publisher):
        """What has come, and nothing more will: a last message to a topic of its own."""
        fence = f"fence/{next(FENCES)}"
        self.subscribe((fence, 1))
        publisher.publish(fence, b"", 1)
        found = []
        while True:
            message = self.messages.get(timeout=PATIENCE_S)
            if message.topic == fence:
                return found
            if not message.topic.startswith("fence/"):
                found.append(message)


def remove_retained(level):
    client = Client(level, "clean retained")
    client.connect()
    client.subscribe(("#", 0))
    for message in client.take_until_fence(client):
        client.publish(message.topic, b"", 1, retain=True)
    client.disconnect()


def qos_of(messages):
    return sorted(message.qos for message in messages)


# What both suites have.

def test_basic(level):
    a = Client(level, "myclientid")
    a.connect()
    a.disconnect()
    a.connect()
    a.subscribe((TOPICS[0], 2))
    for qos in range(3):
        a.publish(TOPICS[0], f"qos {qos}".encode(), qos)
    assert qos_of(a.take(3)) == [0, 1, 2]
    a.disconnect()
    # A second CONNECT on one socket, and another protocol name: both fail.
    again = Raw(level, "raw")
    again.send(connect_packet(level, "raw"))
    again.is_closed()
    other = Raw(level)
    other.send(connect_packet(level, "raw", name=b"hj"))
    other.is_closed()


def test_retained_message(level):
    a = Client(level, "myclientid")
    a.connect()
    more = {"UserProperty": [("a", "2"), ("c", "3")]} if level == 5 else {}
    for qos in range(3):
        a.publish(TOPICS[1 + qos], f"qos {qos}".encode(), qos, retain=True, **more)
    a.subscribe((WILDCARDS[5], 2))
    found = a.take(3)
    assert qos_of(found) == [0, 1, 2] and all(message.retain for message in found)
    if level == 5:
        for message in found:
            assert message.properties.UserProperty == [("a", "2"), ("c", "3")]
    for qos in range(3):
        a.publish(TOPICS[1 + qos], b"", qos, retain=True)
    a.disconnect()
    b = Client(level, "myclientid2")
    b.connect()
    b.subscribe((WILDCARDS[5], 2))
    assert b.take_until_fence(b) == []
    b.disconnect()


def test_will_message(level):
    a, b = Client(level, "myclientid"), Client(level, "myclientid2")
    a.connect(keepalive=2, will=(TOPICS[2], b"client not disconnected", 0, False))
    b.connect(clean=False)
    b.subscribe((TOPICS[2], 2))
    a.terminate()
    assert b.take(1)[0].payload == b"client not disconnected"
    b.disconnect()


def test_zero_length_clientid(level):
    if level == 3:
        refused = Raw(level)
        refused.send(connect_packet(level, "", clean=False))
        assert refused.packet() == b"\x20\x02\x00\x02"
        refused.is_closed()
    accepted = Raw(level)
    accepted.send(connect_packet(level, ""))
    assert accepted.packet()[3] == 0


def test_offline_message_queueing(level):
    a, b = Client(level, "myclientid"), Client(level, "myclientid2")
    a.connect(clean=True, expiry=99999) if level == 5 else a.connect(clean=False)
    a.subscribe((WILDCARDS[5], 2))
    a.disconnect()
    b.connect()
    for qos in range(3):
        b.publish(TOPICS[1 + qos], f"qos {qos}".encode(), qos)
    b.disconnect()
    a.connect(clean=False, expiry=99999)
    found = a.take_until_fence(a)
    assert qos_of(found) in ([1, 2], [0, 1, 2]), found
    a.disconnect()


def test_overlapping_subscriptions(level):
    a = Client(level, "myclientid")
    a.connect()
    a.subscribe((WILDCARDS[6], 2), (WILDCARDS[0], 1))
    a.publish(TOPICS[3], b"overlapping topic filters", 2)
    found = qos_of(a.take_until_fence(a))
    assert found in ([2], [1, 2]), found
    a.disconnect()


def test_keepalive(level):
    b = Client(level, "myclientid2")
    b.connect()
    b.subscribe((TOPICS[4], 2))
    silent = Raw(level)
    silent.send(connect_packet(level, "myclientid", keepalive=1, will=(TOPICS[4], b"keepalive expiry")))
    assert silent.packet()[3] == 0
    assert b.take(1)[0].payload == b"keepalive expiry"
    b.disconnect()


def test_redelivery_on_reconnect(level):
    b = Raw(level, "myclientid2", clean=True, expiry=99999)
    if level == 3:
        b = Raw(level, "myclientid2", clean=False)
    b.subscribe(WILDCARDS[6], 2)
    a = Client(level, "myclientid")
    a.connect()
    a.publish(TOPICS[1], b"", 1)
    a.publish(TOPICS[3], b"", 2)
    first = [b.packet(), b.packet()]
    b.close()
    b = Raw(level, "myclientid2", clean=False, expiry=99999)
    again = [b.packet(), b.packet()]
    # The same packets, with DUP.
    assert again == [bytes([packet[0] | 8]) + packet[1:] for packet in first], (first, again)
    a.disconnect()


def test_subscribe_failure(level):
    a = Client(level, "myclientid")
    a.connect()
    codes = a.subscribe(("test/nosubscribe", 2))
    assert codes[0] >= 0x80, codes
    a.disconnect()


def test_dollar_topics(level):
    b = Client(level, "myclientid2")
    b.connect()
    b.subscribe((WILDCARDS[5], 2))
    raw = Raw(level, "raw")
    raw.send(publish_packet(level, "$" + TOPICS[1], 1))
    raw.answer_or_end()
    assert b.take_until_fence(b) == []
    b.disconnect()


def test_unsubscribe(level):
    a, b = Client(level, "myclientid"), Client(level, "myclientid2")
    b.connect()
    for topic in TOPICS[:3]:
        b.subscribe((topic, 2))
    b.unsubscribe(TOPICS[0])
    a.connect()
    for topic in TOPICS[:3]:
        a.publish(topic, topic.encode(), 1)
    assert [message.topic for message in b.take_until_fence(a)] == TOPICS[1:3]
    a.disconnect()
    b.disconnect()


# What only the suite for 5 has.

def test_session_expiry(_):
    a = Client(5, "myclientid")

    def session(clean, expiry, expected, at_disconnect=None):
        present, _ = a.connect(clean=clean, expiry=expiry)
        assert present == expected, f"session present {present}"
        a.subscribe((TOPICS[0], 2))
        a.disconnect(expiry=at_disconnect)

    session(True, 0, False)
    session(False, 0, False)
    session(True, 3, False)
    time.sleep(1)
    session(False, 3, True)
    time.sleep(5)
    session(False, 3, False)
    session(True, 1, False, at_disconnect=5)
    time.sleep(3)
    session(False, 1, True, at_disconnect=0)
    session(False, 1, False)


def each_qos(**values):
    a = Client(5, "myclientid")
    a.connect()
    a.subscribe((TOPICS[0], 2))
    for qos in range(3):
        a.publish(TOPICS[0], b"", qos, **values)
    found = a.take(3)
    assert qos_of(found) == [0, 1, 2]
    a.disconnect()
    return [message.properties for message in found]


def test_user_properties(_):
    for told in each_qos(UserProperty=[("a", "2"), ("c", "3")]):
        assert told.UserProperty == [("a", "2"), ("c", "3")]


def test_payload_format(_):
    for told in each_qos(PayloadFormatIndicator=1, ContentType="My name"):
        assert (told.PayloadFormatIndicator, told.ContentType) == (1, "My name")


def test_publication_expiry(_):
    a, b = Client(5, "myclientid"), Client(5, "myclientid2")
    b.connect(expiry=99999)
    b.subscribe((TOPICS[0], 2))
    b.disconnect()
    a.connect()
    for qos in (1, 2):
        a.publish(TOPICS[0], b"expires", qos, MessageExpiryInterval=1)
        a.publish(TOPICS[0], b"stays", qos, MessageExpiryInterval=6)
    time.sleep(3)
    b.connect(clean=False, expiry=99999)
    found = b.take_until_fence(a)
    assert [message.payload for message in found] == [b"stays", b"stays"]
    assert all(message.properties.MessageExpiryInterval < 6 for message in found)
    a.disconnect()
    b.disconnect()


def test_subscribe_options(_):
    a, b = Client(5, "myclientid"), Client(5, "myclientid2")
    a.connect()
    b.connect()
    a.subscribe((TOPICS[0], 2), noLocal=True)
    b.subscribe((TOPICS[0], 2), noLocal=True)
    a.publish(TOPICS[0], b"noLocal test", 1)
    assert len(b.take_until_fence(a)) == 1 and a.take_until_fence(b) == []
    a.disconnect()
    b.disconnect()

    a.connect()
    a.subscribe((TOPICS[0], 2), retainAsPublished=True)
    a.publish(TOPICS[0], b"false", 1, retain=False)
    a.publish(TOPICS[0], b"true", 1, retain=True)
    assert [message.retain for message in a.take_until_fence(a)] == [False, True]
    a.disconnect()

    a.connect()
    for qos in range(3):
        a.publish(TOPICS[1 + qos], f"qos {qos}".encode(), qos, retain=True)
    for handling, first, second in ((1, 3, 0), (2, 0, 0), (0, 3, 3)):
        for expected in (first, second):
            a.subscribe((WILDCARDS[5], 2), retainHandling=handling)
            assert len(a.take_until_fence(a)) == expected, f"retain handling {handling}"
        a.unsubscribe(WILDCARDS[5])
    a.disconnect()


def test_assigned_clientid(_):
    nameless = Client(5, "")
    _, told = nameless.connect()
    assert told.AssignedClientIdentifier
    nameless.disconnect()


def test_subscribe_identifiers(_):
    a, b = Client(5, "myclientid"), Client(5, "myclientid2")
    a.connect()
    b.connect()
    a.subscribe((TOPICS[0], 2), identifier=456789)
    b.subscribe((TOPICS[0], 2), identifier=2)
    b.subscribe((TOPICS[0] + "/#", 2), identifier=3)
    b.publish(TOPICS[0], b"sub identifier test", 1)
    assert a.take(1)[0].properties.SubscriptionIdentifier == [456789]
    found = b.take_until_fence(b)
    assert len(found) == 1 and sorted(found[0].properties.SubscriptionIdentifier) == [2, 3]
    a.disconnect()
    b.disconnect()


def test_request_response(_):
    a, b = Client(5, "myclientid"), Client(5, "myclientid2")
    a.connect()
    b.connect()
    for client in (a, b):
        client.subscribe((TOPICS[0], 2), noLocal=True)
    a.publish(TOPICS[0], b"request", 1, ResponseTopic=TOPICS[0], CorrelationData=b"334")
    asked = b.take(1)[0].properties
    assert (asked.ResponseTopic, asked.CorrelationData) == (TOPICS[0], b"334")
    b.publish(asked.ResponseTopic, b"response", 1, CorrelationData=asked.CorrelationData)
    assert [message.payload for message in a.take_until_fence(b)] == [b"response"]
    a.disconnect()
    b.disconnect()


def test_client_topic_alias(_):
    raw = Raw(5, "raw")
    raw.send(publish_packet(5, TOPICS[0], 1, alias=0))
    assert raw.packet()[2] == 0x94
    raw.is_closed()
    a = Raw(5, "myclientid", expiry=99999)
    if a.number(0x22) == 0:
        return
    a.subscribe(TOPICS[0], 0)
    a.send(publish_packet(5, TOPICS[0], 0, alias=1) + publish_packet(5, "", 0, alias=1))
    for _ in range(2):
        assert TOPICS[0].encode() in a.packet()
    a.close()
    a = Raw(5, "myclientid", clean=False, expiry=99999)
    a.send(publish_packet(5, "", 0, alias=1))
    assert a.packet()[2] in (0x82, 0x94)
    a.is_closed()


def test_server_topic_alias(_):
    a = Raw(5, "myclientid", alias_maximum=1)
    a.subscribe(TOPICS[0], 0)
    b = Client(5, "myclientid2")
    b.connect()
    for _ in range(3):
        b.publish(TOPICS[0], b"topic alias 1", 1)
    topic = TOPICS[0].encode()
    first, second, third = a.packet(), a.packet(), a.packet()
    assert topic in first and b"\x23\x00\x01" in first
    assert topic not in second and b"\x23\x00\x01" in second and second == third
    plain = Raw(5, "myclientid")
    plain.subscribe(TOPICS[0], 0)
    for _ in range(3):
        b.publish(TOPICS[0], b"no alias", 1)
    for _ in range(3):
        packet = plain.packet()
        assert topic in packet and b"\x23" not in packet
    b.disconnect()


def test_maximum_packet_size(_):
    a = Raw(5, "myclientid")
    largest = a.number(0x27)
    if largest:
        length = largest + 1
        a.send(b"\x30" + variable(length) + b"\x00\x01t\x00")
        assert a.packet()[2] == 0x95
        a.is_closed()
    a = Client(5, "myclientid")
    a.connect(more={"MaximumPacketSize": 64})
    a.subscribe((TOPICS[0], 2))
    a.publish(TOPICS[0], b"." * 32, 0)
    a.publish(TOPICS[0], b"." * 64, 1)
    assert len(a.take_until_fence(a)) == 1
    a.disconnect()


def test_server_keep_alive(_):
    a = Client(5, "myclientid")
    _, told = a.connect(keepalive=120)
    assert told.ServerKeepAlive == 60
    a.disconnect()


def test_flow_control1(_):
    a = Raw(5, "myclientid", receive_maximum=2)
    a.subscribe(TOPICS[0], 1)
    b = Client(5, "myclientid2")
    b.connect()
    for number in range(3):
        b.publish(TOPICS[0], f"message {number}".encode(), 1)
    first, _ = a.packet(), a.packet()
    a.is_quiet()
    at = 4 + len(TOPICS[0])
    a.send(b"\x40\x02" + first[at:at + 2])
    assert b"message 2" in a.packet()
    b.disconnect()


def test_flow_control2(_):
    a = Raw(5, "myclientid")
    maximum = a.number(0x21) or 65535
    a.send(b"".join(publish_packet(5, TOPICS[0], 2, 1 + n) for n in range(maximum + 1)))
    while True:
        packet = a.packet()
        if packet[0] == 0xE0:
            break
    assert packet[2] == 0x93


def test_will_delay(_):
    for delay, expiry, expected in ((3, 5, 3), (5, 0, 0), (5, 2, 2)):
        a, b = Client(5, "myclientid"), Client(5, "myclientid2")
        a.connect(expiry=expiry, will=(TOPICS[0], b"will", 0, False), will_delay=delay)
        b.connect()
        b.subscribe((TOPICS[0], 2))
        began = time.monotonic()
        a.terminate()
        assert b.take(1)[0].payload == b"will"
        took = time.monotonic() - began
        assert expected - 0.5 <= took <= expected + 2, f"{took} s, not {expected}"
        b.disconnect()


def test_shared_subscriptions(_):
    a, b = Client(5, "myclientid"), Client(5, "myclientid2")
    for client in (a, b):
        client.connect()
        client.subscribe(("$share/sharename/x", 2), (TOPICS[0], 2))
    b.publish(TOPICS[0], b"to both", 0)
    assert len(a.take_until_fence(b)) == 1 and len(b.take_until_fence(b)) == 1
    b.publish("x", b"to one", 0)
    a_got, b_got = a.take_until_fence(b), b.take_until_fence(a)
    found = [message for message in a_got + b_got if message.topic == "x"]
    assert len(found) == 1
    a.disconnect()
    b.disconnect()


# Raw bytes, for what no library does.

def variable(number):
    out = b""
    while True:
        number, low = divmod(number, 128)
        out += bytes([low | (128 if number else 0)])
        if not number:
            return out


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return len(value).to_bytes(2, "big") + value


def connect_packet(level, client_id, clean=True, name=b"MQTT", keepalive=0, will=None, expiry=None,
                   receive_maximum=None, alias_maximum=None):
    about = b""
    if expiry is not None:
        about += b"\x11" + expiry.to_bytes(4, "big")
    if receive_maximum is not None:
        about += b"\x21" + receive_maximum.to_bytes(2, "big")
    if alias_maximum is not None:
        about += b"\x22" + alias_maximum.to_bytes(2, "big")
    flags = (2 if clean else 0) | (4 if will else 0)
    body = text(name) + bytes([5 if level == 5 else 4, flags]) + keepalive.to_bytes(2, "big")
    if level == 5:
        body += variable(len(about)) + about
    body += text(client_id)
    if will:
        body += (b"\x00" if level == 5 else b"") + text(will[0]) + text(will[1])
    return b"\x10" + variable(len(body)) + body


def publish_packet(level, topic, qos, packet_id=1, alias=None):
    body = text(topic) + (packet_id.to_bytes(2, "big") if qos else b"")
    if level == 5:
        about = b"" if alias is None else b"\x23" + alias.to_bytes(2, "big")
        body += variable(len(about)) + about
    body += b"x"
    return bytes([0x30 | qos << 1]) + variable(len(body)) + body


class Raw:
    """A socket; connected where a client id is given."""

    def __init__(self, level, client_id=None, **more):
        self.level = level
        self.socket = socket.create_connection((HOST, PORT), PATIENCE_S)
        ALL.append(self)
        self.connack = b""
        if client_id is not None:
            self.send(connect_packet(level, client_id, **more))
            self.connack = self.packet()
            assert self.connack[3] == 0, self.connack

    def send(self, data):
        self.socket.sendall(data)

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError("the broker closed the connection")
            data += more
        return data

    def packet(self):
        head = self.exactly(2)
        length, shift = head[1] & 127, 7
        while head[-1] & 128:
            head += self.exactly(1)
            length |= (head[-1] & 127) << shift
            shift += 7
        return head + self.exactly(length)

    def subscribe(self, name, qos):
        body = b"\x00\x09" + (b"\x00" if self.level == 5 else b"") + text(name) + bytes([qos])
        self.send(b"\x82" + variable(len(body)) + body)
        answer = self.packet()
        assert answer[0] == 0x90 and answer[-1] == qos, answer

    def number(self, wanted):
        """A number of two or four bytes in CONNACK; 0 where it is not there."""
        sizes = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
        at = 5
        while at < len(self.connack) and self.connack[at] in sizes:
            size = sizes[self.connack[at]]
            if self.connack[at] == wanted:
                return int.from_bytes(self.connack[at + 1:at + 1 + size], "big")
            at += 1 + size
        return 0

    def is_quiet(self):
        """Nothing but the answer to a ping comes."""
        self.send(b"\xc0\x00")
        assert self.packet() == b"\xd0\x00"

    def answer_or_end(self):
        try:
            self.packet()
        except (EOFError, ConnectionError):
            pass

    def is_closed(self):
        try:
            while self.packet():
                pass
        except (EOFError, ConnectionError):
            return

    def close(self):
        self.socket.close()


BOTH = [test_basic, test_retained_message, test_offline_message_queueing, test_will_message,
        test_overlapping_subscriptions, test_keepalive, test_redelivery_on_reconnect,
        test_zero_length_clientid, test_subscribe_failure, test_dollar_topics]
ONLY_5 = [test_unsubscribe, test_session_expiry, test_user_properties, test_payload_format,
          test_publication_expiry, test_subscribe_options, test_assigned_clientid,
          test_subscribe_identifiers, test_request_response, test_client_topic_alias,
          test_server_topic_alias, test_maximum_packet_size, test_server_keep_alive,
          test_flow_control1, test_flow_control2, test_will_delay, test_shared_subscriptions]

if __name__ == "__main__":
    HOST, PORT = sys.argv[1], int(sys.argv[2])
    cases = [(3, case) for case in BOTH] + [(5, case) for case in BOTH + ONLY_5]
    if len(sys.argv) > 3:
        wanted = (int(sys.argv[3]), sys.argv[4])
        cases = [case for case in cases if (case[0], case[1].__name__) == wanted]
    failed = 0
    for level, case in cases:
        try:
            case(level)
            outcome = "passed"
        except Exception as error:  # Whatever it was, the next case is tried.
            failed += 1
            outcome = f"FAILED {type(error).__name__}: {error}"
        for connection in ALL:
            connection.close()
        ALL.clear()
        try:
            remove_retained(level)
        except Exception as error:
            outcome += f" (cleaning up: {error!r})"
        print(f"{level} {case.__name__} {outcome}", flush=True)
    sys.exit(1 if failed or not cases else 0)
