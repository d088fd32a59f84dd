//! MQTT 3.1, 3.1.1 and 5: a strict sans-IO codec, sessions, a router, and one trait to the outside.

pub mod codec;
pub mod filter;
mod store;
pub mod topic;
pub mod tree;

pub use store::{Message, Outcome, Publisher, ReadFailure, Refusal, Settled, Store, StreamId};
