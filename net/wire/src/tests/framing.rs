//! Frames, headers, and the encodings that clients are sensitive to.

use bytes::Bytes;

use crate::messages::*;
use crate::{
    ApiKey, DecodeError, ErrorCode, Message, Reader, Records, RequestHeader, Writer, decode_response,
    decode_versioned, encode_request, encode_response, encode_response_around, encode_versioned,
};

fn encoded<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut w = Writer::new();
    message.encode(&mut w, version);
    w.finish().concat()
}

// contract P1
#[test]
fn the_api_versions_response_header_is_version_0_at_every_version() {
    for version in ApiKey::ApiVersions.valid_versions() {
        assert_eq!(ApiKey::ApiVersions.response_header_version(version), 0);
    }
    let body = ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code(), ..Default::default() };
    let frame = encode_response(9, ApiKey::ApiVersions, 3, &body).concat();
    assert_eq!(frame[..10], [0, 0, 0, 12, 0, 0, 0, 9, 0, 35]);
}

// contract P1
#[test]
fn an_api_versions_request_of_an_unknown_version_still_has_a_header() {
    let mut w = Writer::new();
    w.i16(18);
    w.i16(99);
    w.i32(1234);
    w.string(false, "from the future");
    w.raw(&[0xff; 7]);
    let mut r = Reader::new(w.finish_contiguous());
    let header = RequestHeader::decode(&mut r).expect("the header is readable");
    assert_eq!(
        (header.key(), header.api_version, header.correlation_id),
        (Ok(ApiKey::ApiVersions), 99, 1234)
    );
}

// contract P2
#[test]
fn produce_is_advertised_from_0_and_decoded_from_3() {
    assert_eq!(ApiKey::Produce.advertised_versions(), 0..=13);
    assert_eq!(ApiKey::Produce.valid_versions(), 3..=13);
    let result = ProduceRequest::decode(&mut Reader::new(Bytes::new()), 2);
    assert!(matches!(result, Err(DecodeError::UnsupportedVersion { version: 2, .. })));
}

// contract P2
#[test]
fn tagged_fields_at_their_default_are_not_serialised() {
    // error code, no keys, throttle time, no tagged field at all
    assert_eq!(encoded(&ApiVersionsResponse::default(), 3), [0, 0, 1, 0, 0, 0, 0, 0]);
    let response = FetchPartitionData::default();
    assert_eq!(response.diverging_epoch.epoch, -1);
}

// contract P2
#[test]
fn unknown_tagged_fields_are_skipped() {
    let mut bytes = encoded(&ApiVersionsResponse::default(), 3);
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend([2, 77, 3, 1, 2, 3, 78, 0]);
    let decoded = ApiVersionsResponse::decode(&mut Reader::new(bytes.into()), 3);
    assert_eq!(decoded, Ok(ApiVersionsResponse::default()));
}

#[test]
fn a_tagged_field_cannot_reach_past_its_size() {
    let mut bytes = encoded(&ApiVersionsResponse::default(), 3);
    bytes.pop();
    // finalized_features_epoch (tag 1, int64) in a size of 4, with enough bytes behind it
    bytes.extend([1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 1]);
    let decoded = ApiVersionsResponse::decode(&mut Reader::new(bytes.into()), 3);
    assert_eq!(decoded, Err(DecodeError::Truncated { needed: 8, remaining: 4 }));
}

#[test]
fn fetched_records_are_sent_without_being_copied() {
    let (first, second) = (Bytes::from(vec![1; 5000]), Bytes::from(vec![2; 70_000]));
    let records: Records = [first.clone(), second.clone()].into_iter().collect();
    let partition = FetchPartitionData { records: Some(records), ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![partition], ..Default::default() };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    for version in [4, 11, 12, 18] {
        let segments = encode_response(1, ApiKey::Fetch, version, &response);
        for sent in [&first, &second] {
            assert!(segments.iter().any(|segment| segment.as_ptr() == sent.as_ptr()), "v{version} copied");
        }
        let frame = segments.concat();
        assert_eq!(frame.len() - 4, u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize);
        let body = Bytes::from(frame).slice(4..);
        let (correlation_id, decoded) =
            decode_response::<FetchRequest>(body.clone(), version).expect("decodes");
        assert_eq!((correlation_id, &decoded), (1, &response));
        let slice = decoded.responses[0].partitions[0].records.clone().expect("records").to_bytes();
        assert!(body.as_ptr_range().contains(&slice.as_ptr()), "v{version} copied on decode");
    }
}

#[test]
fn records_elsewhere_have_their_place_in_the_frame_and_count_to_its_size() {
    let files = [Bytes::from(vec![1; 5000]), Bytes::from(vec![2; 7]), Bytes::from(vec![3; 70_000])];
    let here = Bytes::from(vec![4; 3000]);
    let partition = |records| FetchPartitionData { records: Some(records), ..Default::default() };
    let response = |records: Vec<Records>| {
        let partitions = records.into_iter().map(partition).collect();
        let topic = FetchableTopicResponse { partitions, ..Default::default() };
        FetchResponse { responses: vec![topic], ..Default::default() }
    };
    let elsewhere = |token: usize| Records::elsewhere(token, files[token].len());
    let around =
        response(vec![elsewhere(2), here.clone().into(), elsewhere(0), elsewhere(1), Records::new()]);
    let whole = response(vec![
        files[2].clone().into(),
        here.into(),
        files[0].clone().into(),
        files[1].clone().into(),
        Records::elsewhere(9, 0),
    ]);
    for version in [4, 11, 12, 18] {
        let (parts, places) = encode_response_around(1, ApiKey::Fetch, version, &around);
        assert_eq!(places.iter().map(|(_, token)| *token).collect::<Vec<_>>(), [2, 0, 1]);
        let mut frame = Vec::new();
        for at in 0..=parts.len() {
            for (_, token) in places.iter().filter(|(before, _)| *before == at) {
                frame.extend_from_slice(&files[*token]);
            }
            parts.get(at).into_iter().for_each(|part| frame.extend_from_slice(part));
        }
        assert!(frame == encode_response(1, ApiKey::Fetch, version, &whole).concat(), "v{version}");
    }
}

#[test]
fn produced_records_are_a_slice_of_the_frame() {
    let records = Bytes::from(vec![7; 3000]);
    let partition = PartitionProduceData { index: 1, records: Some(records) };
    let topic = TopicProduceData { name: "t".into(), partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
    let frame = Bytes::from(encode_request(5, 9, None, &request).concat()).slice(4..);
    let mut r = Reader::new(frame.clone());
    let header = RequestHeader::decode(&mut r).expect("header");
    assert_eq!(header.client_id, None);
    let decoded = ProduceRequest::decode(&mut r, 9).expect("body");
    assert_eq!((&decoded, r.remaining()), (&request, 0));
    let slice = decoded.topic_data[0].partition_data[0].records.clone().expect("records");
    assert!(frame.as_ptr_range().contains(&slice.as_ptr()));
}

#[test]
fn null_becomes_empty_where_a_version_cannot_say_it() {
    let request = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(encoded(&request, 0), [0, 0, 0, 0]);
    assert_eq!(encoded(&request, 1), [0xff; 4]);
    let result = MetadataRequest::decode(&mut Reader::new(Bytes::from_static(&[0xff; 4])), 0);
    assert_eq!(result, Err(DecodeError::UnexpectedNull));
}

#[test]
fn a_string_longer_than_kafka_allows_is_cut_between_characters() {
    let long = format!("{}é", "a".repeat(32_766));
    let mut w = Writer::new();
    w.string(false, &long);
    assert_eq!(w.len(), 2 + 32_766);
    let mut w = Writer::new();
    w.raw(&[0x81, 0x80, 0x02]); // compact length of 32,768
    w.raw(&[b'a'; 32_768]);
    let result = Reader::new(w.finish_contiguous()).nullable_string(true);
    assert_eq!(result, Err(DecodeError::InvalidLength(32_768)));
}

#[test]
fn a_string_that_is_not_utf8_is_refused() {
    let result = Reader::new(Bytes::from_static(&[0, 2, 0xc3, 0x28])).nullable_string(false);
    assert_eq!(result, Err(DecodeError::Utf8));
}

// contract G3
#[test]
fn consumer_offsets_records_have_kafkas_bytes() {
    let key = OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 2 };
    let bytes = encode_versioned(&key, 1);
    assert_eq!(bytes[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 2]);
    assert_eq!(decode_versioned(bytes), Ok((1, key)));
    let value =
        OffsetCommitValue { offset: 5, metadata: "m".into(), commit_timestamp: 9, ..Default::default() };
    let bytes = encode_versioned(&value, 3);
    let expected = [0, 3, 0, 0, 0, 0, 0, 0, 0, 5, 255, 255, 255, 255, 0, 1, b'm', 0, 0, 0, 0, 0, 0, 0, 9];
    assert_eq!(bytes[..], expected);
    let group = encode_versioned(&GroupMetadataKey { group: "g".into() }, 2);
    assert_eq!(group[..], [0, 2, 0, 1, b'g']);
    let member = MemberMetadata { member_id: "m".into(), session_timeout: 10, ..Default::default() };
    let value = GroupMetadataValue { members: vec![member], ..Default::default() };
    assert_eq!(decode_versioned(encode_versioned(&value, 3)), Ok((3, value)));
}

#[test]
fn error_codes_have_kafkas_numbers() {
    for pair in ErrorCode::ALL.windows(2) {
        assert_eq!(pair[0].code() + 1, pair[1].code());
    }
    assert_eq!(ErrorCode::from_code(2).to_string(), "CORRUPT_MESSAGE");
    assert!(ErrorCode::CoordinatorLoadInProgress.retriable() && !ErrorCode::InvalidRecord.retriable());
    assert_eq!(ErrorCode::from_code(9999), ErrorCode::UnknownServerError);
    for code in ErrorCode::ALL {
        use kafka_protocol::error::{ParseResponseErrorCode, ResponseError};
        if let Some(theirs) = code.code().err()
            && !matches!(theirs, ResponseError::Unknown(_))
        {
            let flat = |name: &str| name.replace('_', "").to_lowercase();
            let theirs_name = format!("{theirs:?}");
            assert_eq!(flat(&format!("{code:?}")), flat(&theirs_name));
            // Kafka made CONCURRENT_TRANSACTIONS retriable; the oracle has the older reading.
            let expected = theirs.is_retriable() || *code == ErrorCode::ConcurrentTransactions;
            assert_eq!(code.retriable(), expected, "{code}");
        }
    }
}
