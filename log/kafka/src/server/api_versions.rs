//! ApiVersions (key 18), versions 0-4.
//!
//! v1 adds the throttle time (KIP-124), v3 tagged fields, the client's software name and a fallback
//! to version 0 (KIP-511), v4 features whose lowest version is 0 (KIP-1022).
//! Invariant: an unknown version is never an error of the connection: it is answered in version 0's
//! form with UNSUPPORTED_VERSION and our own range, so that the client can ask again.
//! Neighbours: `apis` has the table that is printed here.

use super::{Door, apis};
use crate::message;
use crate::wire::messages::{ApiVersionsRequest, ApiVersionsResponse, api_versions_response};
use crate::wire::{ApiKey, ErrorCode, Limits, RequestHead, Versions, WireError};
use crate::wire::{decode_request, encode_response};
use bytes::Bytes;

/// Advertised and implemented.
pub(super) const VERSIONS: Versions = Versions::new(0, 4);

/// Answers in the version asked for, else in version 0.
pub(super) fn answer(
    door: &Door,
    head: &RequestHead,
    body: Bytes,
    limits: Limits,
) -> Result<Vec<Bytes>, WireError> {
    let (version, response) = if VERSIONS.contains(head.api_version) {
        let request: ApiVersionsRequest = decode_request(body, head.api_version, limits)?;
        (head.api_version, respond(door, &request, head.api_version))
    } else {
        let own = apis::TABLE.iter().filter(|api| api.key == ApiKey::API_VERSIONS);
        let response = message!(ApiVersionsResponse {
            error_code: door.code(ErrorCode::UnsupportedVersion),
            api_keys: own.map(entry).collect(),
        });
        (0, response)
    };
    encode_response::<ApiVersionsRequest>(head.correlation_id, version, &response)
        .map(|frame| vec![frame])
}

fn respond(door: &Door, request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if version >= 3 && !named {
        return message!(ApiVersionsResponse { error_code: door.code(ErrorCode::InvalidRequest) });
    }
    message!(ApiVersionsResponse { api_keys: apis::TABLE.iter().map(entry).collect() })
}

fn entry(api: &apis::Api) -> api_versions_response::ApiVersion {
    message!(api_versions_response::ApiVersion {
        api_key: api.key.0,
        min_version: api.versions.min,
        max_version: api.versions.max,
    })
}

/// KIP-511: `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`.
fn is_software_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let plain = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    plain(bytes.first())
        && plain(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::is_software_name;

    #[test]
    fn software_names_are_those_of_kip_511() {
        for good in ["a", "apache-kafka-java", "4.3.0", "librdkafka", "A.-9"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", ".a", "a/b", "ü"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }
}
