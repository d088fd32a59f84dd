//! `headwater log verify DIR...`.

use super::{Bar, Directories, Output, print_line, refuse};
use headwater_log::clock::SystemClock;
use headwater_log::disk::SystemDisk;
use headwater_log::inspect::{self, Finding, Severity, Verdict};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub(super) fn run(options: &Directories) -> ExitCode {
    let names: Vec<String> = options.dirs.iter().map(|dir| dir.display().to_string()).collect();
    let mut bar = Bar::new(names.join(" "));
    let watch = &mut |p: inspect::Progress| bar.show(p.done_bytes, p.total_bytes);
    let (disk, clock) = (Arc::new(SystemDisk), Arc::new(SystemClock));
    let verdict = inspect::verify(disk, clock, &options.dirs, watch);
    let took = bar.took();
    drop(bar);
    match verdict {
        Ok(verdict) => {
            say(&options.dirs, &verdict, took, options.output);
            if verdict.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => refuse(&error),
    }
}

fn say(dirs: &[PathBuf], verdict: &Verdict, took: Duration, output: Output) {
    if output == Output::Json {
        print_line(&object(dirs, verdict, took).to_string());
        return;
    }
    for finding in &verdict.findings {
        let word = match finding.severity {
            Severity::Damage => "damage",
            Severity::Notice => "notice",
        };
        print_line(&format!("{word}: {finding}\n        {}", finding.advice));
    }
    if verdict.left_out > 0 {
        print_line(&format!("and {} findings more", verdict.left_out));
    }
    let f = &verdict.figures;
    print_line(&format!(
        "{}: {} ({} topics, {} partitions, {} segments, {} records in {} batches, {} read in {:.1} s{})",
        dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(" "),
        match verdict.damage() {
            0 => "well".to_owned(),
            1 => "damaged in 1 place".to_owned(),
            n => format!("damaged in {n} places"),
        },
        f.topics,
        f.partitions,
        f.segments,
        f.records,
        f.batches,
        super::progress::size(f.bytes),
        took.as_secs_f64(),
        match verdict.unclean {
            true => format!("; not closed, {} journal cycles to apply", f.cycles),
            false => String::new(),
        },
    ));
}

fn object(dirs: &[PathBuf], verdict: &Verdict, took: Duration) -> Value {
    let f = &verdict.figures;
    json!({
        "dirs": dirs,
        "well": verdict.is_well(),
        "findings": verdict.findings.iter().map(finding).collect::<Vec<_>>(),
        "findings_left_out": verdict.left_out,
        "closed": !verdict.unclean,
        "topics": f.topics,
        "partitions": f.partitions,
        "segments": f.segments,
        "bytes": f.bytes,
        "batches": f.batches,
        "records": f.records,
        "journal_cycles_to_apply": f.cycles,
        "seconds": took.as_secs_f64(),
    })
}

/// A finding, for programs.
pub(super) fn finding(finding: &Finding) -> Value {
    json!({
        "severity": match finding.severity { Severity::Damage => "damage", Severity::Notice => "notice" },
        "file": finding.file,
        "byte": finding.byte,
        "what": finding.what,
        "lost": finding.lost.as_ref().map(|lost| json!({
            "topic": lost.topic,
            "partition": lost.partition,
            "first": lost.first,
            "end": lost.end,
        })),
        "advice": finding.advice,
    })
}
