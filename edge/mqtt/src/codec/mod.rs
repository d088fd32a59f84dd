//! The codec: bytes to packets and back, strict, without I/O. Decoded packets borrow from the input.
//!
//! Step 2 of a PUBLISH: from the connection's read buffer, to the session. One codec for MQTT 3.1, 3.1.1 and 5, both
//! directions. Invariant: a frame is judged whole before it is consumed. `Incomplete` means that more bytes are really
//! needed; a body that is too short for its fields is an error; nothing is allocated while decoding; and `encode`
//! never writes what a peer's strict decoder would refuse.
//!
//! - `packet`: the fifteen packets; `properties`: MQTT 5's properties; `reason`: reason codes and where each is legal
//! - `decode`, `encode`: the two directions; `wire`: integers, strings, lengths; `topic`: names, filters, `$share`
//! - `error`: what is wrong with bytes from a peer, and what the protocol says to answer

mod decode;
mod encode;
mod error;
mod packet;
mod properties;
mod reason;
pub mod topic;
mod wire;

pub use decode::{Decoded, Decoder, Receiver};
pub use encode::{Acknowledgement, encode, encode_publish_header, encoded_bytes};
pub use error::{Answer, DecodeError, EncodeError, Violation};
pub use packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Packet, PacketId, PacketType, Publish, QoS,
    ReasonCodes, ReasonCodesIter, RetainHandling, SubAck, Subscribe, Subscription,
    SubscriptionOptions, Subscriptions, TopicFilters, UnsubAck, Unsubscribe, Version, Will,
};
pub use properties::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, SubscriptionIdentifiers, UserProperties,
    UserPropertiesBuf, WillProperties,
};
pub use reason::ReasonCode;
