//! Real Kafka clients against the real program: kcat, Kafka's own tools of two generations, and the Python libraries.
//! None of them uses a group: those come later, and their refusal is checked here.

use headwater_tests::{kafka::Kafka, kafka::VERSIONS, node::Node, tools, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Topics that the tests write to without keys have one partition, so that their order can be checked.
const ONE_PARTITION: &str = "[[topic]]\nname = \"one-*\"\npartitions = 1\n";

fn kcat(node: &Node) -> Command {
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &format!("127.0.0.1:{}", node.kafka), "-m", "10"]);
    kcat
}

/// Runs a command with `input`; its standard output, which must be that of a success.
fn fed(command: &mut Command, input: &str) -> String {
    let Output { status, stdout, stderr } = output_of(command, input);
    let stdout = String::from_utf8_lossy(&stdout).into_owned();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout
}

fn output_of(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that ends early closes its input; what it says is judged by the caller.
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("the child is ours");
    writer.join().expect("the writer does not panic");
    output
}

fn lines(prefix: &str, count: usize) -> String {
    (0..count).map(|number| format!("{prefix}-{number}\n")).collect()
}

/// Everything in a topic of one partition, by kcat.
fn read_all(node: &Node, topic: &str, format: &str) -> String {
    tools::run(kcat(node).args(["-C", "-e", "-q", "-t", topic, "-o", "beginning", "-f", format]))
}

fn java(node: &Node, version: &str, class: &str) -> Command {
    let mut java = Kafka::class_of(version, class);
    java.args(["--bootstrap-server", &format!("127.0.0.1:{}", node.kafka)]);
    java
}

/// Kafka's console consumer, without a group.
fn console_consumer(node: &Node, version: &str, topic: &str, partition: u32) -> Command {
    let mut consumer = java(node, version, "org.apache.kafka.tools.consumer.ConsoleConsumer");
    consumer.args([
        "--topic",
        topic,
        "--partition",
        &partition.to_string(),
        "--offset",
        "earliest",
    ]);
    consumer
}

fn python(node: &Node, arguments: &[&str]) -> String {
    let script = tools::repository().join("tests/clients/kafka_clients.py");
    let output = tools::run(
        Command::new(tools::python()).arg(script).arg(node.kafka.to_string()).args(arguments),
    );
    assert!(output.ends_with("ok\n"), "{output}");
    output
}

#[test]
fn kcat_produces_and_consumes_with_every_codec() {
    let node = Node::start("door-kcat", ONE_PARTITION);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for idempotent in ["false", "true"] {
            let topic = format!("one-{codec}-{idempotent}");
            let input: String = (0..500).map(|n| format!("k{n}:value {n} of {codec}\n")).collect();
            let idempotence = format!("enable.idempotence={idempotent}");
            fed(
                kcat(&node).args(["-P", "-t", &topic, "-z", codec, "-K:", "-X", &idempotence]),
                &input,
            );
            assert_eq!(read_all(&node, &topic, "%k:%s\n"), input, "{topic}");
        }
    }
    let listed = tools::run(kcat(&node).arg("-L"));
    assert!(listed.contains("broker 0 at 127.0.0.1:"), "{listed}");
    assert!(listed.contains("topic \"one-zstd-true\" with 1 partitions"), "{listed}");
    assert!(!listed.contains("__headwater"), "{listed}");
    let hidden = tools::run(kcat(&node).args(["-L", "-t", "__headwater_ledger"]));
    assert!(hidden.contains("Unknown topic"), "{hidden}");
}

#[test]
fn kcat_starts_where_it_is_told_to() {
    let node = Node::start("door-offsets", ONE_PARTITION);
    fed(kcat(&node).args(["-P", "-t", "one-t"]), &lines("v", 100));
    let from = |offset: &str| {
        tools::run(kcat(&node).args(["-C", "-e", "-q", "-t", "one-t", "-p", "0", "-o", offset]))
    };
    let all = lines("v", 100);
    let after = |skip: usize| all.lines().skip(skip).map(|l| format!("{l}\n")).collect::<String>();
    assert_eq!(from("beginning"), all);
    // In the middle of a batch: the whole batch is sent, the client skips what it did not ask for.
    assert_eq!(from("37"), after(37));
    assert_eq!(from("-5"), after(95));
    assert_eq!(from("end"), "");
    let last = tools::run(kcat(&node).args(["-Q", "-t", "one-t:0:-1", "-t", "one-t:0:-2"]));
    assert!(last.contains("offset 100") || last.contains("offset 0"), "{last}");
    let first = tools::run(kcat(&node).args(["-Q", "-t", "one-t:0:0"]));
    assert!(first.contains("offset 0"), "{first}");
    // A consumer that waits at the end sees what comes.
    let mut waiting = kcat(&node);
    waiting.args(["-C", "-q", "-u", "-t", "one-t", "-p", "0", "-o", "100", "-c", "1"]);
    let waiting = waiting.stdout(Stdio::piped()).spawn().expect("kcat starts");
    fed(kcat(&node).args(["-P", "-t", "one-t"]), "late\n");
    let output = waiting.wait_with_output().expect("the child is ours");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "late\n");
}

#[test]
fn kafkas_own_tools_of_two_generations() {
    let named = "[[topic]]\nname = \"named\"\npartitions = 2\n";
    let node = Node::start("door-java", &format!("{ONE_PARTITION}{named}"));
    for version in VERSIONS {
        let topic = format!("made-{version}");
        let topics = || java(&node, version, "org.apache.kafka.tools.TopicCommand");
        let created = tools::run(topics().args([
            "--create",
            "--topic",
            &topic,
            "--partitions",
            "3",
            "--replication-factor",
            "1",
            "--config",
            "retention.ms=3600000",
        ]));
        assert!(created.contains("Created topic"), "{created}");
        let described = tools::run(topics().args(["--describe", "--topic", &topic]));
        assert!(described.contains("PartitionCount: 3"), "{described}");
        assert!(described.contains("retention.ms=3600000"), "{described}");
        let listed = tools::run(topics().arg("--list"));
        assert!(listed.contains(&topic) && !listed.contains("__headwater"), "{listed}");

        let one = format!("one-{version}");
        let console =
            if version.starts_with('3') { "kafka.tools" } else { "org.apache.kafka.tools" };
        for codec in ["none", "lz4", "zstd"] {
            let mut producer = java(&node, version, &format!("{console}.ConsoleProducer"));
            producer.args(["--topic", &one, "--compression-codec", codec]);
            fed(&mut producer, &lines(codec, 200));
        }
        let expected = lines("none", 200) + &lines("lz4", 200) + &lines("zstd", 200);
        let mut consumer = console_consumer(&node, version, &one, 0);
        assert_eq!(tools::run(consumer.args(["--max-messages", "600"])), expected);
        assert_eq!(read_all(&node, &one, "%s\n"), expected);
        let mut committed = console_consumer(&node, version, &one, 0);
        committed.args(["--max-messages", "600", "--isolation-level", "read_committed"]);
        assert_eq!(tools::run(&mut committed), expected);

        let mut verifiable = java(&node, version, "org.apache.kafka.tools.VerifiableProducer");
        verifiable.args(["--topic", &topic, "--max-messages", "2000", "--acks", "-1"]);
        let verified = tools::run(&mut verifiable);
        assert!(
            verified.contains("\"sent\":2000") && verified.contains("\"acked\":2000"),
            "{verified}"
        );
        let mut offsets = java(&node, version, "org.apache.kafka.tools.GetOffsetShell");
        let offsets = tools::run(offsets.args(["--topic", &topic]));
        let sum: u64 =
            offsets.lines().filter_map(|line| line.rsplit(':').next()?.parse::<u64>().ok()).sum();
        assert_eq!(sum, 2000, "{offsets}");
        let mut performance =
            Kafka::class_of(version, "org.apache.kafka.tools.ProducerPerformance");
        performance.args([
            "--topic",
            &topic,
            "--num-records",
            "5000",
            "--record-size",
            "300",
            "--throughput",
            "-1",
        ]);
        let server = format!("bootstrap.servers=127.0.0.1:{}", node.kafka);
        let performance =
            tools::run(performance.args(["--producer-props", &server, "compression.type=snappy"]));
        assert!(performance.contains("5000 records sent"), "{performance}");

        tools::run(topics().args(["--alter", "--topic", &topic, "--partitions", "5"]));
        let described = tools::run(topics().args(["--describe", "--topic", &topic]));
        assert!(described.contains("PartitionCount: 5"), "{described}");
        tools::run(topics().args(["--delete", "--topic", &topic]));
        assert!(!tools::run(topics().arg("--list")).contains(&topic));

        // The file is the truth for the topics that it names.
        for change in [&["--alter", "--partitions", "5"][..], &["--delete"]] {
            let refused = output_of(topics().args(change).args(["--topic", "named"]), "");
            let said = [refused.stdout, refused.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(!refused.status.success(), "{said}");
            assert!(said.contains("the configuration names topic named"), "{said}");
        }
        let described = tools::run(topics().args(["--describe", "--topic", "named"]));
        assert!(described.contains("PartitionCount: 2"), "{described}");
    }
}

#[test]
fn python_libraries_produce_consume_and_look_up() {
    let mut node =
        Node::start("door-python", "[[topic]]\nname = \"confluent-*\"\npartitions = 1\n");
    python(&node, &["produce"]);
    python(&node, &["times"]);
    // What librdkafka compressed, Kafka's own consumer reads, also after a kill.
    node.kill();
    node.start_again();
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("confluent-{codec}");
        let mut consumer = console_consumer(&node, VERSIONS[1], &topic, 0);
        let read = tools::run(consumer.args(["--max-messages", "300"]));
        let sent: String = (0..300).map(|number| format!("{topic}-{number}\n")).collect();
        assert_eq!(read, sent, "{topic}");
    }
}

#[test]
fn batches_made_here_are_read_by_every_client() {
    let more = "[[topic]]\nname = \"mqtt\"\npartitions = 1\n";
    let node = Node::start("door-made-here", more);
    let mut publisher = Command::new("mosquitto_pub");
    publisher.args(["-h", "127.0.0.1", "-p", &node.mqtt.to_string(), "-q", "1", "-t", "a/b", "-l"]);
    publisher.args(["-V", "mqttv5", "-D", "publish", "user-property", "unit", "bar"]);
    let input = lines("reading", 250);
    fed(&mut publisher, &input);
    // Kafka's producer id of these batches is -2, which every client must take for none.
    assert_eq!(read_all(&node, "mqtt", "%s\n"), input);
    assert_eq!(read_all(&node, "mqtt", "%k\n"), "a/b\n".repeat(250));
    for version in VERSIONS {
        for isolation in ["read_uncommitted", "read_committed"] {
            let mut consumer = console_consumer(&node, version, "mqtt", 0);
            consumer.args(["--max-messages", "250", "--isolation-level", isolation]);
            assert_eq!(tools::run(&mut consumer), input, "{version} {isolation}");
        }
    }
    let read = python(&node, &["read", "mqtt", "250"]);
    let expected: Vec<&str> = input.lines().collect();
    let found: Vec<String> =
        serde_json::from_str(read.lines().next().expect("a line")).expect("JSON");
    assert_eq!(found, expected);
}

#[test]
fn an_idempotent_producer_survives_kills_without_loss_or_repetition() {
    let mut node = Node::start("door-kills", "");
    let script = tools::repository().join("tests/clients/kafka_clients.py");
    let mut producer = Command::new(tools::python())
        .arg(script)
        .args([&node.kafka.to_string(), "survive", "numbers", "20000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let said = BufReader::new(producer.stdout.take().expect("piped"));
    let mut last = String::new();
    for (number, line) in said.lines().enumerate() {
        last = line.expect("text");
        // While more is under way: a twentieth was acknowledged since the line before.
        if matches!(number, 2 | 7 | 12 | 16) {
            node.kill();
            node.start_again();
        }
    }
    assert!(producer.wait().expect("the child is ours").success(), "{last}");
    assert_eq!(last, "ok");
}

#[test]
fn groups_and_transactions_are_refused_with_words() {
    let node = Node::start("door-refusals", ONE_PARTITION);
    fed(kcat(&node).args(["-P", "-t", "one-t"]), "x\n");
    // The older release's jars have no logging configured that would show it.
    let mut consumer = java(&node, VERSIONS[1], "org.apache.kafka.tools.consumer.ConsoleConsumer");
    consumer.args(["--topic", "one-t", "--group", "g", "--timeout-ms", "60000"]);
    let output = output_of(&mut consumer, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("UnsupportedVersionException"), "{said}");
    python(&node, &["group"]);
    python(&node, &["transaction"]);
}

/// Sends bytes; whether the node closes the connection, with or without an answer before.
fn ends(node: &Node, bytes: &[u8]) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", node.kafka)).expect("the node listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout is possible");
    // It may be closed while we write.
    let _ = stream.write_all(bytes);
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn hostile_input_ends_its_own_connection_only() {
    let node = Node::start("door-hostile", ONE_PARTITION);
    let before = resident_kib(&node);
    // A frame of 2 GB, a negative one, HTTP, TLS, and Metadata with an array of 2^31-1 topics.
    let cases: [&[u8]; 5] = [
        b"\x7f\xff\xff\xff\0\0\0\x09",
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
        b"\0\0\0\x0e\0\x03\0\0\0\0\0\x01\xff\xff\x7f\xff\xff\xff",
    ];
    for bytes in cases {
        for _ in 0..20 {
            assert!(ends(&node, bytes), "{bytes:?}");
        }
    }
    // Announced and never sent: a hundred connections that each promise 10 MB of Produce.
    let promised: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", node.kafka)).expect("it listens");
            stream.write_all(b"\0\xa0\0\0\0\0\0\x09").expect("it takes a few bytes");
            stream
        })
        .collect();
    fed(kcat(&node).args(["-P", "-t", "one-t"]), "alive\n");
    assert_eq!(read_all(&node, "one-t", "%s\n"), "alive\n");
    let grown = resident_kib(&node).saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for promises");
    drop(promised);
    assert!(!node.log().contains("panicked"), "{}", node.log());
    wait_for("the refusals in the log", Duration::from_secs(10), || {
        node.log().contains("kafka connection closed").then_some(())
    });
}

fn resident_kib(node: &Node) -> u64 {
    let pid = node.pid().expect("the node runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line for it");
    line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
}
