//! The process as an operator meets it: start, stop, a directory in use, a damaged segment, a full disk.

use headwater_tests::{node::Node, tools, wait_for};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Publishes one message at QoS 1 with mosquitto_pub; whether it was acknowledged.
fn publish(node: &Node, topic: &str, payload: &str) -> bool {
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args([
        "-h",
        "127.0.0.1",
        "-p",
        &node.mqtt.to_string(),
        "-q",
        "1",
        "-V",
        "5",
        "-t",
        topic,
        "-m",
        payload,
    ]);
    publisher.output().expect("mosquitto_pub starts").status.success()
}

/// All payloads of a topic, by kcat. What went wrong, as kcat says it, comes after them.
fn consume(node: &Node, topic: &str) -> (Vec<String>, String) {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-o", "beginning", "-m", "10", "-f", "%s\n", "-t", topic]);
    let output =
        kcat.args(["-b", &format!("127.0.0.1:{}", node.kafka)]).output().expect("kcat starts");
    let lines = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
    (lines, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn sigterm_commits_and_a_clean_start_replays_nothing() {
    let mut node = Node::start("sigterm", "");
    for number in 0..10 {
        assert!(publish(&node, "a/b", &number.to_string()));
    }
    assert!(node.stop().success(), "{}", node.log());
    node.start_again();
    let log = node.log();
    let last = log.rfind("recovered").map(|at| &log[at..]).unwrap_or_default();
    assert!(last.contains("0 cycles"), "the second start says what it recovered: {log}");
    assert_eq!(consume(&node, "mqtt").0, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_second_process_is_told_who_holds_the_directory() {
    let node = Node::start("held", "");
    let config = std::fs::read_to_string(node.config_file()).expect("written");
    let elsewhere = node.config_file().with_file_name("second.toml");
    // Its own ports: the directory alone is in its way.
    let moved = [node.mqtt, node.kafka, node.http]
        .iter()
        .fold(config, |text, port| text.replace(&format!(":{port}\""), ":0\""));
    std::fs::write(&elsewhere, moved).expect("writable");
    let second = Command::new(tools::headwater())
        .args(["run", "-c"])
        .arg(&elsewhere)
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&second.stderr).into_owned()
        + &String::from_utf8_lossy(&second.stdout);
    assert!(!second.status.success());
    assert!(said.contains(&node.pid().expect("runs").to_string()), "names the holder: {said}");
    assert!(said.contains(&node.data_dir().display().to_string()), "names the directory: {said}");
    assert!(publish(&node, "a/b", "still served"));
}

#[test]
fn a_damaged_segment_is_reported_and_neither_served_nor_touched() {
    let mut node = Node::start("damaged", "[[topic]]\nname = \"mqtt\"\npartitions = 1\n");
    for number in 0..9 {
        // One commit each, so that each is a batch of its own.
        assert!(publish(&node, "a/b", &format!("message-{number}")));
    }
    assert!(node.stop().success());
    // `<topic>-<partition>.<handle>`: Kafka's name, and which life of the topic.
    let folder = std::fs::read_dir(node.data_dir().join("topics"))
        .expect("the topics' folders")
        .map(|entry| entry.expect("readable").path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("mqtt-0.")))
        .expect("the partition's folder");
    let segment = folder.join("00000000000000000000.log");
    let mut bytes = std::fs::read(&segment).expect("the segment is where Kafka would have it");
    let at =
        bytes.windows(9).position(|window| window == b"message-4").expect("stored as it was sent");
    bytes[at] ^= 1;
    std::fs::write(&segment, &bytes).expect("writable");

    node.start_again();
    let (served, _) = consume(&node, "mqtt");
    assert!(
        served.iter().all(|payload| payload.starts_with("message-")),
        "no damaged byte is served: {served:?}"
    );
    assert!(!served.contains(&"message-4".to_owned()));
    assert_eq!(&served[..4], ["message-0", "message-1", "message-2", "message-3"]);
    let log = wait_for("the report", Duration::from_secs(10), || {
        Some(node.log()).filter(|log| log.contains("damaged"))
    });
    assert!(log.contains("00000000000000000000.log"), "the report names the file: {log}");
    let (_, health) = node.get("/health").expect("it answers");
    assert!(health.contains("damaged batch"), "so does its health: {health}");
    // What lies behind the damage is served, and new messages are taken.
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-p", "0", "-o", "5", "-f", "%s\n", "-t", "mqtt"]);
    kcat.args(["-b", &format!("127.0.0.1:{}", node.kafka)]);
    assert_eq!(tools::run(&mut kcat).lines().count(), 4);
    assert!(publish(&node, "a/b", "after"));
    assert!(node.stop().success());
    assert_eq!(
        std::fs::read(&segment).expect("readable")[..bytes.len()],
        bytes,
        "nothing was overwritten"
    );
}

/// Publishes numbered 2 KB messages at QoS 1; gives the numbers acknowledged with success, and with 0x97.
fn fill(node: &Node, from: u32, count: u32, input: &PathBuf) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let padding = "x".repeat(2_000);
    let lines: String =
        (from..from + count).map(|number| format!("{number} {padding}\n")).collect();
    std::fs::write(input, lines).expect("writable");
    let output = Command::new("mosquitto_pub")
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &node.mqtt.to_string(),
            "-q",
            "1",
            "-V",
            "5",
            "-t",
            "fill/disk",
            "-l",
            "-d",
        ])
        .stdin(std::fs::File::open(input).expect("just written"))
        .output()
        .expect("mosquitto_pub starts");
    let (mut stored, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // Client x received PUBACK (Mid: 7, RC:0)
        let Some((_, rest)) = line.split_once("received PUBACK (Mid: ") else { continue };
        let (mid, code) = rest.trim_end_matches(')').split_once(", RC:").expect("mosquitto's form");
        let number = from + mid.parse::<u32>().expect("a packet id") - 1;
        match code {
            "0" | "16" => stored.insert(number),
            "151" => refused.insert(number),
            other => panic!("message {number} was answered with {other}"),
        };
    }
    (stored, refused)
}

#[test]
fn a_full_disk_refuses_clearly_and_goes_on_when_there_is_room() {
    let mut node = Node::prepare("full", "");
    let config = std::fs::read_to_string(node.config_file()).expect("written");
    let small = "[storage]\njournal_file_bytes = \"1MiB\"\nmax_bytes = \"1GiB\"\n";
    std::fs::write(node.config_file(), config.replace("[storage]\n", small)).expect("writable");
    node.spawn_on_small_disk("44m", "8M");
    node.wait_until_ready();

    let input = node.config_file().with_file_name("lines");
    let (mut stored, refused) = fill(&node, 0, 20_000, &input);
    assert!(
        !stored.is_empty() && !refused.is_empty(),
        "{} stored, {} refused",
        stored.len(),
        refused.len()
    );
    assert!(node.exited().is_none(), "the process lives");
    let (_, health) = node.get("/health").expect("it answers");
    assert!(health.contains("disk"), "health says why: {health}");

    // Room again: it goes on by itself.
    std::fs::remove_file(node.inside("ballast")).expect("the ballast is there");
    let more = wait_for("messages to be taken again", Duration::from_secs(30), || {
        let (stored, _) = fill(&node, 20_000, 10, &input);
        (stored.len() == 10).then_some(stored)
    });
    stored.extend(more);

    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-o", "beginning", "-f", "%s\n", "-t", "mqtt"]);
    let text = tools::run(kcat.args(["-b", &format!("127.0.0.1:{}", node.kafka)]));
    let read: BTreeSet<u32> = text
        .lines()
        .map(|line| line.split(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
        .collect();
    let missing: Vec<_> = stored.difference(&read).collect();
    assert!(missing.is_empty(), "acknowledged and not there: {missing:?}");
    let phantom: Vec<_> = refused.intersection(&read).collect();
    assert!(phantom.is_empty(), "refused and there all the same: {phantom:?}");
}

#[test]
fn a_wrong_config_names_line_key_and_choices_and_makes_nothing() {
    let node = Node::prepare(
        "wrong",
        "[[route]]\nmqtt = \"a/#/b\"\ntopic = \"x\"\nack = \"sometimes\"\n\n[[topic]]\nname = \"t\"\npartition = 3\n",
    );
    for verb in ["check", "run"] {
        let output = Command::new(tools::headwater())
            .arg(verb)
            .arg("-c")
            .arg(node.config_file())
            .stdin(Stdio::null())
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned()
            + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in
            ["headwater.toml", "a/#/b", "sometimes", "fsync", "mirrored", "partition", "partitions"]
        {
            assert!(said.contains(word), "{verb} says all at once, {word:?} too: {said}");
        }
        assert!(!node.data_dir().exists(), "nothing is made before the config is valid");
    }
}

#[test]
fn every_metric_is_in_the_table_and_the_table_has_no_other() {
    let uplink = "[site]\nname = \"s\"\n\n[[uplink]]\nname = \"dc\"\nbootstrap = [\"127.0.0.1:1\"]\n\
                  topics = [{ from = \"mqtt\" }]\n";
    let node = Node::start("metrics", uplink);
    // A message, so that everything that appears with the first one is there.
    assert!(publish(&node, "a/b", "x"));
    assert_eq!(consume(&node, "mqtt").0, ["x"]);
    let (_, text) = node.get("/metrics").expect("it answers");
    let served: BTreeSet<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let table =
        std::fs::read_to_string(tools::repository().join("METRICS.md")).expect("METRICS.md");
    let listed: BTreeSet<_> =
        table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(served, listed);
}
