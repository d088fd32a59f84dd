//! Real MQTT clients against the real program: every pair of protocol versions, properties, and what this version of
//! Headwater does not offer yet, told by the protocol's own means.

use headwater_tests::{node::Node, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

/// A mosquitto_sub that has its SUBACK.
struct Subscriber {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Subscriber {
    /// Subscribes and waits for the SUBACK; ends by itself after `count` messages.
    fn start(
        node: &Node,
        version: &str,
        qos: &str,
        filter: &str,
        count: usize,
        format: &str,
    ) -> Self {
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-d",
                "-h",
                "127.0.0.1",
                "-p",
                &node.mqtt.to_string(),
                "-V",
                version,
            ])
            .args(["-q", qos, "-t", filter, "-C", &count.to_string(), "-W", "30", "-F", format])
            .stdout(Stdio::piped())
            .spawn()
            .expect("mosquitto_sub starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        while !line.starts_with("Subscribed") {
            line.clear();
            assert!(
                stdout.read_line(&mut line).expect("text") > 0,
                "mosquitto_sub ended without a SUBACK"
            );
        }
        Self { child, stdout }
    }

    /// What it received, without what it says of itself.
    fn finish(mut self) -> Vec<String> {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).expect("text");
        let status = self.child.wait().expect("the child is ours");
        let own = |line: &&str| !line.starts_with("Client ") && !line.starts_with("Subscribed");
        let lines: Vec<_> = text.lines().filter(own).map(str::to_owned).collect();
        assert!(status.success(), "mosquitto_sub: {status}: {lines:?}");
        lines
    }
}

fn publisher(node: &Node, version: &str) -> Command {
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args(["-d", "-h", "127.0.0.1", "-p", &node.mqtt.to_string(), "-V", version]);
    publisher
}

fn publish_lines(node: &Node, version: &str, qos: &str, topic: &str, lines: &str) {
    let mut child = publisher(node, version)
        .args(["-q", qos, "-t", topic, "-l"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("mosquitto_pub starts");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
    assert!(child.wait().expect("the child is ours").success());
}

#[test]
fn every_pair_of_versions_exchanges_messages_in_order() {
    let node = Node::start("pairs", "");
    let expected: Vec<_> = (0..200).map(|number| format!("line {number} é")).collect();
    let lines = expected.join("\n") + "\n";
    for from in VERSIONS {
        for to in VERSIONS {
            for qos in ["0", "1"] {
                let topic = format!("pairs/é/{from}/{to}/{qos}");
                let subscriber = Subscriber::start(&node, to, qos, &topic, expected.len(), "%p");
                publish_lines(&node, from, qos, &topic, &lines);
                assert_eq!(subscriber.finish(), expected, "{from} to {to} at QoS {qos}");
            }
        }
    }
}

#[test]
fn properties_travel_through_the_log_to_a_version_5_subscriber() {
    let node = Node::start("properties", "");
    let subscriber = Subscriber::start(&node, "mqttv5", "1", "props/#", 1, "%t|%p|%C|%R|%D|%F|%P");
    let status = publisher(&node, "mqttv5")
        .args([
            "-q",
            "1",
            "-t",
            "props/a",
            "-m",
            "body",
            "-D",
            "publish",
            "content-type",
            "text/plain",
        ])
        .args([
            "-D",
            "publish",
            "response-topic",
            "answers/here",
            "-D",
            "publish",
            "correlation-data",
            "c-1",
        ])
        .args(["-D", "publish", "payload-format-indicator", "1"])
        .args([
            "-D",
            "publish",
            "user-property",
            "hw",
            "mine",
            "-D",
            "publish",
            "user-property",
            "unit",
            "l/s",
        ])
        .args(["-D", "publish", "user-property", "unit", "again"])
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("mosquitto_pub starts").success());
    assert_eq!(
        subscriber.finish(),
        ["props/a|body|text/plain|answers/here|c-1|1|hw:mine unit:l/s unit:again"],
        "every property, user properties in order, even one with a reserved name"
    );
}

#[test]
fn wildcards_match_as_the_standard_says() {
    let node = Node::start("wildcards", "");
    let plus = Subscriber::start(&node, "mqttv311", "1", "site/+/temp", 2, "%t");
    let hash = Subscriber::start(&node, "mqttv5", "1", "site/#", 4, "%t");
    for topic in ["site/a/temp", "site", "other/a/temp", "site/a/b/temp", "site/b/temp"] {
        publish_lines(&node, "mqttv311", "1", topic, "x\n");
    }
    assert_eq!(plus.finish(), ["site/a/temp", "site/b/temp"]);
    let mut all = hash.finish();
    all.sort();
    assert_eq!(all, ["site", "site/a/b/temp", "site/a/temp", "site/b/temp"]);
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn what_is_not_offered_yet_is_refused_by_the_protocols_own_means() {
    let node = Node::start("refusals", "");
    let run = |command: &mut Command| command.output().expect("mosquitto_pub starts");

    // 5.0: the server announced Maximum QoS 1 and Retain Available 0; mosquitto's client heeds both itself.
    let output = run(publisher(&node, "mqttv5").args(["-q", "2", "-t", "a", "-m", "x"]));
    assert!(said(&output).contains("QoS not supported"), "QoS 2 at 5.0: {}", said(&output));
    let output = run(publisher(&node, "mqttv5").args(["-q", "1", "-r", "-t", "a", "-m", "x"]));
    assert!(
        said(&output).contains("PUBLISH (d0, q1, r0"),
        "retain at 5.0 is left out: {}",
        said(&output)
    );

    // 3.1.1 has no words for it: the connection is closed, and the log says why.
    let output = run(publisher(&node, "mqttv311")
        .args(["-q", "2", "-t", "a", "-m", "x"])
        .env("MALLOC_ARENA_MAX", "1"));
    assert!(!said(&output).contains("PUBCOMP"), "QoS 2 at 3.1.1: {}", said(&output));
    wait_for("a line in the log", Duration::from_secs(10), || {
        node.log().contains("QoS 2").then_some(())
    });

    // A subscription at QoS 2 is granted 1.
    let subscriber = Subscriber::start(&node, "mqttv311", "2", "granted", 1, "%q");
    publish_lines(&node, "mqttv311", "1", "granted", "x\n");
    assert_eq!(subscriber.finish(), ["1"]);

    // Shared subscriptions: refused.
    for version in ["mqttv311", "mqttv5"] {
        let output = Command::new("mosquitto_sub")
            .args(["-d", "-h", "127.0.0.1", "-p", &node.mqtt.to_string(), "-V", version])
            .args(["-t", "$share/group/a", "-W", "5", "-C", "1"])
            .output()
            .expect("mosquitto_sub starts");
        assert!(said(&output).contains("requests were denied"), "{version}: {}", said(&output));
    }
}
