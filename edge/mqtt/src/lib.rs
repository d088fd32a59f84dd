//! MQTT 3.1, 3.1.1 and 5: a strict sans-IO codec, sessions, a router, and one trait to the outside.
//!
//! # Composing a server
//! One [`Shared`] per node, one [`Shard`] per thread. The process owns threads, runtimes and listeners; a shard takes
//! accepted sockets:
//!
//! ```
//! use headwater_mqtt::{Limits, Shard, Shared, Store};
//! use std::{io, sync::Arc, time::Duration};
//! use tokio::{net::TcpListener, sync::oneshot};
//!
//! /// One for the node, made before the threads.
//! fn server<S: Store>(store: Arc<S>) -> Arc<Shared<S>> {
//!     Shared::new(store, Limits::default())
//! }
//!
//! /// On each thread, inside a `tokio::task::LocalSet` on a current-thread runtime.
//! async fn serve<S: Store>(
//!     shared: Arc<Shared<S>>,
//!     listener: TcpListener, // or sockets handed over from elsewhere
//!     mut stop: oneshot::Receiver<()>,
//! ) -> io::Result<()> {
//!     let shard = Shard::new(shared.clone());
//!     loop {
//!         tokio::select! {
//!             accepted = listener.accept() => {
//!                 let (stream, peer) = accepted?;
//!                 shard.serve(stream, peer); // never blocks, never fails
//!             }
//!             _ = &mut stop => break,
//!         }
//!     }
//!     shared.stop(Duration::from_secs(5)); // from anywhere, once is enough
//!     shard.drained().await; // on each thread
//!     Ok(())
//! }
//! ```
//!
//! [`Shared::counters`] gives the metrics, from any thread at any time.
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
