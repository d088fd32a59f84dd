//! Round trips of headers and bodies, and what is refused.

use super::*;
use crate::message;
use crate::wire::messages::*;

const LIMITS: Limits = Limits::for_frames_of(1 << 20);

fn flexible(key: i16, version: i16) -> bool {
    match key {
        3 => is_flexible::<MetadataRequest>(version),
        18 => is_flexible::<ApiVersionsRequest>(version),
        _ => false,
    }
}

#[test]
fn a_request_comes_back_as_it_was_sent() {
    let topic = message!(metadata_request::MetadataRequestTopic { name: Some("plant".into()) });
    let sent = message!(MetadataRequest { topics: Some(vec![topic]) });
    for version in 4..=12 {
        let mut frame = BytesMut::new();
        let client = StrBytes::from("uplink");
        let written = encode_request(&mut frame, 7, Some(&client), version, &sent).unwrap();
        assert_eq!(written, frame.len());
        assert_eq!(frame[..4], u32::try_from(written - 4).unwrap().to_be_bytes());
        let frame = frame.freeze().slice(4..);
        let (head, body) = decode_request_head(frame, LIMITS, flexible).unwrap();
        assert_eq!((head.api_key, head.api_version, head.correlation_id), (3, version, 7));
        assert_eq!(head.client_id.as_deref(), Some("uplink"));
        let found: MetadataRequest = decode_request(body, version, LIMITS).unwrap();
        assert_eq!(found, sent);
    }
}

#[test]
fn a_response_comes_back_and_its_correlation_is_checked() {
    let sent = message!(MetadataResponse { cluster_id: Some("cluster".into()) });
    for version in 2..=12 {
        let frame = encode_response::<MetadataRequest>(9, version, &sent).unwrap().slice(4..);
        assert_eq!(correlation_of(&frame), Some(9));
        let found = decode_response::<MetadataRequest>(frame.clone(), 9, version, LIMITS).unwrap();
        assert_eq!(found, sent);
        let other = decode_response::<MetadataRequest>(frame, 8, version, LIMITS);
        assert_eq!(other, Err(WireError::Correlation { expected: 8, found: 9 }));
    }
}

#[test]
fn api_versions_falls_back_to_version_0() {
    let refused =
        message!(ApiVersionsResponse { error_code: ErrorCode::UnsupportedVersion.code() });
    let frame = encode_response::<ApiVersionsRequest>(1, 0, &refused).unwrap().slice(4..);
    let found = decode_api_versions_response(frame, 1, 4, LIMITS).unwrap();
    assert_eq!(found.error_code, 35);
}

#[test]
fn hostile_array_lengths_are_refused_before_allocation() {
    // Metadata version 0: correlation, no client id, then an array length of 2^31 - 1.
    let body = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
    let found = decode_request::<MetadataRequest>(body, 0, LIMITS);
    assert!(matches!(found, Err(WireError::Malformed(_))), "{found:?}");
}

#[test]
fn trailing_bytes_and_short_heads_are_malformed() {
    let body = Bytes::from_static(&[0, 0, 0, 0, 99]);
    assert!(decode_request::<MetadataRequest>(body, 0, LIMITS).is_err());
    for bytes in [&b""[..], b"\0\x03", b"\0\x03\0\0\0\0\0\x01", b"\0\x03\0\0\0\0\0\x01\0\x09ab"] {
        let frame = Bytes::copy_from_slice(bytes);
        assert!(decode_request_head(frame, LIMITS, flexible).is_err(), "{bytes:?}");
    }
}
