//! A whole MQTT server on a store in memory: `cargo run -p headwater-mqtt --example in_memory [ADDRESS]`.
//!
//! Shows what the process has to do: one store, one `Shared`, one `Shard` per thread, sockets handed over.

use headwater_mqtt::{Limits, Shard, Shared};
use std::time::Duration;
use store::MemoryStore;

#[path = "../tests/server/support/store.rs"]
#[expect(dead_code, reason = "the tests' store can do more than is needed here")]
mod store;

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:1883".to_owned());
    let shared = Shared::new(MemoryStore::new(4), Limits::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind(&address).await?;
        println!("listening on {}", listener.local_addr()?);
        let shard = Shard::new(shared.clone());
        for _ in 0..u64::MAX {
            let (stream, peer) = listener.accept().await?;
            shard.serve(stream, peer);
        }
        shared.stop(Duration::from_secs(5));
        shard.drained().await;
        Ok(())
    })
}
