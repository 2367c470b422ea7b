// Eclipse Paho for Java against the broker, with its persistence in files: what was handed to the client
// before it was cut off arrives once. usage: java Device.java HOST PORT 3|5 FOLDER

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

public class Device {
    static final int MESSAGES = 30;

    public static void main(String[] arguments) throws Exception {
        String uri = "tcp://" + arguments[0] + ":" + arguments[1];
        BlockingQueue<String> arrived = new LinkedBlockingQueue<>();
        if (arguments[2].equals("5")) {
            five(uri, arguments[3], arrived);
        } else {
            three(uri, arguments[3], arrived);
        }
        System.out.println("paho for Java, MQTT " + arguments[2] + ": all as it was sent");
        System.exit(0);
    }

    /** QoS 0, 1 and 2 in turn, each topic in order, each once. */
    static void check(BlockingQueue<String> arrived, String what) throws Exception {
        List<String> found = new ArrayList<>();
        for (int number = 0; number < MESSAGES; number++) {
            String next = arrived.poll(20, TimeUnit.SECONDS);
            if (next == null) {
                throw new IllegalStateException(what + ": " + found.size() + " of " + MESSAGES);
            }
            found.add(next);
        }
        for (int qos = 0; qos < 3; qos++) {
            int at = qos;
            for (String message : found) {
                if (message.startsWith("java/" + qos + " ")) {
                    String expected = "java/" + qos + " " + what + " " + at;
                    if (!message.equals(expected)) {
                        throw new IllegalStateException(message + ", not " + expected);
                    }
                    at += 3;
                }
            }
            if (at != MESSAGES + qos) {
                throw new IllegalStateException("QoS " + qos + " ended at " + at);
            }
        }
    }

    static void three(String uri, String folder, BlockingQueue<String> arrived) throws Exception {
        var options = new org.eclipse.paho.client.mqttv3.MqttConnectOptions();
        options.setCleanSession(false);
        options.setMaxInflight(100);
        var subscriber = new org.eclipse.paho.client.mqttv3.MqttClient(uri, "java-3-subscriber",
            new org.eclipse.paho.client.mqttv3.persist.MqttDefaultFilePersistence(folder));
        subscriber.setTimeToWait(20_000);
        subscriber.connect(options);
        subscriber.subscribe("java/+", 2,
            (topic, message) -> arrived.add(topic + " " + new String(message.getPayload())));
        var publisher = new org.eclipse.paho.client.mqttv3.MqttAsyncClient(uri, "java-3-publisher",
            new org.eclipse.paho.client.mqttv3.persist.MqttDefaultFilePersistence(folder));
        publisher.connect(options).waitForCompletion(20_000);
        for (int number = 0; number < MESSAGES; number++) {
            byte[] payload = ("live " + number).getBytes();
            publisher.publish("java/" + number % 3, payload, number % 3, false).waitForCompletion(20_000);
        }
        check(arrived, "live");
        subscriber.disconnect();
        for (int number = 0; number < MESSAGES; number++) {
            if (number % 3 == 0) {
                continue;
            }
            byte[] payload = ("away " + number).getBytes();
            publisher.publish("java/" + number % 3, payload, number % 3, false).waitForCompletion(20_000);
        }
        subscriber.setCallback(new org.eclipse.paho.client.mqttv3.MqttCallback() {
            public void connectionLost(Throwable cause) {}
            public void messageArrived(String topic, org.eclipse.paho.client.mqttv3.MqttMessage message) {
                arrived.add(topic + " " + new String(message.getPayload()));
            }
            public void deliveryComplete(org.eclipse.paho.client.mqttv3.IMqttDeliveryToken token) {}
        });
        if (!subscriber.connectWithResult(options).getSessionPresent()) {
            throw new IllegalStateException("no session present");
        }
        expectAway(arrived);
        subscriber.disconnect();
        publisher.disconnect().waitForCompletion(20_000);
    }

    static void five(String uri, String folder, BlockingQueue<String> arrived) throws Exception {
        var options = new org.eclipse.paho.mqttv5.client.MqttConnectionOptions();
        options.setCleanStart(false);
        options.setSessionExpiryInterval(600L);
        var subscriber = new org.eclipse.paho.mqttv5.client.MqttClient(uri, "java-5-subscriber",
            new org.eclipse.paho.mqttv5.client.persist.MqttDefaultFilePersistence(folder));
        subscriber.setTimeToWait(20_000);
        subscriber.setCallback(new Five(arrived));
        subscriber.connect(options);
        subscriber.subscribe("java/+", 2);
        var publisher = new org.eclipse.paho.mqttv5.client.MqttAsyncClient(uri, "java-5-publisher",
            new org.eclipse.paho.mqttv5.client.persist.MqttDefaultFilePersistence(folder));
        publisher.connect(options).waitForCompletion(20_000);
        for (int number = 0; number < MESSAGES; number++) {
            byte[] payload = ("live " + number).getBytes();
            publisher.publish("java/" + number % 3, payload, number % 3, false).waitForCompletion(20_000);
        }
        check(arrived, "live");
        subscriber.disconnect();
        for (int number = 0; number < MESSAGES; number++) {
            if (number % 3 == 0) {
                continue;
            }
            byte[] payload = ("away " + number).getBytes();
            publisher.publish("java/" + number % 3, payload, number % 3, false).waitForCompletion(20_000);
        }
        subscriber.connect(options);
        expectAway(arrived);
        subscriber.disconnect();
        publisher.disconnect().waitForCompletion(20_000);
    }

    /** Order is kept within a QoS: the client hands out a QoS 2 message when its PUBREL has come. */
    static void expectAway(BlockingQueue<String> arrived) throws Exception {
        List<String> found = new ArrayList<>();
        for (int count = 0; count < MESSAGES / 3 * 2; count++) {
            String next = arrived.poll(20, TimeUnit.SECONDS);
            if (next == null) {
                throw new IllegalStateException("away: only " + found);
            }
            found.add(next);
        }
        for (int qos = 1; qos < 3; qos++) {
            String topic = "java/" + qos + " ";
            List<String> expected = new ArrayList<>();
            for (int number = qos; number < MESSAGES; number += 3) {
                expected.add(topic + "away " + number);
            }
            if (!found.stream().filter(message -> message.startsWith(topic)).toList().equals(expected)) {
                throw new IllegalStateException(found.toString());
            }
        }
    }

    record Five(BlockingQueue<String> arrived) implements org.eclipse.paho.mqttv5.client.MqttCallback {
        public void disconnected(org.eclipse.paho.mqttv5.client.MqttDisconnectResponse response) {}
        public void mqttErrorOccurred(org.eclipse.paho.mqttv5.common.MqttException error) {}
        public void messageArrived(String topic, org.eclipse.paho.mqttv5.common.MqttMessage message) {
            arrived.add(topic + " " + new String(message.getPayload()));
        }
        public void deliveryComplete(org.eclipse.paho.mqttv5.client.IMqttToken token) {}
        public void connectComplete(boolean reconnect, String uri) {}
        public void authPacketArrived(int reason, org.eclipse.paho.mqttv5.common.packet.MqttProperties about) {}
    }
}
