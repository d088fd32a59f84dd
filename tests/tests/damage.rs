//! A batch on disk is damaged: the uplink goes on without it and says so, and the operator's tools find it, say it and mend it.

use headwater_tests::{free_port, kafka::Kafka, node::Node, tools, wait_for};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

fn publish(node: &Node, payload: &str) {
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args(["-h", "127.0.0.1", "-p", &node.mqtt.to_string()]);
    publisher.args(["-q", "1", "-V", "5", "-t", "a/b", "-m", payload]);
    assert!(publisher.output().expect("mosquitto_pub starts").status.success(), "{payload}");
}

fn payloads(bootstrap: &str, topic: &str, from: &str) -> Vec<String> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-p", "0", "-o", from, "-f", "%s\n", "-t", topic]);
    tools::run(kcat.args(["-b", bootstrap])).lines().map(str::to_owned).collect()
}

/// `headwater log ...` on a node's directory, and its exit code.
fn log_tool(node: &Node, arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(tools::headwater());
    let Output { status, stdout, stderr } = command
        .arg("log")
        .args(arguments)
        .args(["--output", "json"])
        .arg(node.data_dir())
        .output()
        .expect("it starts");
    let lines = String::from_utf8_lossy(&stdout).into_owned();
    let objects = lines.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    println!("{arguments:?}: {status}\n{lines}{}", String::from_utf8_lossy(&stderr));
    (status.code(), objects.collect())
}

fn segment(node: &Node) -> PathBuf {
    let folders = std::fs::read_dir(node.data_dir().join("topics")).expect("the topics' folders");
    folders
        .map(|entry| entry.expect("readable").path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("mqtt-0.")))
        .expect("the partition's folder")
        .join("00000000000000000000.log")
}

#[test]
fn a_damaged_batch_is_a_loud_gap_for_the_uplink_and_a_repair_away_from_well() {
    let port = free_port();
    let more = format!(
        "[site]\nname = \"ship\"\n\n[[topic]]\nname = \"mqtt\"\npartitions = 1\n\n\
         [[uplink]]\nname = \"dc\"\nbootstrap = [\"127.0.0.1:{port}\"]\n\
         topics = [{{ from = \"mqtt\", to = \"{{site}}.{{topic}}\" }}]\n"
    );
    let mut node = Node::start("gap", &more);
    for number in 0..9 {
        // One commit each, so that each is a batch of its own.
        publish(&node, &format!("message-{number}"));
    }
    let (code, _) = log_tool(&node, &["verify"]);
    assert_eq!(code, Some(2), "a directory in use is not judged");
    assert!(node.stop().success());
    assert_eq!(log_tool(&node, &["verify"]).0, Some(0));
    let path = segment(&node);
    let mut bytes = std::fs::read(&path).expect("the segment is where Kafka would have it");
    let at = bytes.windows(9).position(|window| window == b"message-4").expect("stored as sent");
    bytes[at] ^= 1;
    std::fs::write(&path, &bytes).expect("writable");

    // The centre appears: it gets everything that is whole.
    let kafka = Kafka::start_at("4.3.0", port);
    node.start_again();
    wait_for("the uplink to have nothing left", Duration::from_secs(120), || {
        (node.metric("headwater_uplink_lag_records") == 0.0).then_some(())
    });
    let whole: Vec<String> = (0..9).filter(|n| *n != 4).map(|n| format!("message-{n}")).collect();
    assert_eq!(payloads(&kafka.address(), "ship.mqtt", "beginning"), whole);
    publish(&node, "behind");
    wait_for("what comes behind", Duration::from_secs(60), || {
        (payloads(&kafka.address(), "ship.mqtt", "beginning").last()? == "behind").then_some(())
    });
    assert!(node.stop().success());

    let (_, ledger) = log_tool(&node, &["dump", "--topic", "__headwater_ledger"]);
    let entry = ledger
        .iter()
        .filter_map(|record| serde_json::from_str::<Value>(record["value"].as_str()?).ok())
        .find(|entry| entry["subscriber"] == "uplink/dc")
        .expect("the ledger lists what the uplink did not get");
    assert_eq!(
        (&entry["cause"], &entry["topic"], &entry["from"], &entry["to"], &entry["count"]),
        (&"damaged".into(), &"mqtt".into(), &4.into(), &5.into(), &1.into()),
        "{entry}"
    );

    let (code, answer) = log_tool(&node, &["verify"]);
    assert_eq!(code, Some(1));
    let lost = &answer[0]["findings"][0]["lost"];
    assert_eq!((&lost["first"], &lost["end"]), (&4.into(), &5.into()), "{answer:?}");
    let (code, dump) = log_tool(&node, &["dump", "--topic", "mqtt"]);
    assert_eq!(
        (code, dump.len()),
        (Some(1), 10),
        "nine whole records, and the damage in its place"
    );
    assert_eq!(log_tool(&node, &["repair"]).0, Some(1), "there is something to do");
    assert_eq!(std::fs::read(&path).expect("there"), bytes_of(&path, &bytes), "not done yet");
    let (code, repaired) = log_tool(&node, &["repair", "--apply"]);
    assert_eq!(code, Some(0), "{repaired:?}");
    let quarantine = repaired[0]["quarantine"][0].as_str().expect("it is named");
    assert!(PathBuf::from(quarantine).join("report.txt").is_file());
    assert_eq!(log_tool(&node, &["verify"]).0, Some(0));
    assert_eq!(log_tool(&node, &["repair", "--apply"]).0, Some(0), "nothing is left to do");

    node.start_again();
    let edge = format!("127.0.0.1:{}", node.kafka);
    assert_eq!(payloads(&edge, "mqtt", "5").len(), 5, "what lies behind is served");
    publish(&node, "after");
    assert_eq!(payloads(&edge, "mqtt", "10"), ["after"], "offsets go on where they were");
    assert!(node.stop().success(), "{}", node.log());
}

/// The active segment grew meanwhile: what was there when it was damaged is there still.
fn bytes_of(path: &PathBuf, damaged: &[u8]) -> Vec<u8> {
    let now = std::fs::read(path).expect("there");
    assert_eq!(&now[..damaged.len()], damaged);
    now
}
