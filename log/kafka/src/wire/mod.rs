//! The wire: frames, headers, versions, messages and error codes of the Kafka protocol.
//!
//! Invariant: nothing is allocated from a length that has not been checked against a limit, and
//! every array and string of a message is bounded by [`Limits`] while it is decoded.
//! This is the only module that names `kafka-wire`, the codec crate; the server and the client
//! both stand on what is re-exported here.
//!
//! References: <https://kafka.apache.org/protocol>, KIP-482 (tagged fields), KIP-511 (ApiVersions).

mod error_code;
mod frame;
mod message;
pub mod messages;
mod version;
mod writer;

pub use error_code::ErrorCode;
pub use frame::{FrameError, FrameReader, LENGTH_BYTES};
pub use message::{
    Limits, RequestHead, WireError, correlation_of, decode_api_versions_response, decode_request,
    decode_request_head, decode_response, encode_request, encode_response, is_flexible,
};
pub use version::{ApiKey, Versions, negotiate};
pub use writer::Writer;

/// Builds a message from the fields that differ from the protocol's defaults.
///
/// The codec's structs are open for growth (`non_exhaustive`), so they cannot be written as literals.
/// ```
/// use headwater_kafka::{message, wire::messages::ApiVersionsRequest};
/// let request = message!(ApiVersionsRequest { client_software_name: "headwater".into() });
/// assert_eq!(&*request.client_software_name, "headwater");
/// ```
#[macro_export]
macro_rules! message {
    ($type:path { $($field:ident : $value:expr),+ $(,)? }) => {{
        let mut message = <$type>::default();
        $( message.$field = $value; )+
        message
    }};
}
