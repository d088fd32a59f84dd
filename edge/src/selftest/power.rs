//! After a real power cut: is everything there that the writer reported to another machine?
//!
//! Invariant: only what the writer reported as durable is asked for. Neighbours: `writer` reports, `account` reads the report.

use super::account::{self, Account};
use super::folder::Own;
use super::{Options, Output};
use serde_json::json;
use std::io::BufRead;
use std::path::Path;

/// Reads the account from standard input and checks the log against it.
pub(super) fn check(parent: &Path, options: &Options) -> anyhow::Result<bool> {
    let folder = Own::resume(parent)?;
    anyhow::ensure!(
        folder.log().is_dir(),
        "{} holds no log: --write comes first",
        folder.path().display()
    );
    let mut account = Account::new(options.partitions);
    let mut input = std::io::stdin().lock();
    let mut line = String::new();
    // A last line without its end was on its way when the power went.
    while input.read_line(&mut line)? > 0 && line.ends_with('\n') {
        account.note(line.trim_end());
        line.clear();
    }
    let acknowledged = account.records();
    anyhow::ensure!(acknowledged > 0, "no lines of --write on standard input");
    let (log, topic, recovery) = account::open(&folder.log(), options.partitions)?;
    let lost = account.check(&topic, true).err();
    drop(log);
    let ms = recovery.took.as_millis();
    match options.output {
        Output::Json => println!(
            "{}",
            json!({ "well": lost.is_none(), "lost": lost, "records_acknowledged": acknowledged, "recovery_ms": ms })
        ),
        Output::Text => match &lost {
            None => println!(
                "All {acknowledged} records that were reported as durable are there. The restart took {ms} ms."
            ),
            Some(lost) => println!("RECORDS WERE LOST: {lost}"),
        },
    }
    Ok(lost.is_none())
}
