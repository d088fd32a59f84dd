//! Headwater's settings: read from defaults, a TOML file, the environment and `--set`, checked as a whole, explained.
//!
//! Invariant: [`load`] does no I/O and answers with a complete [`Config`] or with *every* error there is, each with
//! its place, its key and what it could have been. Neighbours: none below; every other crate reads [`Config`].

mod settings;

mod glob;
pub mod pattern;
pub mod template;
pub mod units;

mod defaults;
mod keys;
mod report;
mod resolve;
mod tree;
mod values;
mod wiring;

#[cfg(test)]
mod tests;

pub use defaults::defaults_file;
pub use glob::Glob;
pub use report::{Problem, Report};
pub use settings::{
    Ack, Cleanup, Codec, Config, DEFAULT_TOPIC, DiskBudget, Durability, HostPort, Limits, Listener,
    LogFormat, Logging, Protocol, Route, Site, Storage, TopicDefaults, TopicRule, TopicSpec,
    Uplink, UplinkTopic, is_topic_name,
};

/// Where settings come from, weakest first; the built-in defaults lie below all.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// Name (for messages) and text of the TOML file.
    pub file: Option<(String, String)>,
    /// Environment variables; those that do not begin with `HEADWATER_` are passed over.
    pub environment: Vec<(String, String)>,
    /// The `KEY=VALUE` of `--set`, in order: the last one wins.
    pub arguments: Vec<String>,
}

/// Reads and checks a configuration.
///
/// # Errors
/// A [`Report`] of everything that is wrong.
pub fn load(sources: &Sources) -> Result<Config, Report> {
    let file = sources.file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    let mut problems = report::Problems::new(file);
    let mut root = match file {
        Some((_, text)) => tree::parse_file(text, &mut problems),
        None => tree::Table::new(),
    };
    tree::overlay_environment(&mut root, &sources.environment, &mut problems);
    tree::overlay_arguments(&mut root, &sources.arguments, &mut problems);
    let config = resolve::resolve(&root, &mut problems);
    if problems.is_empty() { Ok(config) } else { Err(problems.into_report()) }
}

impl Default for Config {
    /// What holds without a file: the defaults of the table of keys.
    fn default() -> Self {
        resolve::resolve(&tree::Table::new(), &mut report::Problems::new(None))
    }
}

/// A configuration from the text of a file alone, for tests and examples.
///
/// # Errors
/// A [`Report`] of everything that is wrong.
pub fn from_toml(text: &str) -> Result<Config, Report> {
    let file = Some(("headwater.toml".to_owned(), text.to_owned()));
    load(&Sources { file, ..Sources::default() })
}
