//! Where `tests/run` put what the suites need.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where `tests/run install` keeps what is not a Debian package.
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("HEADWATER_TEST_CACHE")
        .map_or_else(|| repository().join(".cache"), PathBuf::from)
}

/// The `headwater` binary: `HEADWATER_BIN`, or the one beside this test's own executable.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn headwater() -> PathBuf {
    if let Some(path) = std::env::var_os("HEADWATER_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows its own path");
    let path = test
        .parent()
        .and_then(Path::parent)
        .expect("tests lie in target/PROFILE/deps")
        .join("headwater");
    assert!(path.exists(), "{} is missing: cargo build -p headwater", path.display());
    path
}

/// The Python that has the client libraries.
///
/// # Panics
/// When `tests/run install` has not run.
#[must_use]
pub fn python() -> PathBuf {
    let path = cache().join("venv/bin/python");
    assert!(path.exists(), "{} is missing: ./tests/run install", path.display());
    path
}

/// Runs a command to its end and gives its standard output as text.
///
/// # Panics
/// When it cannot be started or fails, with what it said.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"));
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    assert!(
        status.success(),
        "{command:?}: {status}\n{stdout}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    stdout
}
