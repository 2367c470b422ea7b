//! Whoever misbehaves loses his own connection, and nobody else notices.

use std::time::Duration;

use edge_kafka::KafkaOptions;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, FetchRequest};
use kafka_protocol::protocol::Decodable;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Client, fetch_request, framed, only, plain, produce_request};
use crate::gateway::{Gateway, directory};

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut bystander = gateway.client().await;
    bystander.produce("t", 0, plain(&["before"])).await;

    let mut lying_count = framed(&fetch_request("t", 0, 0), 4, 1);
    // The number of topics: behind length, header (8 + 2 + 4) and six fixed fields (17).
    lying_count[35..39].copy_from_slice(&i32::MAX.to_be_bytes());
    let garbage: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03],
        &[0xff; 64],
        &[0x00; 64],
        // 256 MiB to come.
        &[0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x09],
        // JoinGroup, which is not served.
        &[0, 0, 0, 20, 0, 11, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        // Produce 2: older than what is served.
        &[0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        &lying_count,
    ];
    for bytes in garbage {
        let mut client = gateway.client().await;
        client.socket.write_all(bytes).await.unwrap();
        assert!(client.is_closed().await, "{bytes:?}");
    }
    assert_eq!(bystander.produce("t", 0, plain(&["after"])).await.base_offset, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn half_a_request_and_silence_ends_with_its_time() {
    let directory = directory();
    let options =
        KafkaOptions { request_timeout: Duration::from_millis(50), ..KafkaOptions::default() };
    let gateway = Gateway::start_with(directory.path(), options).await;
    let mut client = gateway.client().await;
    let whole = framed(&ApiVersionsRequest::default(), 0, 1);
    client.socket.write_all(&whole[..6]).await.unwrap();
    assert!(client.is_closed().await);
    gateway.stop().await;
}

#[tokio::test]
async fn an_idle_connection_ends_with_its_time_but_not_while_it_waits_for_an_answer() {
    let directory = directory();
    let options =
        KafkaOptions { idle_timeout: Duration::from_millis(50), ..KafkaOptions::default() };
    let gateway = Gateway::start_with(directory.path(), options).await;
    gateway.topic("t", 1).await;
    assert!(gateway.client().await.is_closed().await);

    let mut client = gateway.client().await;
    let waits = fetch_request("t", 0, 0).with_min_bytes(1).with_max_wait_ms(400);
    let id = client.send(&waits, 11).await;
    client.receive::<FetchRequest>(11, id).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed_and_the_others_live() {
    let directory = directory();
    let options = KafkaOptions { connections_max: 2, ..KafkaOptions::default() };
    let gateway = Gateway::start_with(directory.path(), options).await;
    gateway.topic("t", 1).await;
    let mut first = gateway.client().await;
    let mut second = gateway.client().await;
    first.produce("t", 0, plain(&["a"])).await;
    second.produce("t", 0, plain(&["b"])).await;
    assert!(gateway.client().await.is_closed().await);
    assert_eq!(first.produce("t", 0, plain(&["c"])).await.base_offset, 2);
    drop(second);
    // Its place becomes free; until the listener has seen that, a new client is turned away.
    loop {
        let mut third = gateway.client().await;
        let request = framed(&ApiVersionsRequest::default(), 0, 1);
        let mut answer = [0; 4];
        if third.socket.write_all(&request).await.is_ok()
            && third.socket.read_exact(&mut answer).await.is_ok()
        {
            break;
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_version_of_the_future_is_told_what_there_is() {
    let directory = directory();
    let gateway = Gateway::start(directory.path()).await;
    let mut client = gateway.client().await;
    client.socket.write_all(&[0, 0, 0, 10, 0, 18, 0, 99, 0, 0, 0, 5, 1, 2]).await.unwrap();
    let mut length = [0; 4];
    client.socket.read_exact(&mut length).await.unwrap();
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    client.socket.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 5]);
    let mut body = bytes::Bytes::from(answer).slice(4..);
    let response = ApiVersionsResponse::decode(&mut body, 0).unwrap();
    assert_eq!(response.error_code, 35);
    assert_eq!(only(response.api_keys).api_key, 18);
    // The client may go on in a version that is known.
    let response = client.call(&ApiVersionsRequest::default(), 0).await;
    assert_eq!(response.error_code, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_the_stop_is_answered() {
    let directory = directory();
    let mut gateway = Gateway::start(directory.path()).await;
    gateway.topic("t", 1).await;
    let mut client = gateway.client().await;
    client.produce("t", 0, plain(&["first"])).await;
    let waits = fetch_request("t", 0, 1).with_min_bytes(1).with_max_wait_ms(60_000);
    let fetch = client.send(&waits, 11).await;
    // Another client's answer proves that the listener is past reading the fetch, or will read it.
    gateway.client().await.call(&ApiVersionsRequest::default(), 0).await;
    client.socket.writable().await.unwrap();
    gateway.stop_listening().await;
    // The long poll was cut short with an empty answer, or never read; it did not hold up the stop.
    let mut rest = Vec::new();
    client.socket.read_to_end(&mut rest).await.unwrap();
    if !rest.is_empty() {
        assert_eq!(rest[4..8], fetch.to_be_bytes());
    }
    assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err());
    gateway.stop_engine().await;
}

#[tokio::test]
async fn large_requests_share_a_bounded_memory_and_all_get_through() {
    let directory = directory();
    let options = KafkaOptions {
        request_memory_bytes: 256 << 10,
        response_memory_bytes: 256 << 10,
        ..KafkaOptions::default()
    };
    let gateway = Gateway::start_with(directory.path(), options).await;
    gateway.topic("t", 8).await;
    let value = "v".repeat(200 << 10);
    let mut sent = Vec::new();
    for partition in 0..8 {
        let mut client: Client = gateway.client().await;
        let request = produce_request("t", partition, plain(&[&value]), -1);
        sent.push(tokio::spawn(async move {
            let response = client.call(&request, 9).await;
            let answer = only(only(response.responses).partition_responses);
            assert_eq!(answer.error_code, 0);
            let data = client.fetch("t", partition, 0).await;
            data.records.unwrap().len()
        }));
    }
    for one in sent {
        assert!(one.await.unwrap() > 200 << 10);
    }
    gateway.stop().await;
}
