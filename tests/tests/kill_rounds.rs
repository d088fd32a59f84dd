//! `headwater selftest`: a process that appends to many partitions is killed with -9 at random, again and again, and every
//! record that it had reported as durable must be there. The account is kept by another process.
//!
//! `HEADWATER_ROUNDS` says how often; `HEADWATER_FILL_GIB` and `HEADWATER_FILL_PARTITIONS` how large the log is whose recovery
//! is timed; `HEADWATER_RECOVERY_MS_MAX` what the slowest may take (only for a machine that does nothing else meanwhile).

use headwater_tests::{files::TestDir, tools};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Half of the restarts may take so long, on a machine that is busy with other tests.
const RECOVERY_MS_P50_MAX: u64 = 10_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs `selftest --crash`; its answer, with the exit code.
fn crash(dir: &TestDir, arguments: &[(&str, u64)]) -> (Value, Option<i32>) {
    let mut command = Command::new(tools::headwater());
    command.args(["selftest", "--crash", "--output", "json", "--minutes", "600"]);
    for (name, value) in arguments {
        command.args([(*name).to_owned(), value.to_string()]);
    }
    let output = command.arg(dir.path()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    (
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {complaint}")),
        output.status.code(),
    )
}

fn nothing_lost(answer: &Value, rounds: u64) {
    assert_eq!(answer["lost"], Value::Null, "{answer}");
    assert_eq!(answer["restarts"], rounds, "{answer}");
    assert!(answer["records_acknowledged"].as_u64() > Some(rounds), "{answer}");
    let (p50, max) = (&answer["recovery_ms_p50"], &answer["recovery_ms_max"]);
    println!("{rounds} restarts: {p50} ms (median), {max} ms at most");
    assert!(p50.as_u64() <= Some(RECOVERY_MS_P50_MAX), "{answer}");
    let max_allowed = number("HEADWATER_RECOVERY_MS_MAX", u64::MAX);
    assert!(max.as_u64() <= Some(max_allowed), "{answer}");
}

#[test]
fn killed_at_random_nothing_that_was_reported_as_durable_is_missing() {
    let dir = TestDir::new("rounds");
    let rounds = number("HEADWATER_ROUNDS", 50);
    let (answer, code) = crash(&dir, &[("--rounds", rounds), ("--partitions", 64)]);
    nothing_lost(&answer, rounds);
    // Whether this machine's disk answers flushes honestly is not the program's fault.
    assert_eq!(code, Some(i32::from(answer["flush"]["well"] != true)));
    let left: Vec<_> = std::fs::read_dir(dir.path()).expect("it is there").collect();
    assert!(left.is_empty(), "it cleans up: {left:?}");
}

#[test]
fn recovery_takes_the_time_of_the_journal_not_of_the_log() {
    let dir = TestDir::new("recovery");
    let (gib, partitions) =
        (number("HEADWATER_FILL_GIB", 1), number("HEADWATER_FILL_PARTITIONS", 200));
    let arguments = [("--rounds", 5), ("--partitions", partitions), ("--fill", gib)];
    let (answer, _) = crash(&dir, &arguments);
    nothing_lost(&answer, 5);
    assert!(answer["log_bytes"].as_u64() >= Some(gib << 30), "{answer}");
}

/// What a technician does with `--write`, an ssh connection and the plug; here the process is killed, which the disk survives.
#[test]
fn what_the_writer_reported_is_checked_against_the_disk() {
    let dir = TestDir::new("power");
    let mut writer = Command::new(tools::headwater())
        .args(["selftest", "--write"])
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(writer.stdout.take().expect("piped")).lines();
    let mut said: Vec<String> = lines.map_while(Result::ok).take(500).collect();
    writer.kill().expect("it is ours");
    writer.wait().expect("it is ours");
    let check = |said: &[String]| {
        let mut check = Command::new(tools::headwater())
            .args(["selftest", "--check", "--output", "json"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut input = check.stdin.take().expect("piped");
        input.write_all((said.join("\n") + "\n").as_bytes()).expect("it reads");
        drop(input);
        let output = check.wait_with_output().expect("it ends");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.status.code(), answer)
    };
    let (code, answer) = check(&said);
    assert_eq!(code, Some(0), "{answer}");
    assert!(answer["records_acknowledged"].as_u64() > Some(500), "{answer}");
    said.push("durable 3 1000000000".to_owned());
    let (code, answer) = check(&said);
    assert_eq!(code, Some(1), "a record that is missing is missed: {answer}");
    assert!(answer["lost"].as_str().is_some_and(|lost| lost.contains("partition 3")), "{answer}");
}
