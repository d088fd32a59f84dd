//! The codec's proofs: vectors for every rule by its normative id, properties over arbitrary packets and bytes, and a
//! comparison with another implementation.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod answers;
mod bytes;
mod differential;
mod illegal;
mod illegal_v5;
mod legal;
mod round_trip;
mod strategies;
mod unsayable;
