//! Frames and versions: what a connection answers, and what ends it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use heizer_runtime::net::Stream;
use heizer_runtime::time::{self, now, timeout};
use heizer_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FindCoordinatorRequest, MetadataRequest,
};
use heizer_wire::{ApiKey, ErrorCode, Message, Reader, Request, decode_response, encode_request};

use crate::cluster::{ADDR, Cluster, connect};
use crate::kafka::{self, assert_code};

/// A connection without a client's manners.
struct Raw {
    stream: Stream,
    buffer: BytesMut,
}

impl Raw {
    async fn connect() -> Raw {
        drop(connect().await);
        let stream = Stream::connect(ADDR.parse().expect("an address")).await.expect("connected");
        Raw { stream, buffer: BytesMut::new() }
    }

    async fn send(&self, frame: impl Into<Bytes>) {
        self.stream.write_all(vec![frame.into()]).await.expect("sent");
    }

    async fn request<R: Request>(&self, correlation_id: i32, version: i16, request: &R) {
        let parts = encode_request(correlation_id, version, Some("raw"), request);
        self.stream.write_all(parts).await.expect("sent");
    }

    /// The next frame without its size; none when the broker has closed.
    async fn answer(&mut self) -> Option<Bytes> {
        loop {
            if let Some(size) = self.buffer.first_chunk::<4>() {
                let size = u32::from_be_bytes(*size) as usize;
                if self.buffer.len() >= 4 + size {
                    return Some(self.buffer.split_to(4 + size).freeze().slice(4..));
                }
            }
            self.buffer.reserve(4096);
            let (read, buffer) = self.stream.read(std::mem::take(&mut self.buffer)).await;
            self.buffer = buffer;
            if matches!(read, Ok(0) | Err(_)) {
                assert!(self.buffer.is_empty(), "no half an answer");
                return None;
            }
        }
    }

    async fn assert_closed(&mut self, why: &str) {
        let answer = timeout(Duration::from_secs(5), self.answer()).await.expect(why);
        assert_eq!(answer, None, "{why}");
    }
}

/// A frame with header version 1 and `body`, size first.
fn frame(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u32(8 + 2 + 3 + body.len() as u32);
    frame.put_i16(api_key);
    frame.put_i16(version);
    frame.put_i32(correlation_id);
    frame.put_slice(b"\0\x03raw");
    frame.put_slice(body);
    frame.freeze()
}

/// contract P1
#[test]
fn unknown_versions_of_api_versions_are_answered_at_version_0_on_a_connection_that_stays() {
    let mut cluster = Cluster::new(1);
    cluster.run(async {
        let mut raw = Raw::connect().await;
        for version in [5, 99, i16::MAX, -1] {
            raw.send(frame(18, version, 77, b"\0\0\0")).await;
            let mut reader = Reader::new(raw.answer().await.expect("an answer"));
            assert_eq!(reader.i32().expect("a correlation id"), 77);
            let answer = ApiVersionsResponse::decode(&mut reader, 0).expect("a version 0 body");
            assert_eq!(reader.remaining(), 0);
            assert_code(answer.error_code, ErrorCode::UnsupportedVersion);
            let [own] = answer.api_keys.as_slice() else { panic!("{answer:?}") };
            assert_eq!((own.api_key, own.min_version, own.max_version), (18, 0, 4));
        }
        let request =
            ApiVersionsRequest { client_software_name: "raw".into(), client_software_version: "1.0".into() };
        for version in 0..=4 {
            raw.request(5, version, &request).await;
            let answer = raw.answer().await.expect("the connection has stayed");
            let (id, answer) = decode_response::<ApiVersionsRequest>(answer, version).expect("decodes");
            assert_eq!((id, answer.error_code), (5, 0));
            let range = |key: ApiKey| {
                let api = answer.api_keys.iter().find(|api| api.api_key == i16::from(key));
                api.map(|api| (api.min_version, api.max_version))
            };
            // contract P2
            assert_eq!(range(ApiKey::Produce), Some((0, 13)));
            assert_eq!(range(ApiKey::JoinGroup), Some((0, 9)));
            assert_eq!(range(ApiKey::Fetch), Some((4, 18)));
            assert_eq!(range(ApiKey::Metadata), Some((0, 13)));
            assert_eq!(range(ApiKey::AlterConfigs), Some((0, 2)));
            assert_eq!(range(ApiKey::CreatePartitions), Some((0, 3)));
            assert_eq!(range(ApiKey::IncrementalAlterConfigs), Some((0, 1)));
            assert_eq!(range(ApiKey::ListConfigResources), Some((0, 1)));
            assert_eq!(range(ApiKey::DescribeTopicPartitions), Some((0, 0)));
            assert_eq!(range(ApiKey::DeleteRecords), Some((0, 2)));
            assert_eq!(range(ApiKey::DeleteGroups), Some((0, 2)));
            assert_eq!(range(ApiKey::OffsetDelete), Some((0, 0)));
        }
    });
    cluster.finish();
}

/// contract P3
#[test]
fn what_is_not_served_closes_the_connection_without_an_answer() {
    let mut cluster = Cluster::new(2);
    cluster.run(async {
        let cases: [(&str, Bytes); 7] = [
            ("an unknown key", frame(999, 0, 1, b"")),
            ("a negative key", frame(-1, 0, 1, b"")),
            ("an unknown version", frame(3, 99, 1, b"\0\0\0\0")),
            // contract P2: told of, and not served.
            ("Produce version 2", frame(0, 2, 1, b"\0\x01\0\0\0\0\0\0\0\0")),
            ("a body that claims a billion topics", frame(3, 1, 1, &1_000_000_000_u32.to_be_bytes())),
            ("a frame of negative size", Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0, 3])),
            ("a frame beyond socket.request.max.bytes", Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 3])),
        ];
        for (what, frame) in cases {
            let mut raw = Raw::connect().await;
            raw.send(frame).await;
            raw.assert_closed(what).await;
        }
        let others = kafka::describe(&connect().await, "nothing").await;
        assert_code(others.error_code, ErrorCode::UnknownTopicOrPartition);
    });
    cluster.finish();
}

/// contract P4
#[test]
fn acks_0_gets_no_byte_and_answers_come_in_request_order() {
    let mut cluster = Cluster::new(3);
    cluster.run(async {
        let connection = connect().await;
        kafka::create(&connection, "quiet", 4, &[]).await;
        kafka::create(&connection, "idle", 1, &[]).await;
        let mut raw = Raw::connect().await;
        for number in 0..20 {
            let records = kafka::batch(&["x"]);
            let acks = if number % 2 == 0 { 0 } else { kafka::ALL };
            let request = kafka::produce_request("quiet", number % 4, acks, records);
            raw.request(number, 9, &request).await;
            // A fetch that waits holds up nobody's order but its own answers'.
            let mut fetch = kafka::fetch_request("idle", &[(0, 0)]);
            fetch.max_wait_ms = 20;
            raw.request(100 + number, 11, &fetch).await;
            raw.request(200 + number, 8, &MetadataRequest::default()).await;
        }
        for number in 0..20 {
            let expected = [number, 100 + number, 200 + number];
            for expected in expected.into_iter().skip(usize::from(number % 2 == 0)) {
                let answer = raw.answer().await.expect("an answer");
                let correlation_id = i32::from_be_bytes(*answer.first_chunk().expect("an id"));
                assert_eq!(correlation_id, expected);
            }
        }
        // Nobody says when acks=0 is durable.
        time::sleep(Duration::from_secs(1)).await;
        for partition in 0..4 {
            assert_eq!(kafka::read_all(&connection, "quiet", partition).await.len(), 5);
        }
    });
    cluster.finish();
}

/// contract P4: the only way to tell of an error is to close.
#[test]
fn an_error_at_acks_0_closes_the_connection() {
    let mut cluster = Cluster::new(4);
    cluster.run(async {
        let mut raw = Raw::connect().await;
        raw.request(1, 9, &kafka::produce_request("missing", 0, 0, kafka::batch(&["x"]))).await;
        raw.assert_closed("an unknown topic").await;
    });
    cluster.finish();
}

/// contract P8
#[test]
fn coordinators_are_found_one_by_one_and_in_batches() {
    let mut cluster = Cluster::new(5);
    cluster.run(async {
        let connection = connect().await;
        let started = now();
        let single = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        for version in 0..=3 {
            // The first answer may be that the coordinator is being made: retriable, never anything else.
            loop {
                let answer = kafka::ask_at(&connection, version, &single).await;
                let code = ErrorCode::from_code(answer.error_code);
                if code == ErrorCode::None {
                    assert_eq!((&*answer.host, answer.port), ("10.0.0.1", 9092));
                    break;
                }
                assert!(code.retriable(), "{code}");
                assert!(now() - started < Duration::from_secs(30), "{code}");
            }
        }
        let coordinator_keys: Vec<_> = ["a", "b", "c"].map(Into::into).to_vec();
        let batch = FindCoordinatorRequest { coordinator_keys, ..Default::default() };
        for version in 4..=6 {
            let answer = kafka::ask_at(&connection, version, &batch).await;
            let found: Vec<_> = answer.coordinators.iter().map(|c| (&*c.key, c.error_code, c.port)).collect();
            assert_eq!(found, [("a", 0, 9092), ("b", 0, 9092), ("c", 0, 9092)]);
        }
    });
    cluster.finish();
}
