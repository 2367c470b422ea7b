//! Local subscribers see what is published: `+` and `#`, QoS 0 and 1, 3.1.1 and 5 mixed.

use std::time::Duration;

use anyhow::{Context, Result};
use system_tests::clients::{self, MosquittoSub};
use system_tests::gate::{self, Peer};
use system_tests::gateway::Gateway;
use system_tests::mqtt::{ConnectOptions, MqttClient, Version};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn mosquitto_sub_gets_qos_0_and_1_through_wildcards_in_both_versions() -> Result<()> {
    if !gate::run_with(&[Peer::MosquittoClients]) {
        return Ok(());
    }
    let gateway = Gateway::start()?;
    let address = gateway.mqtt_address();
    for (subscriber, publisher) in
        [(Version::V311, Version::V5), (Version::V5, Version::V311), (Version::V5, Version::V5)]
    {
        let mut everything = MosquittoSub::subscribe(address, subscriber, "#", 1)?;
        let mut one_level = MosquittoSub::subscribe(address, subscriber, "plant/+/temp", 1)?;
        let mut at_most_once = MosquittoSub::subscribe(address, subscriber, "plant/#", 0)?;
        for (topic, qos, message) in [
            ("plant/m1/temp", 1, "one"),
            ("plant/m1/speed", 1, "two"),
            ("office/m1/temp", 0, "three"),
            ("plant/m2/temp", 0, "four"),
            ("plant", 1, "five"),
        ] {
            clients::mosquitto_pub(address, publisher, topic, qos, message)?;
        }
        // A QoS 0 message is live and may overtake a QoS 1 message that waits for its sync.
        let sorted = |mut messages: Vec<String>| {
            messages.sort_unstable();
            messages
        };
        assert_eq!(
            sorted(everything.messages(5, SOON)?),
            [
                "0 office/m1/temp three",
                "0 plant/m2/temp four",
                "1 plant five",
                "1 plant/m1/speed two",
                "1 plant/m1/temp one",
            ]
        );
        assert_eq!(
            sorted(one_level.messages(2, SOON)?),
            ["0 plant/m2/temp four", "1 plant/m1/temp one"]
        );
        assert_eq!(
            sorted(at_most_once.messages(4, SOON)?),
            ["0 plant five", "0 plant/m1/speed two", "0 plant/m1/temp one", "0 plant/m2/temp four",]
        );
    }
    Ok(())
}

#[test]
fn messages_of_one_publisher_and_topic_keep_their_order() -> Result<()> {
    let gateway = Gateway::start()?;
    for version in Version::BOTH {
        for qos in [0, 1] {
            let connect = |name: &str| {
                MqttClient::connect(gateway.mqtt_address(), &ConnectOptions::new(version, name))
            };
            let (mut subscriber, mut publisher) = (connect("sub")?, connect("pub")?);
            assert_eq!(subscriber.subscribe("order/+", qos)?, qos);
            for number in 0..200_u32 {
                publisher.publish("order/x", number.to_string().as_bytes(), qos)?;
            }
            for number in 0..200_u32 {
                let message = subscriber.receive_publish(SOON)?;
                let message = message.with_context(|| format!("message {number} of 200"))?;
                assert_eq!(message.payload, number.to_string().as_bytes());
                assert_eq!((message.qos, message.topic.as_str()), (qos, "order/x"));
            }
        }
    }
    Ok(())
}

#[test]
fn a_subscriber_that_does_not_read_holds_nobody_up() -> Result<()> {
    let gateway = Gateway::start()?;
    let connect = |name: &str| {
        MqttClient::connect(gateway.mqtt_address(), &ConnectOptions::new(Version::V311, name))
    };
    let mut stuck = connect("stuck")?;
    stuck.subscribe("#", 1)?;
    let (mut good, mut publisher) = (connect("good")?, connect("pub")?);
    good.subscribe("#", 1)?;
    // Far more than the sockets' buffers and the queue of a subscriber hold.
    let payload = vec![b'x'; 60_000];
    for number in 0..200 {
        publisher.publish_and_wait("big", &payload).with_context(|| format!("{number}"))?;
        good.receive_publish(SOON)?.with_context(|| format!("message {number}"))?;
    }
    Ok(())
}
