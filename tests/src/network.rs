//! A network of a test's own, in which every port is free: for what must run exactly as its README says.

use std::process::{Command, Stdio};

const INSIDE: &str = "HEADWATER_TEST_INSIDE";

/// Runs the calling test again in a network namespace with nothing but a loopback, unless it is there already.
/// Gives true inside: go on; false outside: it has run and passed.
///
/// # Panics
/// When the test failed inside.
#[must_use]
pub fn inside_own_network(test: &str) -> bool {
    if std::env::var(INSIDE).as_deref() == Ok(test) {
        return true;
    }
    let script = "ip link set lo up && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--net", "--user", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().expect("a test knows its own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .stdin(Stdio::null())
        .status()
        .expect("unshare starts");
    assert!(status.success(), "{test}, in a network of its own: {status}");
    false
}
