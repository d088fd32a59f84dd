//! Where the configuration is looked for: `-c FILE`, else `./headwater.toml`, else the built-in defaults.
//!
//! Invariant: reads, never writes. Neighbours: [`headwater_config::load`] does the rest without I/O.

use headwater_config::{Config, Report, Sources};
use std::path::{Path, PathBuf};

/// The file that is read when none is named.
const FILE_DEFAULT: &str = "headwater.toml";

/// A configuration file is text that a person wrote.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {why}")]
    File {
        /// As named.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// What it says is wrong.
    #[error("{0}")]
    Wrong(Report),
    /// `logging.level` or `RUST_LOG` is not a list of directives.
    #[error("{0}")]
    Logging(String),
}

/// Where a configuration came from, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// This file.
    File(PathBuf),
    /// No file.
    Defaults,
}

/// Reads and checks the configuration.
pub(crate) fn load(file: Option<&Path>, set: &[String]) -> Result<(Config, Found), ConfigError> {
    let named = file.map(Path::to_path_buf);
    let found = match named {
        Some(path) => Found::File(path),
        None if Path::new(FILE_DEFAULT).exists() => Found::File(FILE_DEFAULT.into()),
        None => Found::Defaults,
    };
    let file = match &found {
        Found::File(path) => Some((path.display().to_string(), read(path)?)),
        Found::Defaults => None,
    };
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("HEADWATER_"))
        .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
        .collect();
    let sources = Sources { file, environment, arguments: set.to_vec() };
    let config = headwater_config::load(&sources).map_err(ConfigError::Wrong)?;
    crate::logging::check(&config.logging).map_err(ConfigError::Logging)?;
    Ok((config, found))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let wrong = |why: String| ConfigError::File { path: path.to_path_buf(), why };
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(wrong(format!("{size} bytes are too many for a configuration")));
    }
    let bytes = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| {
        wrong(format!("it is not UTF-8 text: byte {} is wrong", e.utf8_error().valid_up_to()))
    })
}
