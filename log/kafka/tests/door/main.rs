//! The door in-process: a real log on disk, and a client that speaks the wire by hand.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking, its helpers too")]

mod admin;
mod fetch;
mod harness;
mod hostile;
mod produce;
