//! The command as its user meets it: exit codes, and what is said where.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

fn headwater(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(args)
        .current_dir(dir)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_printed_defaults_are_a_right_file() {
    let dir = tempfile::tempdir().unwrap();
    let printed = headwater(dir.path(), &["check", "--defaults"]);
    assert!(printed.status.success());
    std::fs::write(dir.path().join("headwater.toml"), &printed.stdout).unwrap();
    let checked = headwater(dir.path(), &["check"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!(text(&checked.stdout).starts_with("headwater.toml: right\n"));
}

#[test]
fn wrong_files_end_with_2_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wrong.toml");
    std::fs::write(&file, "[storage]\ndir = \"data\"\n[limits]\nshards = \"all\"\nfoo = 1\n")
        .unwrap();
    for verb in ["check", "run"] {
        let output = headwater(dir.path(), &[verb, "-c", "wrong.toml"]);
        assert_eq!(output.status.code(), Some(2));
        let said = text(&output.stderr);
        for part in ["wrong.toml:4:10", "limits.shards", "0 to 256", "limits.foo", "2 errors"] {
            assert!(said.contains(part), "{part:?} is not in:\n{said}");
        }
    }
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["wrong.toml"]);
}

#[test]
fn wrong_use_ends_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [&[&str]; 6] = [
        &[],
        &["fly"],
        &["run", "-c", "missing.toml"],
        &["check", "--set", "limits.shards=many"],
        &["explain", "a/+/b"],
        &["demo", "--seconds", "0"],
    ];
    for args in cases {
        let output = headwater(dir.path(), args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
        assert!(!output.stderr.is_empty());
    }
    let output = Command::new(env!("CARGO_BIN_EXE_headwater"))
        .args(["check"])
        .current_dir(dir.path())
        .env("HEADWATER_STORAGE__COMMIT_DELAY", "soon")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("HEADWATER_STORAGE__COMMIT_DELAY=soon"));
}

#[test]
fn explain_says_where_a_message_goes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("headwater.toml"),
        "[[route]]\nmqtt = \"plant/{line}/{device}/telemetry/#\"\ntopic = \"telemetry\"\nkey = \"{device}\"\n",
    )
    .unwrap();
    let output = headwater(dir.path(), &["explain", "plant/7/press/telemetry/x"]);
    assert!(output.status.success());
    let said = text(&output.stdout);
    assert!(said.contains("telemetry") && said.contains("press"), "{said}");
    let output =
        headwater(dir.path(), &["explain", "plant/7/press/telemetry/x", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["primary"]["topic"], "telemetry");
    assert_eq!(json["primary"]["key"], "press");
    assert_eq!(json["primary"]["ack"], "fsync");
    let output = headwater(dir.path(), &["explain", "elsewhere", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["primary"]["topic"], "mqtt");
}

#[test]
fn the_demo_adds_up_and_keeps_its_data_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["demo", "--devices", "10", "--seconds", "3", "--rate", "20", "--data-dir", "kept"];
    let output = headwater(dir.path(), &args);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    for part in ["the link to the centre is cut", "it adds up", "mosquitto_pub", "kcat"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert!(dir.path().join("kept/edge").is_dir() && dir.path().join("kept/centre").is_dir());
    let again = headwater(dir.path(), &args);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("earlier demo"), "{}", text(&again.stderr));
}

#[test]
fn the_benchmark_counts_every_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    for qos in ["0", "1"] {
        let output = headwater(
            dir.path(),
            &[
                "bench",
                "mqtt",
                "--messages",
                "2000",
                "--connections",
                "4",
                "--qos",
                qos,
                "--json",
                "--data-dir",
                ".",
            ],
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["messages"], 2_000);
        assert!(json["messages_per_second"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the data is gone");
}
