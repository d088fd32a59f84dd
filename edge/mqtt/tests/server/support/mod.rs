//! What the server's tests share.

pub(crate) mod client;
pub(crate) mod store;

use headwater_mqtt::counters::{DropCause, RefuseCause};
use headwater_mqtt::{Limits, Shard, Shared};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use store::MemoryStore;
use tokio::net::TcpListener;
use tokio::task::LocalSet;

/// A server of one shard on the test's own thread.
pub(crate) struct Server {
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) shared: Arc<Shared<MemoryStore>>,
    pub(crate) shard: Shard<MemoryStore>,
    pub(crate) address: SocketAddr,
}

impl Server {
    /// Starts on a free loopback port, with two streams.
    pub(crate) async fn start(limits: Limits) -> Self {
        let store = MemoryStore::new(2);
        let shared = Shared::new(store.clone(), limits);
        let (shard, address) = shard(&shared).await;
        Self { store, shared, shard, address }
    }

    pub(crate) fn dropped(&self, cause: DropCause) -> u64 {
        self.shared.counters().iter().map(|c| c.dropped(cause)).sum()
    }

    pub(crate) fn refused(&self, cause: RefuseCause) -> u64 {
        self.shared.counters().iter().map(|c| c.refused(cause)).sum()
    }
}

/// A shard on this thread with a listener of its own.
pub(crate) async fn shard(shared: &Arc<Shared<MemoryStore>>) -> (Shard<MemoryStore>, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shard = Shard::new(shared.clone());
    let serving = shard.clone();
    tokio::task::spawn_local(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            serving.serve(stream, peer);
        }
    });
    (shard, address)
}

/// Runs a test on a thread of the kind that shards live on.
pub(crate) fn on_shard_thread<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// Lets everything that can run now run, until `done` says so. Bounded, so that a failure is a failure.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("what was waited for did not happen");
}
