//! The server over real TCP, against a store that the tests control.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking, as the test does")]

mod acknowledgements;
mod delivery;
mod exact;
mod lifecycle;
mod refusals;
mod support;

use crate::support::client::{Client, connect, publish, qos};
use crate::support::store::MemoryStore;
use crate::support::{Server, on_shard_thread, until};
use headwater_mqtt::Limits;
use headwater_mqtt::codec::{
    Acknowledgement, Connect, ConnectProperties, Disconnect, Packet, PacketId, Publish,
    PublishProperties, QoS, ReasonCode, SubscriptionOptions, TopicFilters, Unsubscribe,
    UserProperties, UserPropertiesBuf, Version, Will, WillProperties,
};
use headwater_mqtt::counters::{DropCause, RefuseCause, ShardCounters};
use headwater_mqtt::{Refusal, Shared};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

const VERSIONS: [Version; 3] = [Version::V3, Version::V311, Version::V5];

fn numbered(id: u16) -> String {
    format!("message {id}")
}
