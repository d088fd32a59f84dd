//! MQTT 3.1, 3.1.1 and 5: a strict sans-IO codec, sessions, a router, and one trait to the outside.
//!
//! # Composing a server
//! One [`Shared`] per node, one [`Shard`] per thread. The process owns threads, runtimes and listeners; a shard takes
//! accepted sockets:
//!
//! ```ignore
//! let shared = Shared::new(store, Limits::default());       // store: Arc<impl Store>
//! // On each thread, inside a `tokio::task::LocalSet` on a current-thread runtime:
//! let shard = Shard::new(shared.clone());
//! loop {
//!     let (stream, peer) = listener.accept().await?;         // or sockets handed over from elsewhere
//!     shard.serve(stream, peer);                             // never blocks, never fails
//! }
//! // At the end:
//! shared.stop(Duration::from_secs(5));                       // once
//! shard.drained().await;                                     // on each thread
//! // Metrics, from any thread, at any time:
//! for counters in shared.counters() { /* ShardCounters: sum them */ }
//! ```
//!
//! `examples/in_memory.rs` in this crate is a whole server on a store in memory.

pub mod codec;
mod connection;
pub mod counters;
pub mod filter;
mod handshake;
mod limits;
mod registry;
mod router;
mod server;
mod session;
mod shard;
mod store;
pub mod topic;
pub mod tree;

pub use limits::Limits;
pub use server::Shared;
pub use shard::Shard;
pub use store::{Message, Outcome, Publisher, ReadFailure, Refusal, Settled, Store, StreamId};
