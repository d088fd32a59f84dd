//! Headers and bodies: from bytes to a request or response, and back to whole frames.
//!
//! Invariant: a body is decoded only at a version its schema has, wholly (no bytes may remain), and
//! within [`Limits`]. Nothing here panics on what a peer sent.
//! Neighbours: `wire::frame` below, the server's and the client's connections above.

use super::messages::{ApiVersionsResponse, KafkaRequest, RequestResponsePair, StrBytes};
use super::{ErrorCode, LENGTH_BYTES};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_wire::{OutboundFrameLimits, ResponseHeader, response_header_version_for};
use kafka_wire_core::{
    ApiVersion, DecodeError, DecodeLimits, Decoder, EncodeError, KafkaDecode, KafkaEncode,
};

/// Bytes of a request's header up to the correlation id, which every version has.
const HEAD_BYTES_MIN: usize = 8;

/// What a message may hold while it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a frame.
    pub frame_bytes_max: usize,
    /// Bytes of one string.
    pub string_bytes_max: usize,
    /// Elements of one array.
    pub array_elements_max: usize,
}

impl Limits {
    /// Limits for frames of up to `frame_bytes_max`, with Kafka's own bound on strings.
    #[must_use]
    pub const fn for_frames_of(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, string_bytes_max: 32_767, array_elements_max: 100_000 }
    }

    fn decode_limits(self) -> DecodeLimits {
        let mut limits = DecodeLimits::default();
        limits.max_frame_bytes = self.frame_bytes_max;
        limits.max_string_bytes = self.string_bytes_max;
        limits.max_bytes_bytes = self.frame_bytes_max;
        limits.max_array_elements = self.array_elements_max;
        limits.max_tagged_fields = 64;
        limits.max_tag_bytes = self.string_bytes_max;
        limits.max_total_tag_bytes = self.string_bytes_max;
        limits
    }
}

/// Why a message was not decoded or not encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes are not that message.
    #[error("malformed message: {0}")]
    Malformed(DecodeError),
    /// The message has no form at that version, or is too large for a frame.
    #[error("message cannot be encoded: {0}")]
    Unencodable(EncodeError),
    /// A request that is read by hand is malformed or beyond its bounds.
    #[error("malformed message: {0}")]
    Request(&'static str),
    /// More bytes than a frame's length can say.
    #[error("message is longer than a frame can be")]
    TooLong,
    /// A response answers another request than the one asked about.
    #[error("response carries correlation id {found}, expected {expected}")]
    Correlation {
        /// Of the request.
        expected: i32,
        /// In the response.
        found: i32,
    },
}

/// The header of a request, as far as a server acts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// API key.
    pub api_key: i16,
    /// Version of the body (and, through it, of the header).
    pub api_version: i16,
    /// To be repeated in the response.
    pub correlation_id: i32,
    /// What the client calls itself; at most 32,767 bytes.
    pub client_id: Option<StrBytes>,
}

/// Whether requests of type `R` have tagged fields at `version` (KIP-482).
#[must_use]
pub fn is_flexible<R: KafkaRequest>(version: i16) -> bool {
    R::is_flexible(ApiVersion::new(version))
}

/// Reads a request's header. `flexible` tells from key and version whether tagged fields follow it;
/// for a key it does not know it answers `false`. Answers the header and the body.
///
/// # Errors
/// [`WireError::Malformed`]: close the connection.
pub fn decode_request_head(
    frame: Bytes,
    limits: Limits,
    flexible: impl FnOnce(i16, i16) -> bool,
) -> Result<(RequestHead, Bytes), WireError> {
    let mut decoder =
        Decoder::new(frame.clone(), limits.decode_limits()).map_err(WireError::Malformed)?;
    let head = read_head(&mut decoder, flexible).map_err(WireError::Malformed)?;
    let body = frame.slice(decoder.offset()..);
    debug_assert!(decoder.offset() >= HEAD_BYTES_MIN);
    Ok((head, body))
}

fn read_head(
    decoder: &mut Decoder,
    flexible: impl FnOnce(i16, i16) -> bool,
) -> Result<RequestHead, DecodeError> {
    let api_key = decoder.read_i16()?;
    let api_version = decoder.read_i16()?;
    let correlation_id = decoder.read_i32()?;
    // The client id is never compact, so that a server can read it before it knows the version.
    let client_id = decoder.read_nullable_string()?;
    if flexible(api_key, api_version) {
        decoder.read_tagged_fields()?;
    }
    Ok(RequestHead { api_key, api_version, correlation_id, client_id })
}

/// Reads a request's whole body.
///
/// # Errors
/// [`WireError::Malformed`], also for bytes that remain and for a version the schema does not have.
pub fn decode_request<R: KafkaRequest>(
    body: Bytes,
    version: i16,
    limits: Limits,
) -> Result<R, WireError> {
    R::decode_from_bytes(body, ApiVersion::new(version), limits.decode_limits())
        .map_err(WireError::Malformed)
}

/// Makes a whole request frame, its length included, at the end of `into`.
///
/// # Errors
/// [`WireError::Unencodable`]; `into` is as before then.
pub fn encode_request<R: KafkaRequest>(
    into: &mut BytesMut,
    correlation_id: i32,
    client_id: Option<&StrBytes>,
    version: i16,
    request: &R,
) -> Result<usize, WireError> {
    kafka_wire::encode_request(
        into,
        correlation_id,
        client_id.cloned(),
        request,
        ApiVersion::new(version),
        OutboundFrameLimits::new(i32::MAX as usize),
    )
    .map_err(WireError::Unencodable)
}

/// Makes the whole frame of the response to a request of type `R`, its length included.
///
/// # Errors
/// [`WireError::Unencodable`]: a field that the version does not have was set.
pub fn encode_response<R: RequestResponsePair>(
    correlation_id: i32,
    version: i16,
    response: &R::Response,
) -> Result<Bytes, WireError> {
    let make = || -> Result<BytesMut, EncodeError> {
        let version = ApiVersion::new(version);
        let header_version = response_header_version_for::<R>(version)?;
        let mut frame = BytesMut::with_capacity(64);
        frame.put_i32(0);
        let mut header = ResponseHeader::default();
        header.correlation_id = correlation_id;
        header.encode_into(&mut frame, ApiVersion::new(header_version))?;
        response.encode_into(&mut frame, version)?;
        Ok(frame)
    };
    let mut frame = make().map_err(WireError::Unencodable)?;
    let length = i32::try_from(frame.len() - LENGTH_BYTES)
        .map_err(|_| WireError::Unencodable(EncodeError::FrameTooLarge { bytes: frame.len() }))?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(frame.freeze())
}

/// The correlation id of a response frame (without its length); it is in front in every version.
#[must_use]
pub fn correlation_of(frame: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(frame.first_chunk::<4>().copied()?))
}

/// Reads the response frame (without its length) to a request of type `R` sent at `version`.
///
/// # Errors
/// [`WireError`]; the connection is of no further use.
pub fn decode_response<R: RequestResponsePair>(
    frame: Bytes,
    correlation_id: i32,
    version: i16,
    limits: Limits,
) -> Result<R::Response, WireError> {
    let header_version = response_header_version_for::<R>(ApiVersion::new(version))
        .map_err(WireError::Unencodable)?;
    let mut decoder = Decoder::new(frame, limits.decode_limits()).map_err(WireError::Malformed)?;
    let header = ResponseHeader::decode(&mut decoder, ApiVersion::new(header_version))
        .map_err(WireError::Malformed)?;
    if header.correlation_id != correlation_id {
        return Err(WireError::Correlation {
            expected: correlation_id,
            found: header.correlation_id,
        });
    }
    let response = R::Response::decode(&mut decoder, ApiVersion::new(version))
        .map_err(WireError::Malformed)?;
    decoder.finish().map_err(WireError::Malformed)?;
    Ok(response)
}

/// Reads the response to an ApiVersions request sent at `version`: a broker that does not know that
/// version answers with version 0 and error 35, whatever was asked (KIP-511).
///
/// # Errors
/// [`WireError`]; the connection is of no further use.
pub fn decode_api_versions_response(
    frame: Bytes,
    correlation_id: i32,
    version: i16,
    limits: Limits,
) -> Result<ApiVersionsResponse, WireError> {
    // The header is version 0 here in every version, so the error code stands at byte 4.
    let code = frame.get(4..6).map(|code| i16::from_be_bytes([code[0], code[1]]));
    let unsupported = code == Some(ErrorCode::UnsupportedVersion.code());
    let version = if unsupported { 0 } else { version };
    decode_response::<kafka_wire::ApiVersionsRequest>(frame, correlation_id, version, limits)
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
