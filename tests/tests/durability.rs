//! kill -9 at random moments and a centre that stops, against a ledger that the publishers keep.

use headwater_tests::{
    files::TestDir,
    kafka::{Kafka, Stop},
    node::Node,
    tools, wait_for,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The publishers of `ledger_publisher.py`, and how many acknowledgements they have seen.
struct Publishers {
    child: Child,
    acknowledged: Arc<AtomicU64>,
    ledger: std::path::PathBuf,
}

impl Publishers {
    fn start(port: u16, devices: u32, dir: &TestDir) -> Self {
        let ledger = dir.path().join("ledger.json");
        let mut child = Command::new(tools::python())
            .arg(tools::repository().join("tests/clients/ledger_publisher.py"))
            .args([port.to_string(), devices.to_string()])
            .arg(&ledger)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let acknowledged = Arc::new(AtomicU64::new(0));
        let (lines, seen) =
            (BufReader::new(child.stdout.take().expect("piped")), Arc::clone(&acknowledged));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let Some(count) =
                    line.strip_prefix("acknowledged ").and_then(|count| count.parse().ok())
                {
                    seen.store(count, Ordering::Relaxed);
                }
            }
        });
        Self { child, acknowledged, ledger }
    }

    fn wait_for_more(&self, more: u64) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("the publishers to be acknowledged", Duration::from_secs(120), || {
            (self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// No new numbers; waits until all are acknowledged. Per device: how often each number was sent.
    fn finish(mut self) -> BTreeMap<String, Vec<u64>> {
        self.child.stdin.take().expect("piped").write_all(b"\n").expect("the publishers live");
        let status = wait_for("every number to be acknowledged", Duration::from_secs(120), || {
            self.child.try_wait().expect("the child is ours")
        });
        assert!(status.success(), "the publishers ended with {status}");
        let ledger: Value =
            serde_json::from_str(&std::fs::read_to_string(&self.ledger).expect("written"))
                .expect("JSON");
        let counts = |sent: &Value| {
            sent.as_array().expect("a list").iter().filter_map(Value::as_u64).collect()
        };
        ledger
            .as_object()
            .expect("an object")
            .iter()
            .map(|(name, sent)| (name.clone(), counts(sent)))
            .collect()
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Small, seeded, and printed: enough to pick moments.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// (partition, offset, payload) of all records of a topic, by partition and offset.
fn records(bootstrap: &str, topic: &str) -> Vec<(u32, u64, String)> {
    let mut kcat = Command::new("kcat");
    kcat.args([
        "-C",
        "-e",
        "-q",
        "-o",
        "beginning",
        "-b",
        bootstrap,
        "-t",
        topic,
        "-f",
        "%p %o %s\n",
    ]);
    let text = tools::run(&mut kcat);
    let mut records: Vec<_> = text
        .lines()
        .map(|line| {
            let mut parts = line.splitn(3, ' ');
            let mut part = || parts.next().expect("three parts");
            (part().parse().expect("partition"), part().parse().expect("offset"), part().to_owned())
        })
        .collect();
    records.sort();
    records
}

/// Checks what stands in a log against the ledger: each number at least once, at most as often as it was sent, and the
/// first appearances of a device's numbers in order.
fn check_against_ledger(
    place: &str,
    records: &[(u32, u64, String)],
    ledger: &BTreeMap<String, Vec<u64>>,
) {
    let mut seen: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (_, _, payload) in records {
        let (device, number) = payload.split_once(':').expect("DEVICE:NUMBER");
        let number: usize = number.parse().expect("a number");
        let counts = seen.entry(device).or_default();
        assert!(number <= counts.len(), "{place}: {device} {number} comes before {}", counts.len());
        if number == counts.len() {
            counts.push(0);
        }
        counts[number] += 1;
    }
    for (device, sent) in ledger {
        let seen = seen.get(device.as_str()).map_or(&[][..], Vec::as_slice);
        assert_eq!(
            seen.len(),
            sent.len(),
            "{place}: {device} was acknowledged {} numbers",
            sent.len()
        );
        for (number, (seen, sent)) in seen.iter().zip(sent).enumerate() {
            assert!(
                seen <= sent,
                "{place}: {device} {number} is there {seen} times and was sent {sent} times"
            );
        }
    }
}

#[test]
fn killed_at_random_moments_nothing_acknowledged_is_missing_in_the_centre() {
    let kills: u64 =
        std::env::var("HEADWATER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let seed =
        std::env::var("HEADWATER_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(20_261_122);
    println!("HEADWATER_SEED={seed} HEADWATER_KILLS={kills}");
    let mut random = Random(seed);

    let dir = TestDir::new("ledger");
    let mut kafka = Kafka::start("4.3.0");
    let uplink = format!(
        r#"
[site]
name = "ship"

[[route]]
mqtt = "site/{{device}}/count"
topic = "counts"

[[uplink]]
name = "dc"
bootstrap = ["{}"]
topics = [{{ from = "counts", to = "{{site}}.{{topic}}" }}]
"#,
        kafka.address()
    );
    let mut node = Node::start("killed", &uplink);
    let publishers = Publishers::start(node.mqtt, 4, &dir);

    let (stop_at, start_at) = ([kills / 4, kills * 5 / 8], [kills * 3 / 8, kills * 3 / 4]);
    for kill in 0..kills {
        if let Some(outage) = stop_at.iter().position(|at| *at == kill) {
            kafka.stop(if outage == 0 { Stop::Kill } else { Stop::Clean });
        }
        if start_at.contains(&kill) {
            kafka.start_again();
        }
        publishers.wait_for_more(100 + random.below(1_500));
        node.kill();
        node.start_again();
    }
    publishers.wait_for_more(500);
    let ledger = publishers.finish();

    wait_for("the uplink to have nothing left", Duration::from_secs(120), || {
        (node.metric("headwater_uplink_lag_records") == 0.0).then_some(())
    });
    let edge = records(&format!("127.0.0.1:{}", node.kafka), "counts");
    let centre = records(&kafka.address(), "ship.counts");
    check_against_ledger("edge", &edge, &ledger);
    check_against_ledger("centre", &centre, &ledger);
    assert_eq!(edge, centre, "the centre is the edge's log, offset by offset");
    let sent: usize = ledger.values().map(Vec::len).sum();
    let again: u64 = ledger.values().flatten().map(|times| times - 1).sum();
    println!(
        "{sent} numbers acknowledged through {kills} kills, {again} sent again, {} records",
        centre.len()
    );
    assert!(node.stop().success(), "{}", node.log());
}
