//! uplink
mod checkpoint;
mod mirror;
mod sequence;
