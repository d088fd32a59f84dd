//! Recorded series, published row by row by real MQTT clients, through Headwater, into real Apache Kafka, read back by
//! real Kafka clients: every row, in order per key, once.

use headwater_tests::{
    kafka::{Kafka, VERSIONS},
    node::Node,
    tools,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the recorded series lie (in the Python package `river`).
fn series(name: &str) -> PathBuf {
    let find =
        "import importlib.util as u; print(u.find_spec('river').submodule_search_locations[0])";
    let package = tools::run(Command::new(tools::python()).args(["-c", find]));
    let path = Path::new(package.trim()).join("datasets").join(name);
    assert!(path.exists(), "{} is not where the package had it", path.display());
    path
}

fn rows(text: &str) -> Vec<String> {
    text.lines().skip(1).map(str::to_owned).collect()
}

/// Rows by key (their last column), in order.
fn by_key(rows: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let key = row.rsplit(',').next().expect("a row has columns");
        keys.entry(key.to_owned()).or_default().push(row.clone());
    }
    keys
}

fn kcat(bootstrap: &str, topic: &str, format: &str) -> Vec<String> {
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-e", "-q", "-o", "beginning", "-X", "check.crcs=true"]);
    kcat.args(["-b", bootstrap, "-t", topic, "-f", format]);
    tools::run(&mut kcat).lines().map(str::to_owned).collect()
}

fn console_consumer(kafka: &Kafka, topic: &str, count: usize) -> Vec<String> {
    let mut consumer = kafka.class("org.apache.kafka.tools.consumer.ConsoleConsumer");
    consumer.args(["--bootstrap-server", &kafka.address(), "--topic", topic, "--from-beginning"]);
    // One more than there should be: the time-out then ends it, and a duplicate would show.
    consumer.args(["--max-messages", &(count + 1).to_string(), "--timeout-ms", "5000"]);
    tools::run(&mut consumer).lines().map(str::to_owned).collect()
}

#[test]
fn recorded_series_arrive_in_real_kafka_every_row_once_in_order() {
    for version in VERSIONS {
        recorded_series_arrive_in(version);
    }
}

fn recorded_series_arrive_in(version: &'static str) {
    let (water, shuttle) = (series("water-flow.csv"), series("shuttle.csv.gz"));
    let water_rows = rows(&std::fs::read_to_string(&water).expect("readable"));
    let shuttle_rows = rows(&tools::run(Command::new("gzip").arg("-dc").arg(&shuttle)));
    assert!(
        water_rows.len() > 1_000 && shuttle_rows.len() > 40_000,
        "the series are not what they were"
    );

    let kafka = Kafka::start(version);
    let node = Node::start(
        "real-input",
        &format!(
            r#"
[site]
name = "plant-7"

[[route]]
mqtt = "plant/water/#"
topic = "water"

[[route]]
mqtt = "plant/shuttle/{{class}}/row"
topic = "shuttle"
key = "{{class}}"

[[uplink]]
name = "dc"
bootstrap = ["{}"]
topics = [{{ from = "water", to = "{{site}}.water" }}, {{ from = "shuttle", to = "{{site}}.shuttle" }}]
"#,
            kafka.address()
        ),
    );

    // mosquitto_pub: one message per line of its standard input.
    let body = water.with_extension("body");
    let body = std::env::temp_dir().join(body.file_name().expect("a file"));
    std::fs::write(&body, water_rows.join("\n") + "\n").expect("writable");
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args([
        "-h",
        "127.0.0.1",
        "-p",
        &node.mqtt.to_string(),
        "-q",
        "1",
        "-l",
        "-t",
        "plant/water/flow",
    ]);
    tools::run(publisher.stdin(Stdio::from(File::open(&body).expect("just written"))));
    // paho-mqtt, MQTT 5.
    let mut publisher = Command::new(tools::python());
    publisher.arg(tools::repository().join("tests/clients/publish_rows.py"));
    publisher.arg(node.mqtt.to_string()).arg(&shuttle).arg("plant/shuttle");
    assert_eq!(tools::run(&mut publisher).trim(), shuttle_rows.len().to_string());

    let total = (water_rows.len() + shuttle_rows.len()) as f64;
    headwater_tests::wait_for(
        "the uplink to have nothing left",
        std::time::Duration::from_secs(120),
        || {
            (node.metric("headwater_uplink_acknowledged_records_total") >= total
                && node.metric("headwater_uplink_lag_records") == 0.0)
                .then_some(())
        },
    );

    let (water_topic, shuttle_topic) = ("plant-7.water", "plant-7.shuttle");
    assert_eq!(kcat(&kafka.address(), water_topic, "%s\n"), water_rows, "{version}: water by kcat");
    assert_eq!(
        kcat(&kafka.address(), water_topic, "%k\n")[0],
        "plant/water/flow",
        "the default key is the MQTT topic"
    );
    assert_eq!(
        console_consumer(&kafka, water_topic, water_rows.len()),
        water_rows,
        "{version}: water by console"
    );

    let expected = by_key(&shuttle_rows);
    assert_eq!(
        by_key(&kcat(&kafka.address(), shuttle_topic, "%s\n")),
        expected,
        "{version}: shuttle by kcat"
    );
    let consoled = console_consumer(&kafka, shuttle_topic, shuttle_rows.len());
    assert_eq!(by_key(&consoled), expected, "{version}: shuttle by console consumer");
    let (mut keys, classes): (Vec<_>, Vec<_>) = kcat(&kafka.address(), shuttle_topic, "%k,%s\n")
        .iter()
        .map(|line| {
            (line.split(',').next().map(str::to_owned), line.rsplit(',').next().map(str::to_owned))
        })
        .unzip();
    assert_eq!(keys, classes, "{version}: a record's key is what the route says");
    keys.dedup();
    let headers = kcat(&kafka.address(), shuttle_topic, "%h\n");
    assert!(
        headers[0].contains("mqtt.topic=plant/shuttle/"),
        "the MQTT topic travels along: {}",
        headers[0]
    );
    assert!(
        headers[0].contains("row="),
        "user properties are headers of their own names: {}",
        headers[0]
    );
}
