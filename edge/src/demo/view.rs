//! What the demo shows while it runs: a block that is redrawn on a terminal, a line per second elsewhere.
//!
//! Invariant: shows figures, judges nothing; the account at the end reads the logs. Neighbours: [`super`] fills
//! [`Moment`].

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// One look at the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Moment {
    pub(super) at: Duration,
    pub(super) devices: (u64, u64),
    pub(super) per_second: f64,
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    pub(super) stored: u64,
    pub(super) mirrored: u64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
    pub(super) link: &'static str,
}

impl Moment {
    fn backlog(&self) -> u64 {
        self.stored.saturating_sub(self.mirrored)
    }
}

/// Where the figures go.
#[derive(Debug)]
pub(super) struct View {
    terminal: bool,
    /// Lines of the block on the screen, to be drawn over.
    drawn: usize,
    last_line: Option<Duration>,
    backlog_max: u64,
}

impl View {
    pub(super) fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self { terminal, drawn: 0, last_line: None, backlog_max: 1 }
    }

    /// How often there is something new to show.
    pub(super) fn period(&self) -> Duration {
        if self.terminal { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    /// Shows a moment.
    pub(super) fn show(&mut self, moment: &Moment) {
        self.backlog_max = self.backlog_max.max(moment.backlog());
        let text = if self.terminal {
            let block = block(moment, self.backlog_max);
            let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
            self.drawn = block.lines().count();
            format!("{up}{block}")
        } else {
            self.last_line = Some(moment.at);
            line(moment)
        };
        write(&text);
    }

    /// Says something that stays.
    pub(super) fn say(&mut self, text: &str) {
        self.drawn = 0;
        write(&format!("{text}\n"));
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away does not stop the demo: its account is its exit code.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn line(m: &Moment) -> String {
    format!(
        "{:5.1} s  devices {}/{}  {:.0} msg/s  published {}  acknowledged {}  stored {}  mirrored {}  backlog {}  \
         PUBACK p50 {}  p99 {}  link {}\n",
        m.at.as_secs_f64(),
        m.devices.0,
        m.devices.1,
        m.per_second,
        m.published,
        m.acknowledged,
        m.stored,
        m.mirrored,
        m.backlog(),
        milliseconds(m.p50_us),
        milliseconds(m.p99_us),
        m.link,
    )
}

fn block(m: &Moment, backlog_max: u64) -> String {
    let link = if m.link == "cut" {
        "\x1b[31mcut\x1b[0m".into()
    } else {
        format!("\x1b[32m{}\x1b[0m", m.link)
    };
    let lines = [
        format!("  time       {:>6.1} s      link to the centre: {link}", m.at.as_secs_f64()),
        format!(
            "  devices    {:>6} of {} connected, {:.0} messages/s",
            m.devices.0, m.devices.1, m.per_second
        ),
        format!("  published  {:>10}", m.published),
        format!(
            "  acknowl'd  {:>10}   PUBACK after p50 {}, p99 {} (each after its fdatasync)",
            m.acknowledged,
            milliseconds(m.p50_us),
            milliseconds(m.p99_us)
        ),
        format!("  stored     {:>10}", m.stored),
        format!("  mirrored   {:>10}", m.mirrored),
        format!("  backlog    {:>10}   {}", m.backlog(), bar(m.backlog(), backlog_max)),
    ];
    // Each line clears what stood behind it.
    lines.iter().map(|line| format!("{line}\x1b[K\n")).collect()
}

fn bar(value: u64, max: u64) -> String {
    const WIDTH: u64 = 40;
    let filled = (value * WIDTH).div_ceil(max.max(1)).min(WIDTH);
    (0..WIDTH).map(|i| if i < filled { '█' } else { '·' }).collect()
}

fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_at_the_largest_and_empty_at_nothing() {
        assert_eq!(bar(0, 10).matches('█').count(), 0);
        assert_eq!(bar(10, 10).matches('█').count(), 40);
        assert_eq!(bar(1, 10_000).matches('█').count(), 1, "something is never shown as nothing");
    }

    #[test]
    fn a_line_has_the_figures() {
        let moment =
            Moment { stored: 10, mirrored: 4, p99_us: 1_500, link: "up", ..Moment::default() };
        let line = line(&moment);
        assert!(line.contains("backlog 6") && line.contains("p99 1.5 ms"), "{line}");
    }
}
