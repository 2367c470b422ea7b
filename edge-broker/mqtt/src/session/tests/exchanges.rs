//! QoS 2 both ways, sessions that go on, promises that wait. Statement numbers are those of MQTT 5.0.

use super::*;

const CONNECT_V5_LASTING: &[u8] =
    b"\x10\x13\x00\x04MQTT\x05\x00\x00\x0a\x05\x11\x00\x00\x00\x3c\x00\x01c";

fn tagged(qos: Qos, payload: &[u8], now: Instant, tag: u64) -> Delivery {
    Delivery { tag, ..delivery(qos, payload, now) }
}

#[test]
fn mqtt_4_3_3_8_pubrec_leaves_when_the_publish_is_durable() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    assert!(rig.sent().is_empty());
    assert_eq!(rig.durable(1), 1);
    assert_eq!(rig.sent(), [0x50, 2, 0, 7]);
}

#[test]
fn mqtt_4_3_3_10_a_publish_that_comes_again_is_answered_and_not_handed_over() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\x34\x06\x00\x01t\x00\x07x\x3c\x06\x00\x01t\x00\x07x");
    assert_eq!(rig.listener.published.len(), 1);
    assert!(rig.sent().is_empty(), "not before the first is durable");
    rig.durable(1);
    assert_eq!(rig.sent(), [0x50, 2, 0, 7, 0x50, 2, 0, 7]);
    rig.input(b"\x3c\x06\x00\x01t\x00\x07x");
    assert_eq!(rig.sent(), [0x50, 2, 0, 7]);
    assert_eq!(rig.listener.published.len(), 1);
}

#[test]
fn mqtt_4_3_3_11_pubrel_is_answered_with_pubcomp_and_frees_the_identifier() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.listener.verdict = Some(PublishVerdict::LiveOnly);
    rig.input(b"\x34\x06\x00\x01t\x00\x07x\x62\x02\x00\x07");
    assert_eq!(rig.sent(), [0x50, 2, 0, 7, 0x70, 2, 0, 7]);
    assert_eq!(rig.listener.released, [7]);
    rig.input(b"\x34\x06\x00\x01t\x00\x07y");
    assert_eq!(rig.listener.published.len(), 2, "it is another message");
}

#[test]
fn mqtt_3_6_2_1_pubrel_for_an_unknown_identifier_is_answered_all_the_same() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\x62\x02\x00\x07");
    assert_eq!(rig.sent(), [0x70, 3, 0, 7, 0x92]);
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\x62\x02\x00\x07");
    assert_eq!(rig.sent(), [0x70, 2, 0, 7]);
    assert!(rig.listener.released.is_empty());
}

#[test]
fn mqtt_3_3_4_9_receive_maximum_counts_qos_2_until_pubcomp() {
    let limits = SessionLimits { receive_maximum: 1, ..SessionLimits::default() };
    let mut rig = Rig::with(limits);
    rig.listener.verdict = Some(PublishVerdict::LiveOnly);
    rig.input(CONNECT_V5);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    rig.input(b"\x62\x02\x00\x07");
    rig.input(b"\x34\x07\x00\x01t\x00\x08\x00x");
    assert!(rig.session.closed().is_none());
    rig.input(b"\x32\x07\x00\x01t\x00\x09\x00x");
    assert_eq!(rig.violation(), ReasonCode::ReceiveMaximumExceeded);
}

#[test]
fn mqtt_4_3_3_9_a_qos_2_publish_that_is_not_allowed_gets_a_pubrec_that_ends_it() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.listener.verdict = Some(PublishVerdict::Denied);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    assert_eq!(rig.sent(), [0x50, 3, 0, 7, 0x87]);
    rig.listener.verdict = Some(PublishVerdict::LiveOnly);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    assert_eq!(rig.sent(), [0x50, 2, 0, 7], "the identifier was free");
}

#[test]
fn a_qos_2_publish_that_a_full_lane_gave_back_may_come_again() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    rig.session.handle_refused(Ticket(1), &mut rig.out);
    assert_eq!(rig.sent(), [0x50, 3, 0, 7, 0x97]);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    assert_eq!(rig.listener.published.len(), 2);

    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\x34\x06\x00\x01t\x00\x07x");
    rig.session.handle_refused(Ticket(1), &mut rig.out);
    assert!(rig.out.is_empty() && rig.session.closed().is_some());
    let state = rig.session.take_ending().expect("it was connected").state;
    assert!(state.received.is_empty() && state.unsettled.is_empty());
}

#[test]
fn what_is_not_known_to_be_stored_is_not_known_to_be_received() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\x34\x06\x00\x01t\x00\x07x");
    rig.listener.verdict = Some(PublishVerdict::Stored(Ticket(2)));
    rig.input(b"\x34\x06\x00\x01t\x00\x08x");
    rig.session.close(Close::ConnectionLost, &mut rig.out);
    let mut state = rig.session.take_ending().expect("it was connected").state;
    assert!(state.received.is_empty());
    state.settle(Ticket(1), true);
    state.settle(Ticket(2), false);
    assert!(state.unsettled.is_empty());
    assert_eq!(state.received.iter().map(NonZeroU16::get).collect::<Vec<_>>(), [7]);
}

#[test]
fn mqtt_4_3_3_3_to_6_a_qos_2_delivery_takes_four_steps_and_its_sink_is_told() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.listener.ticket = Some(Ticket(8));
    rig.deliver(tagged(Qos::ExactlyOnce, b"x", rig.now, 70));
    assert!(rig.sent().is_empty(), "the identifier is not durable");
    rig.durable(8);
    assert_eq!(rig.sent(), b"\x34\x07\x00\x01t\x00\x01\x00x");
    rig.listener.ticket = Some(Ticket(9));
    rig.input(b"\x50\x02\x00\x01");
    assert!(rig.sent().is_empty(), "nor is that the client has it");
    assert_eq!(rig.listener.received, [(1, 70)]);
    rig.durable(9);
    assert_eq!(rig.sent(), [0x62, 2, 0, 1]);
    assert!(rig.listener.delivered.is_empty());
    rig.input(b"\x70\x02\x00\x01");
    assert_eq!(rig.listener.delivered, [70]);
}

#[test]
fn mqtt_4_3_3_4_a_pubrec_with_an_error_ends_the_exchange() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.deliver(tagged(Qos::ExactlyOnce, b"x", rig.now, 70));
    rig.sent();
    rig.input(b"\x50\x03\x00\x01\x97");
    assert!(rig.sent().is_empty());
    assert_eq!(rig.listener.delivered, [70]);
    rig.input(b"\x50\x02\x00\x01");
    assert_eq!(rig.sent(), [0x62, 3, 0, 1, 0x92], "it is over");
}

#[test]
fn acknowledgements_of_the_wrong_kind_change_nothing() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.deliver(tagged(Qos::ExactlyOnce, b"x", rig.now, 1));
    rig.deliver(tagged(Qos::AtLeastOnce, b"y", rig.now, 2));
    rig.sent();
    rig.input(b"\x40\x02\x00\x01\x70\x02\x00\x01\x50\x02\x00\x02\x70\x02\x00\x02");
    assert!(rig.listener.delivered.is_empty() && rig.out.is_empty());
    rig.input(b"\x40\x02\x00\x02\x50\x02\x00\x01\x70\x02\x00\x01");
    assert_eq!(rig.listener.delivered, [2, 1]);
}

#[test]
fn mqtt_4_4_0_1_the_next_connection_sends_again_in_order_with_dup_and_pubrel() {
    let mut rig = Rig::connected(CONNECT_V5_LASTING);
    for (qos, payload) in
        [(Qos::AtLeastOnce, b"1"), (Qos::ExactlyOnce, b"2"), (Qos::ExactlyOnce, b"3")]
    {
        rig.deliver(delivery(qos, payload, rig.now));
    }
    rig.input(b"\x50\x02\x00\x02");
    let mut rig = rig.again(CONNECT_V5_LASTING);
    let sent = rig.sent();
    assert_eq!(sent[2..4], [1, 0], "session present");
    let connack_bytes = usize::from(sent[1]) + 2;
    let expected = b"\x3a\x07\x00\x01t\x00\x01\x001\x62\x02\x00\x02\x3c\x07\x00\x01t\x00\x03\x003";
    assert_eq!(&sent[connack_bytes..], expected);
    // New identifiers go on behind the old ones.
    rig.deliver(delivery(Qos::AtLeastOnce, b"4", rig.now));
    assert_eq!(rig.sent(), b"\x32\x07\x00\x01t\x00\x04\x004");
}

#[test]
fn mqtt_4_9_0_1_what_is_sent_again_is_held_to_the_new_receive_maximum() {
    let mut rig = Rig::connected(CONNECT_V5_LASTING);
    for payload in [b"1", b"2", b"3"] {
        rig.deliver(delivery(Qos::AtLeastOnce, payload, rig.now));
    }
    let mut rig = rig.again(
        b"\x10\x16\x00\x04MQTT\x05\x00\x00\x0a\x08\x11\x00\x00\x00\x3c\x21\x00\x01\x00\x01c",
    );
    assert!(rig.sent().ends_with(b"\x3a\x07\x00\x01t\x00\x01\x001"));
    assert!(!rig.session.wants_deliveries());
    rig.deliver(delivery(Qos::AtLeastOnce, b"4", rig.now));
    assert!(rig.sent().is_empty());
    rig.input(b"\x40\x02\x00\x01");
    assert_eq!(rig.sent(), b"\x3a\x07\x00\x01t\x00\x02\x002");
    rig.input(b"\x40\x02\x00\x02\x40\x02\x00\x03");
    assert!(rig.sent().ends_with(b"\x32\x07\x00\x01t\x00\x04\x004"));
}

#[test]
fn mqtt_4_3_3_received_identifiers_go_on_with_the_session() {
    let mut rig = Rig::connected(CONNECT_V5_LASTING);
    rig.listener.verdict = Some(PublishVerdict::LiveOnly);
    rig.input(b"\x34\x07\x00\x01t\x00\x07\x00x");
    let mut rig = rig.again(CONNECT_V5_LASTING);
    rig.sent();
    rig.input(b"\x3c\x07\x00\x01t\x00\x07\x00x\x62\x02\x00\x07");
    assert_eq!(rig.sent(), [0x50, 2, 0, 7, 0x70, 2, 0, 7]);
    assert!(rig.listener.published.is_empty());
}

#[test]
fn a_connack_that_promises_leaves_when_it_is_durable_and_everything_behind_it() {
    let mut rig = Rig::new();
    rig.listener.connack_ticket = Some(Ticket(5));
    let input = [CONNECT_V4, b"\xc0\x00"].concat();
    let progress = rig.input(&input);
    assert_eq!((progress.consumed, progress.stopped), (CONNECT_V4.len(), Stopped::SinkBusy));
    assert!(rig.session.is_accepting() && !rig.session.wants_deliveries());
    rig.deliver(delivery(Qos::AtMostOnce, b"0", rig.now));
    rig.deliver(delivery(Qos::AtLeastOnce, b"1", rig.now));
    assert!(rig.sent().is_empty());
    rig.durable(5);
    let expected = b"\x20\x02\x00\x00\x30\x04\x00\x01t0\x32\x06\x00\x01t\x00\x011";
    assert_eq!(rig.sent(), expected);
    rig.input(b"\xc0\x00");
    assert_eq!(rig.sent(), [0xD0, 0]);
}

#[test]
fn suback_and_unsuback_wait_for_their_ticket() {
    let mut rig = Rig::connected(CONNECT_V4);
    rig.listener.ticket = Some(Ticket(6));
    rig.input(b"\x82\x06\x00\x09\x00\x01a\x02\xa2\x05\x00\x0a\x00\x01a");
    assert!(rig.sent().is_empty());
    rig.durable(6);
    assert_eq!(rig.sent(), [0x90, 3, 0, 9, 2, 0xB0, 2, 0, 10]);
}

#[test]
fn mqtt_3_1_2_24_nothing_larger_than_the_client_takes_is_sent() {
    let mut rig = Rig::new();
    // Maximum Packet Size 10: not even CONNACK fits.
    rig.input(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x0a\x05\x27\x00\x00\x00\x0a\x00\x01c");
    assert!(rig.session.closed().is_some());
    assert!(rig.sent().len() <= 10);

    let mut rig = Rig::new();
    rig.listener.missed = 5;
    rig.input(b"\x10\x13\x00\x04MQTT\x05\x02\x00\x0a\x05\x27\x00\x00\x00\x20\x00\x01c");
    assert!(rig.session.closed().is_none());
    assert!(rig.sent().len() <= 32, "what the client can do without is left out");
    rig.deliver(delivery(Qos::AtLeastOnce, &[0; 40], rig.now));
    rig.deliver(delivery(Qos::AtLeastOnce, b"fits", rig.now));
    assert_eq!(rig.sent(), b"\x32\x0a\x00\x01t\x00\x01\x00fits");
    assert_eq!(rig.session.deliveries_lost().too_large, 1);
}

#[test]
fn what_the_session_missed_is_told() {
    let mut rig = Rig::new();
    rig.listener.missed = 12;
    rig.input(CONNECT_V5);
    let told = b"\x26\x00\x0bedge-missed\x00\x0212";
    assert!(rig.sent().windows(told.len()).any(|part| part == told));
}

#[test]
fn mqtt_3_1_2_28_response_information_only_for_those_that_ask() {
    let information = b"\x1a\x00\x03r/c";
    let mut rig = Rig::new();
    rig.input(CONNECT_V5);
    assert!(!rig.sent().windows(6).any(|part| part == information));
    let mut rig = Rig::new();
    rig.input(b"\x10\x10\x00\x04MQTT\x05\x02\x00\x0a\x02\x19\x01\x00\x01c");
    assert!(rig.sent().windows(6).any(|part| part == information));
}

#[test]
fn mqtt_3_2_2_21_a_keep_alive_that_is_too_long_is_replaced_and_the_client_told() {
    let limits = SessionLimits { keep_alive_max_s: 5, ..SessionLimits::default() };
    let mut rig = Rig::with(limits);
    rig.input(CONNECT_V5);
    assert!(rig.sent().windows(3).any(|part| part == [0x13, 0, 5]));
    rig.pass(Duration::from_millis(7_500));
    assert_eq!(rig.session.closed(), Some(&Close::KeepAliveTimeout));
    let mut rig = Rig::with(limits);
    rig.input(CONNECT_V4);
    rig.pass(Duration::from_millis(7_500));
    assert!(rig.session.closed().is_none(), "a 3.1.1 client cannot be told");
}

#[test]
fn mqtt_3_3_2_8_an_alias_stands_for_its_topic_and_is_not_passed_on() {
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\x30\x0a\x00\x01t\x05\x01\x01\x23\x00\x102\x30\x07\x00\x00\x03\x23\x00\x10y");
    let topics: Vec<_> = rig.listener.published.iter().map(|(topic, ..)| topic.as_str()).collect();
    assert_eq!(topics, ["t", "t"]);
    // Another topic takes it over.
    rig.input(b"\x30\x08\x00\x01u\x03\x23\x00\x10x\x30\x07\x00\x00\x03\x23\x00\x10y");
    assert_eq!(rig.listener.published[3].0, "u");
    rig.input(b"\x30\x07\x00\x00\x03\x23\x00\x01y");
    assert_eq!(rig.violation(), ReasonCode::ProtocolError);
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\x30\x08\x00\x01t\x03\x23\x00\x11x");
    assert_eq!(rig.violation(), ReasonCode::TopicAliasInvalid);
}

#[test]
fn mqtt_3_1_2_27_aliases_are_used_towards_a_client_that_takes_them() {
    let mut rig = Rig::new();
    rig.input(b"\x10\x11\x00\x04MQTT\x05\x02\x00\x0a\x03\x22\x00\x01\x00\x01c");
    rig.sent();
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "long/topic",
        packet_id: None,
        properties_raw: &[],
        topic_alias: None,
        expiry_s: None,
        payload: b"x",
    };
    let message = Message::copy(&publish, rig.now, &mut BytesMut::new());
    rig.deliver(Delivery::live(message.clone(), Qos::AtMostOnce));
    assert_eq!(rig.sent(), b"\x30\x11\x00\x0along/topic\x03\x23\x00\x01x");
    rig.deliver(Delivery::live(message.clone(), Qos::AtLeastOnce));
    assert_eq!(rig.sent(), b"\x32\x09\x00\x00\x00\x01\x03\x23\x00\x01x");
    rig.deliver(Delivery::live(message, Qos::ExactlyOnce));
    assert_eq!(rig.sent(), b"\x34\x10\x00\x0along/topic\x00\x02\x00x");
}

#[test]
fn bytes_under_way_to_a_client_are_bounded() {
    let limits = SessionLimits { deliveries_in_flight_bytes_max: 150, ..SessionLimits::default() };
    let mut rig = Rig::with(limits);
    rig.input(CONNECT_V4);
    rig.sent();
    for payload in [&[1; 200], &[2; 200]] {
        rig.deliver(delivery(Qos::AtLeastOnce, payload, rig.now));
    }
    assert_eq!(rig.sent().len(), 3 + 3 + 2 + 200, "one whatever its size");
    rig.input(b"\x40\x02\x00\x01");
    assert_eq!(rig.sent().len(), 3 + 3 + 2 + 200);
}

#[test]
fn mqtt_3_1_asks_with_dup() {
    let mut rig = Rig::new();
    rig.input(b"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x01c");
    rig.sent();
    rig.input(b"\x8a\x06\x00\x09\x00\x01a\x01");
    assert_eq!(rig.sent(), [0x90, 3, 0, 9, 1]);
    let mut rig = Rig::new();
    rig.input(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x0a\x00\x00");
    assert_eq!(rig.sent(), [0x20, 2, 0, 2], "nor does it know empty client ids");
}

#[test]
fn mqtt_4_12_0_1_an_authentication_method_is_refused_and_auth_without_one_too() {
    let mut rig = Rig::new();
    rig.input(b"\x10\x12\x00\x04MQTT\x05\x02\x00\x0a\x04\x15\x00\x01x\x00\x01c");
    assert_eq!(rig.sent(), [0x20, 3, 0, 0x8C, 0]);
    let mut rig = Rig::connected(CONNECT_V5);
    rig.input(b"\xf0\x00");
    assert_eq!(rig.violation(), ReasonCode::ProtocolError);
    let mut rig = Rig::connected(CONNECT_V4);
    rig.input(b"\xf0\x00");
    assert_eq!(rig.violation(), ReasonCode::MalformedPacket);
}

#[test]
fn mqtt_3_14_2_2_a_disconnect_changes_the_session_expiry() {
    let mut rig = Rig::connected(CONNECT_V5_LASTING);
    rig.input(b"\xe0\x07\x00\x05\x11\x00\x00\x00\x00");
    assert_eq!(rig.session.take_ending().expect("it was connected").session_expiry_s, 0);
}
