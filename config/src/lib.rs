//! Headwater's settings: read from defaults, a TOML file, the environment and `--set`, checked as a whole, explained.
//!
//! Invariant: [`load`] does no I/O and answers with a complete [`Config`] or with *every* error there is, each with
//! its place, its key and what it could have been. Neighbours: none below; every other crate reads [`Config`].

mod glob;
pub mod pattern;
mod settings;
pub mod template;
pub mod units;

pub use glob::Glob;
pub use settings::{
    Ack, Config, DEFAULT_TOPIC, DiskBudget, Durability, HostPort, Limits, Listener, LogFormat,
    Logging, Protocol, Route, Site, Storage, TopicDefaults, TopicRule, TopicSpec, Uplink,
    UplinkTopic, is_topic_name,
};
