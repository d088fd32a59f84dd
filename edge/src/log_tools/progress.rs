//! A bar on the terminal, for work that is long.
//!
//! Invariant: only on a terminal, only on standard error, at most ten times a second, and gone when the work is.

use std::io::{IsTerminal, Write};
use std::time::Duration;

const WIDTH: usize = 30;
const EVERY: Duration = Duration::from_millis(100);

/// The bar.
#[derive(Debug)]
pub(crate) struct Bar {
    what: String,
    shows: bool,
    began: std::time::Instant,
    drawn: Option<std::time::Instant>,
}

impl Bar {
    /// One that is not drawn yet.
    #[expect(clippy::disallowed_methods, reason = "a bar is for people: it shows their time")]
    pub(crate) fn new(what: impl Into<String>) -> Self {
        let shows = std::io::stderr().is_terminal();
        Self { what: what.into(), shows, began: std::time::Instant::now(), drawn: None }
    }

    /// Draws how far it is.
    #[expect(clippy::disallowed_methods, reason = "a bar is for people: it shows their time")]
    pub(crate) fn show(&mut self, done_bytes: u64, total_bytes: u64) {
        let now = std::time::Instant::now();
        if !self.shows || self.drawn.is_some_and(|drawn| now - drawn < EVERY) {
            return;
        }
        self.drawn = Some(now);
        let line = bar(&self.what, done_bytes, total_bytes, now - self.began);
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }

    /// How long it has been.
    pub(crate) fn took(&self) -> Duration {
        self.began.elapsed()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn bar(what: &str, done: u64, total: u64, took: Duration) -> String {
    let part = if total == 0 { 1.0 } else { done.min(total) as f64 / total as f64 };
    let filled = (part * WIDTH as f64) as usize;
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = match rate > 0.0 {
        true => Duration::from_secs_f64(((total - done.min(total)) as f64 / rate).min(1e9)),
        false => Duration::ZERO,
    };
    format!(
        "{what} [{}{}] {:3.0} %  {} of {}  {}/s  {} s left",
        "#".repeat(filled),
        " ".repeat(WIDTH - filled),
        part * 100.0,
        size(done),
        size(total),
        size(rate as u64),
        left.as_secs(),
    )
}

/// Bytes in a unit that a person reads at once.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut value = bytes as f64;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_far_how_fast_and_how_long() {
        let line = bar("/data", 512 << 20, 1 << 30, Duration::from_secs(2));
        assert_eq!(
            line,
            "/data [###############               ]  50 %  512.0 MiB of 1.0 GiB  256.0 MiB/s  2 s left"
        );
        assert!(bar("/data", 0, 0, Duration::ZERO).contains("100 %"));
        assert_eq!(size(999), "999 B");
    }
}
