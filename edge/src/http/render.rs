//! Prometheus text, one family after another, within a bound on series.
//!
//! Invariant: every family has its HELP and TYPE, every label value is escaped, and never more than [`SERIES_MAX`]
//! series are written; what is above is left out and said. Neighbours: [`super::metrics`].

use std::fmt::Write as _;

/// Series of one answer.
pub(super) const SERIES_MAX: usize = 5_000;

/// Text being written.
#[derive(Debug)]
pub(super) struct Page {
    text: String,
    series: usize,
    series_max: usize,
    left_out: usize,
}

/// What a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Page {
    pub(super) fn new(series_max: usize) -> Self {
        Self { text: String::new(), series: 0, series_max, left_out: 0 }
    }

    /// Begins a family.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing into a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One series of the family begun last.
    pub(super) fn series(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        if self.series >= self.series_max {
            self.left_out += 1;
            return;
        }
        self.series += 1;
        self.text.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.text.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one series without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.series(name, &[], value);
    }

    /// A histogram from counts per bucket (not cumulated); the last bucket's bound is infinity.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = (Option<f64>, u64)>,
        sum: f64,
    ) {
        self.family(name, Kind::Histogram, help);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, n) in buckets {
            count += n;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), |b| b.to_string());
            self.series(&bucket, &[("le", &bound)], count as f64);
        }
        self.series(&format!("{name}_sum"), &[], sum);
        self.series(&format!("{name}_count"), &[], count as f64);
    }

    /// The text.
    pub(super) fn finish(mut self) -> String {
        if self.left_out > 0 {
            self.series_max += 1;
            let left_out = self.left_out as f64;
            let help = "Series left out of this answer because there are too many.";
            self.single("headwater_metrics_left_out", Kind::Gauge, help, left_out);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_bounded() {
        let mut page = Page::new(2);
        page.family("x_total", Kind::Counter, "Help.");
        page.series("x_total", &[("a", "q\"\\\n"), ("b", "é")], 1.0);
        page.series("x_total", &[], 2.5);
        page.series("x_total", &[], 3.0);
        assert_eq!(
            page.finish(),
            "# HELP x_total Help.\n# TYPE x_total counter\nx_total{a=\"q\\\"\\\\\\n\",b=\"é\"} 1\nx_total 2.5\n\
             # HELP headwater_metrics_left_out Series left out of this answer because there are too many.\n\
             # TYPE headwater_metrics_left_out gauge\nheadwater_metrics_left_out 1\n"
        );
    }

    #[test]
    fn histograms_cumulate() {
        let mut page = Page::new(100);
        page.histogram("h", "Help.", [(Some(0.5), 1), (Some(1.0), 0), (None, 2)].into_iter(), 9.0);
        let text = page.finish();
        assert!(
            text.contains(
                "h_bucket{le=\"0.5\"} 1\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 3\n"
            )
        );
        assert!(text.ends_with("h_sum 9\nh_count 3\n"), "{text}");
    }
}
