//! The tables are checked against the codec itself: what it encodes must walk exactly, in every version.

use bytes::BytesMut;
use kafka_protocol::messages::*;
use kafka_protocol::messages::{
    create_topics_response::*, delete_topics_response::*, describe_configs_response::*,
    fetch_response::*, list_offsets_response::*, metadata_response::*, produce_response::*,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::*;
use crate::client::api;

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

fn assert_walks<T: Encodable>(range: api::Range, key: ApiKey, build: impl Fn(i16) -> T) {
    for version in range.min..=range.max {
        let mut bytes = BytesMut::new();
        build(version).encode(&mut bytes, version).unwrap();
        let whole = bytes.freeze();
        assert_eq!(check(key as i16, version, &whole), Ok(()), "{key:?} v{version}");
        for cut in 0..whole.len() {
            assert!(
                check(key as i16, version, &whole[..cut]).is_err(),
                "{key:?} v{version} cut at {cut}"
            );
        }
    }
}

#[test]
fn tables_match_the_codec_in_every_version_we_ask_for() {
    assert_walks(api::METADATA, ApiKey::Metadata, |_| {
        MetadataResponse::default()
            .with_brokers(vec![
                MetadataResponseBroker::default()
                    .with_host(StrBytes::from_static_str("h"))
                    .with_port(9092),
                MetadataResponseBroker::default().with_rack(Some(StrBytes::from_static_str("r"))),
            ])
            .with_cluster_id(Some(StrBytes::from_static_str("c")))
            .with_topics(vec![
                MetadataResponseTopic::default().with_name(Some(name("t"))).with_partitions(vec![
                    MetadataResponsePartition::default()
                        .with_replica_nodes(vec![BrokerId(1), BrokerId(2)])
                        .with_isr_nodes(vec![BrokerId(1)]),
                    MetadataResponsePartition::default(),
                ]),
            ])
    });
    assert_walks(api::PRODUCE, ApiKey::Produce, |version| {
        let mut partition = PartitionProduceResponse::default().with_base_offset(5);
        if version >= 8 {
            partition = partition
                .with_error_message(Some(StrBytes::from_static_str("why")))
                .with_record_errors(vec![BatchIndexAndErrorMessage::default()]);
        }
        ProduceResponse::default().with_responses(vec![
            TopicProduceResponse::default()
                .with_name(name("t"))
                .with_partition_responses(vec![partition]),
        ])
    });
    assert_walks(api::FETCH, ApiKey::Fetch, |_| {
        FetchResponse::default().with_responses(vec![
            FetchableTopicResponse::default().with_topic(name("t")).with_partitions(vec![
                PartitionData::default()
                    .with_aborted_transactions(Some(vec![AbortedTransaction::default()]))
                    .with_records(Some(Bytes::from_static(b"records"))),
                PartitionData::default().with_aborted_transactions(None).with_records(None),
            ]),
        ])
    });
    assert_walks(api::LIST_OFFSETS, ApiKey::ListOffsets, |_| {
        ListOffsetsResponse::default().with_topics(vec![
            ListOffsetsTopicResponse::default()
                .with_name(name("t"))
                .with_partitions(vec![ListOffsetsPartitionResponse::default()]),
        ])
    });
    assert_walks(api::CREATE_TOPICS, ApiKey::CreateTopics, |version| {
        let mut topic = CreatableTopicResult::default()
            .with_name(name("t"))
            .with_error_message(Some(StrBytes::from_static_str("m")));
        if version >= 5 {
            topic = topic
                .with_configs(Some(vec![CreatableTopicConfigs::default()]))
                .with_topic_config_error_code(29);
        }
        CreateTopicsResponse::default().with_topics(vec![topic])
    });
    assert_walks(api::DELETE_TOPICS, ApiKey::DeleteTopics, |_| {
        DeleteTopicsResponse::default()
            .with_responses(vec![DeletableTopicResult::default().with_name(Some(name("t")))])
    });
    assert_walks(api::INIT_PRODUCER_ID, ApiKey::InitProducerId, |_| {
        InitProducerIdResponse::default()
    });
    assert_walks(api::DESCRIBE_CONFIGS, ApiKey::DescribeConfigs, |_| {
        DescribeConfigsResponse::default().with_results(vec![
            DescribeConfigsResult::default().with_configs(vec![
                DescribeConfigsResourceResult::default()
                    .with_synonyms(vec![DescribeConfigsSynonym::default()]),
            ]),
        ])
    });
}

#[test]
fn a_count_without_elements_is_refused_before_anything_is_reserved() {
    // Metadata v4 (not flexible): throttle, then an array that announces 2^31 - 1 brokers.
    let mut body = vec![0, 0, 0, 0];
    body.extend_from_slice(&i32::MAX.to_be_bytes());
    assert!(check(ApiKey::Metadata as i16, 4, &body).is_err());
    // ... and Metadata v12 (flexible) with the largest compact count.
    let body = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(check(ApiKey::Metadata as i16, 12, &body).is_err());
}

#[test]
fn random_bytes_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..20_000 {
        let mut body = Vec::new();
        for _ in 0..(seed >> 59) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            body.extend_from_slice(&seed.to_le_bytes());
        }
        seed = seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(1);
        for (key, version) in
            [(0, 3), (0, 9), (1, 4), (1, 12), (2, 7), (3, 12), (19, 7), (20, 6), (22, 4), (32, 4)]
        {
            let _ = check(key, version, &body);
        }
        let _ = decode::<MetadataResponse>("Metadata", 3, 12, Bytes::from(body));
    }
}
