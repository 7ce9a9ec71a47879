//! Error codes are found wherever a message has them.

use crate::Message;
use crate::messages::*;

fn codes(message: &impl Message) -> Vec<i16> {
    let mut codes = Vec::new();
    message.error_codes(|code| codes.push(code));
    codes
}

#[test]
fn error_codes_are_found_at_every_depth_and_zeros_are_passed_over() {
    let partition = |error_code| FetchPartitionData { error_code, ..Default::default() };
    let topic = |errors: &[i16]| FetchableTopicResponse {
        partitions: errors.iter().copied().map(partition).collect(),
        ..Default::default()
    };
    let responses = vec![topic(&[0, 3]), topic(&[]), topic(&[56, 0, -1])];
    assert_eq!(codes(&FetchResponse { error_code: 70, responses, ..Default::default() }), [70, 3, 56, -1]);
    assert!(codes(&FetchResponse::default()).is_empty());
    let heartbeat = HeartbeatResponse { error_code: 27, ..Default::default() };
    assert_eq!(codes(&heartbeat), [27]);
}

#[test]
fn messages_without_error_codes_have_none() {
    assert!(codes(&FetchRequest { max_bytes: 3, ..Default::default() }).is_empty());
}
