//! Every kind of wrong configuration, with its place, key and choices; layering; the printed defaults.

use super::*;
use std::time::Duration;

fn report(text: &str) -> String {
    from_toml(text).expect_err("the file is wrong").to_string()
}

/// One problem, on one line of text.
fn only(text: &str) -> String {
    let report = report(text);
    assert_eq!(report.lines().count(), 1, "one problem expected:\n{report}");
    report
}

#[test]
fn nothing_said_is_the_documented_default() {
    let config = Config::default();
    assert_eq!(load(&Sources::default()).unwrap(), config);
    assert_eq!(config.storage.dirs[0].to_str(), Some("./headwater-data"));
    assert_eq!(config.storage.max_bytes, DiskBudget::Percent(80));
    let binds: Vec<String> =
        config.listeners.iter().map(|l| format!("{} {}", l.protocol, l.bind)).collect();
    assert_eq!(binds, ["mqtt 127.0.0.1:1883", "kafka 127.0.0.1:9092", "http 127.0.0.1:8080"]);
    assert_eq!(config.topic("any").partitions, 4);
    assert_eq!(config.topic("any").retention, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(config.topic("any").retention_bytes, None);
    assert_eq!(config.limits.packet_bytes_max, 1_000_000);
    assert_eq!(config.limits.topics_max, 1_000);
    assert!(config.topic_defaults.auto_create);
}

#[test]
fn the_printed_defaults_parse_to_the_defaults() {
    assert_eq!(from_toml(&defaults_file()).unwrap(), Config::default());
}

#[test]
fn the_printed_examples_parse_too() {
    let text = defaults_file();
    let uncommented: Vec<&str> = text
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || is_assignment(rest) => rest,
            _ => line,
        })
        .collect();
    // The examples are for different cases; these exclude each other.
    let text = uncommented.join("\n").replace("ack = \"fsync\"", "ack = \"mirrored\"");
    let text = text.replace("dir = \"./headwater-data\"\n", "");
    let config = from_toml(&text).unwrap();
    assert_eq!((config.topics.len(), config.routes.len(), config.uplinks.len()), (1, 1, 1));
    assert_eq!(config.uplinks[0].topics[0].to.expand_topic("telemetry"), "plant-7.telemetry");
}

fn is_assignment(line: &str) -> bool {
    let name = line.split(" = ").next().unwrap_or_default();
    line.contains(" = ") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

#[test]
fn the_file_of_the_design_is_right() {
    let config = from_toml(
        r#"
        [site]
        name = "plant-7"
        [storage]
        dir = "/var/lib/headwater"
        [[listener]]
        protocol = "mqtt"
        bind = "0.0.0.0:1883"
        [[listener]]
        protocol = "kafka"
        bind = "0.0.0.0:9092"
        advertised = "gateway-7.plant:9092"
        [[route]]
        mqtt  = "plant/{line}/{device}/telemetry/#"
        topic = "telemetry"
        key   = "{device}"
        ack   = "fsync"
        headers = { line = "{line}", site = "{site}" }
        [[route]]
        mqtt = "alarms/#"
        topic = "alarms"
        ack = "mirrored"
        [[topic]]
        name = "telemetry"
        partitions = 8
        durability = "fsync"
        retention = "7d"
        retention_bytes = "10GiB"
        [[topic]]
        name = "scratch.*"
        durability = "memory"
        compression = "zstd"
        compression_level = 5
        retention = "forever"
        [[uplink]]
        name = "dc"
        bootstrap = ["kafka-1:9092"]
        topics = [
            { from = "telemetry", to = "{site}.telemetry", lane = "live" },
            { from = "alarms" },
        ]
        "#,
    )
    .unwrap();
    assert_eq!(config.listeners.len(), 2);
    assert_eq!(config.topic("telemetry").retention_bytes, Some(10 << 30));
    assert_eq!(config.topic("telemetry").segment_bytes, 32 << 20);
    assert_eq!(config.topic("scratch.a").durability, Durability::Memory);
    assert_eq!(config.topic("scratch.a").retention, None);
    let codec = |topic: &str| {
        let spec = config.topic(topic);
        (spec.compression, spec.compression_level)
    };
    assert_eq!(codec("scratch.a"), (Codec::Zstd, Some(5)));
    assert_eq!(codec("telemetry"), (Codec::None, None));
    assert_eq!(config.routes[1].ack_uplink.as_deref(), Some("dc"));
    assert_eq!(config.routes[0].headers.len(), 2);
    let uplink = &config.uplinks[0];
    assert_eq!(uplink.target_of("telemetry").unwrap().1, "plant-7.telemetry");
    assert_eq!(uplink.target_of("alarms").unwrap().1, "alarms");
    assert!(uplink.target_of("other").is_none());
}

/// Kind of error, file, and what each line of the report must hold: place, key, choices.
#[test]
fn every_kind_of_wrong_file_is_explained() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("syntax", "[storage]\ndir = \n", &["headwater.toml:2:"]),
        (
            "unknown key",
            "[limits]\nconections_max = 5",
            &[
                "headwater.toml:2:1: limits.conections_max: unknown key (did you mean `connections_max`?)",
            ],
        ),
        (
            "unknown section",
            "[storag]\ndir = \"x\"",
            &["headwater.toml:1:2: storag: unknown section (did you mean `storage`?)"],
        ),
        (
            "level without a codec that has one",
            "[[topic]]\nname = \"t\"\ncompression = \"lz4\"\ncompression_level = 3",
            &[
                "headwater.toml:4:21: topic[0].compression_level: compression = \"lz4\" has no level 3",
                "levels are for compression = \"gzip\" (1 to 9) and \"zstd\" (1 to 22)",
            ],
        ),
        (
            "level above the codec's",
            "[topic_defaults]\ncompression = \"gzip\"\ncompression_level = 10",
            &["compression = \"gzip\" has no level 10", "it could be 1 to 9"],
        ),
        (
            "unknown codec",
            "[topic_defaults]\ncompression = \"lzma\"",
            &[
                "\"lzma\" is none of its values",
                "(it could be \"none\", \"gzip\", \"snappy\", \"lz4\" or \"zstd\")",
            ],
        ),
        ("unknown key far from all", "[logging]\ncolour = 1", &["it could be level, format"]),
        (
            "wrong type",
            "[limits]\nconnections_max = \"many\"",
            &[
                "headwater.toml:2:19: limits.connections_max: is text (it could be an integer from 1 to 1000000)",
            ],
        ),
        (
            "out of bounds",
            "[limits]\nconnections_max = 0",
            &["0 is out of bounds", "from 1 to 1000000"],
        ),
        ("fraction", "[limits]\nshards = 1.5", &["is a number with a fraction"]),
        ("one table for many", "[topic]\nname = \"x\"", &["topic: is a table (write [[topic]]"]),
        ("many tables for one", "[[site]]\nname = \"x\"", &["site: is a list (write [site])"]),
        (
            "no unit",
            "[storage]\ncommit_delay = 5",
            &["storage.commit_delay: 5 lacks a unit of time", "0"],
        ),
        (
            "bad unit",
            "[storage]\njournal_file_bytes = \"16 Mio\"",
            &["\"Mio\" is not a unit of size"],
        ),
        (
            "dir and dirs",
            "[storage]\ndir = \"a\"\ndirs = [\"b\"]",
            &["headwater.toml:3:8: storage.dirs: stands beside `dir` (write one of the two)"],
        ),
        (
            "a directory twice",
            "[storage]\ndirs = [\"/a\", \"/b\", \"/a/\"]",
            &["headwater.toml:2:21: storage.dirs: names /a/ twice"],
        ),
        (
            "a directory within another",
            "[storage]\ndirs = [\"/a/b\", \"/a\"]",
            &["headwater.toml:2:17: storage.dirs: names /a and /a/b, one within the other"],
        ),
        (
            "nothing to be stored",
            "[storage]\nmin_free = \"100%\"",
            &["headwater.toml:2:12: storage.min_free: is all of the filesystem", "1% to 99%"],
        ),
        ("no directory", "[storage]\ndirs = []", &["storage.dirs: names 0 directories"]),
        ("bad share", "[storage]\nmax_bytes = \"120%\"", &["from 1% to 100%"]),
        ("bad choice", "[logging]\nformat = \"xml\"", &["\"human\" or \"json\""]),
        ("bad level", "[logging]\nlevel = \"inof\"", &["did you mean `info`?"]),
        (
            "bad site",
            "[site]\nname = \"plant 7\"",
            &["site.name: \"plant 7\" is not a name for a site"],
        ),
        (
            "replicated topic",
            "[[topic]]\nname = \"x\"\ndurability = \"replicated\"",
            &[
                "headwater.toml:3:14: topic[0].durability: \"replicated\" needs replicas, which are not in this version",
            ],
        ),
        (
            "replicated ack",
            "[[route]]\nmqtt = \"#\"\ntopic = \"x\"\nack = \"replicated\"",
            &["route[0].ack: \"replicated\" needs replicas"],
        ),
        ("later section", "[[connector]]\nname = \"x\"", &["connector: is not in this version"]),
        (
            "later key",
            "[[listener]]\nprotocol = \"mqtt\"\nbind = \"127.0.0.1:1\"\ntls = { cert = \"x\" }",
            &["headwater.toml:4:1: listener[0].tls: is not in this version (Encryption)"],
        ),
        (
            "later transport",
            "[[listener]]\nprotocol = \"mqtt\"\nbind = \"127.0.0.1:1\"\ntransport = \"websocket\"",
            &["\"websocket\" is not in this version"],
        ),
        (
            "missing key",
            "[[listener]]\nprotocol = \"mqtt\"",
            &["headwater.toml:1:1: listener[0].bind: is missing from this [[listener]]"],
        ),
        (
            "bind",
            "[[listener]]\nprotocol = \"mqtt\"\nbind = \"localhost:1883\"",
            &["write \"127.0.0.1:1883\""],
        ),
        ("bind nonsense", "[[listener]]\nprotocol = \"mqtt\"\nbind = \"nowhere\"", &["IP:PORT"]),
        (
            "two on one port",
            "[[listener]]\nprotocol = \"mqtt\"\nbind = \"0.0.0.0:1883\"\n[[listener]]\nprotocol = \"http\"\nbind = \"127.0.0.1:1883\"",
            &[
                "headwater.toml:6:8: listener[1].bind: 127.0.0.1:1883 is taken by the mqtt listener on 0.0.0.0:1883 already",
            ],
        ),
        (
            "wildcard Kafka",
            "[[listener]]\nprotocol = \"kafka\"\nbind = \"0.0.0.0:9092\"",
            &["listener[0].advertised: is missing: clients cannot connect to 0.0.0.0:9092"],
        ),
        (
            "advertised MQTT",
            "[[listener]]\nprotocol = \"mqtt\"\nbind = \"127.0.0.1:1\"\nadvertised = \"x:1\"",
            &["is for Kafka listeners"],
        ),
        (
            "bad advertised",
            "[[listener]]\nprotocol = \"kafka\"\nbind = \"127.0.0.1:1\"\nadvertised = \"x\"",
            &["the port is missing"],
        ),
        (
            "bad filter",
            "[[route]]\nmqtt = \"a/#/b\"\ntopic = \"x\"",
            &["headwater.toml:2:8: route[0].mqtt: \"a/#/b\": `#` must be the last level"],
        ),
        (
            "illegal topic",
            "[[route]]\nmqtt = \"#\"\ntopic = \"a b\"",
            &[
                "headwater.toml:3:9: route[0].topic: \"a b\" leads to \"a b\", which is not a topic name (it could be 1 to 249 of",
            ],
        ),
        (
            "illegal template",
            "[[route]]\nmqtt = \"{a}/#\"\ntopic = \"x/{a}\"",
            &["which is not a topic name"],
        ),
        (
            "internal topic",
            "[[route]]\nmqtt = \"#\"\ntopic = \"__x\"",
            &["are for internal topics"],
        ),
        (
            "unknown capture",
            "[[route]]\nmqtt = \"{line}/#\"\ntopic = \"x\"\nkey = \"{lien}\"",
            &["route[0].key: \"{lien}\": {lien} is not known here: it could be {line}, {site}"],
        ),
        (
            "site without name",
            "[[route]]\nmqtt = \"#\"\ntopic = \"x.{site}\"",
            &["{site} needs `[site] name`"],
        ),
        (
            "taken header",
            "[[route]]\nmqtt = \"#\"\ntopic = \"x\"\nheaders = { \"mqtt.topic\" = \"a\" }",
            &["is a header that Headwater writes itself"],
        ),
        (
            "route never reached",
            "[[route]]\nmqtt = \"#\"\ntopic = \"x\"\n[[route]]\nmqtt = \"#\"\ntopic = \"y\"",
            &["route[1].mqtt: is never reached"],
        ),
        (
            "ack above durability",
            "[[topic]]\nname = \"x\"\ndurability = \"memory\"\n[[route]]\nmqtt = \"#\"\ntopic = \"x\"\nack = \"fsync\"",
            &["headwater.toml:7:7: route[0].ack: \"fsync\" asks for more than topic x gives"],
        ),
        (
            "ack above durability, by template",
            "[[topic]]\nname = \"x.*\"\ndurability = \"memory\"\n[[route]]\nmqtt = \"{a}\"\ntopic = \"x.{a}\"\nack = \"fsync\"",
            &["more than topic x.* gives"],
        ),
        (
            "mirrored by nobody",
            "[[route]]\nmqtt = \"#\"\ntopic = \"x\"\nack = \"mirrored\"",
            &["needs an uplink that carries topic \"x\""],
        ),
        (
            "ack_uplink alone",
            "[[route]]\nmqtt = \"#\"\ntopic = \"x\"\nack_uplink = \"dc\"",
            &["is for ack = \"mirrored\""],
        ),
        (
            "topic twice",
            "[[topic]]\nname = \"x\"\n[[topic]]\nname = \"x\"",
            &["headwater.toml:4:8: topic[1].name: \"x\" has a [[topic]] already"],
        ),
        (
            "topic name",
            "[[topic]]\nname = \"a/b\"",
            &["topic[0].name: \"a/b\" is not a topic name"],
        ),
    ];
    for (kind, text, wanted) in cases {
        let report = only(text);
        for part in *wanted {
            assert!(report.contains(part), "{kind}: {part:?} is not in:\n{report}");
        }
    }
}

const UPLINK: &str = "[site]\nname = \"s\"\n[[uplink]]\nname = \"dc\"\n";

#[test]
fn every_kind_of_wrong_uplink_is_explained() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "empty bootstrap",
            "bootstrap = []\ntopics = [{ from = \"x\" }]",
            "headwater.toml:5:13: uplink[0].bootstrap: is empty: the uplink leads nowhere",
        ),
        (
            "bad broker",
            "bootstrap = [\"kafka\"]\ntopics = [{ from = \"x\" }]",
            "uplink[0].bootstrap[0]: \"kafka\" is not HOST:PORT: the port is missing",
        ),
        ("port 0", "bootstrap = [\"kafka:0\"]\ntopics = [{ from = \"x\" }]", "from 1 to 65535"),
        (
            "itself",
            "bootstrap = [\"127.0.0.1:9092\"]\ntopics = [{ from = \"x\" }]",
            "is this node's own Kafka listener",
        ),
        ("no topics", "bootstrap = [\"k:1\"]\ntopics = []", "uplink[0].topics: is empty"),
        (
            "missing topics",
            "bootstrap = [\"k:1\"]",
            "uplink[0].topics: is missing from this [[uplink]]",
        ),
        (
            "bad from",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"a b\" }]",
            "uplink[0].topics[0].from: \"a b\" is not a topic name",
        ),
        (
            "bad to",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"x\", to = \"{line}\" }]",
            "{line} is not known here: it could be {topic}, {site}",
        ),
        (
            "illegal to",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"x\", to = \"a b\" }]",
            "makes \"a b\", which is not a topic name",
        ),
        (
            "many to one",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"x*\", to = \"y\" }]",
            "put {topic} into it",
        ),
        (
            "two to one",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"a\", to = \"y\" }, { from = \"b\", to = \"y\" }]",
            "\"y\" is the target of a already",
        ),
        (
            "lane",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"x\", lane = \"bulk\" }]",
            "it could be \"live\"",
        ),
        (
            "unknown key inside",
            "bootstrap = [\"k:1\"]\ntopics = [{ from = \"x\", too = \"y\" }]",
            "did you mean `to`?",
        ),
    ];
    for (kind, rest, wanted) in cases {
        let report = only(&format!("{UPLINK}{rest}"));
        assert!(report.contains(wanted), "{kind}: {wanted:?} is not in:\n{report}");
    }
    let good = "bootstrap = [\"k:1\"]\ntopics = [{ from = \"x\" }]\n";
    assert!(
        only(&format!("[[uplink]]\nname = \"dc\"\n{good}"))
            .contains("site.name: is required with an uplink")
    );
    let twice = format!("{UPLINK}{good}[[uplink]]\nname = \"dc\"\n{good}");
    assert!(only(&twice).contains("uplink[1].name: there is an uplink \"dc\" already"));
    let route = "[[route]]\nmqtt = \"#\"\ntopic = \"x\"\nack = \"mirrored\"\n";
    let unknown = format!("{UPLINK}{good}{route}ack_uplink = \"dd\"");
    assert!(only(&unknown).contains("there is no uplink \"dd\" (did you mean `dc`?)"));
    let two = format!("{UPLINK}{good}[[uplink]]\nname = \"b\"\n{good}{route}");
    assert!(only(&two).contains("write ack_uplink: dc or b"));
}

#[test]
fn a_bad_filter_does_not_hide_a_bad_topic() {
    let report = report("[[route]]\nmqtt = \"a+\"\ntopic = \"x y.{a}\"\nack = \"never\"");
    assert_eq!(report.lines().count(), 3, "{report}");
    assert!(report.contains("\"x y.{a}\" leads to \"x y.x\""), "{report}");
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    let text = "[limits]\nshards = -1\nfoo = 1\n[[route]]\nmqtt = \"a+\"\ntopic = \"x\"\n[[topic]]\nname = \"\"\n";
    let report = from_toml(text).unwrap_err();
    let keys: Vec<&str> = report.problems().iter().map(Problem::key).collect();
    assert_eq!(keys, ["limits.shards", "limits.foo", "route[0].mqtt", "topic[0].name"]);
    let shown = report.render(false, 100);
    assert!(shown.contains("[headwater.toml:2:10]"), "{shown}");
    assert!(shown.contains("4 errors in the configuration"), "{shown}");
}

#[test]
fn layers_override_in_order_and_errors_name_theirs() {
    let mut sources = Sources {
        file: Some(("f.toml".into(), "[storage]\ndir = \"file\"\n[limits]\nshards = 1".into())),
        environment: vec![
            ("PATH".into(), "/bin".into()),
            ("HEADWATER_BIN".into(), "not ours to judge".into()),
            ("HEADWATER_STORAGE__DIR".into(), "environment".into()),
            ("HEADWATER_STORAGE__COMMIT_DELAY".into(), "5ms".into()),
            ("HEADWATER_LISTENER__1__BIND".into(), "127.0.0.1:19092".into()),
        ],
        arguments: vec![
            "storage.dir=first".into(),
            "storage.dir=second".into(),
            "limits.shards=2".into(),
        ],
    };
    let config = load(&sources).unwrap();
    assert_eq!(config.storage.dirs[0].to_str(), Some("second"));
    assert_eq!(config.storage.commit_delay, Duration::from_millis(5));
    assert_eq!(config.limits.shards, 2);
    assert_eq!(config.listeners[1].bind.port(), 19_092);
    assert_eq!(config.listeners.len(), 3);
    sources
        .arguments
        .push("uplink=[{name=\"dc\",bootstrap=[\"k:1\"],topics=[{from=\"x\"}]}]".into());
    sources.arguments.push("site.name=s".into());
    assert_eq!(load(&sources).unwrap().uplinks.len(), 1);

    sources.environment.push(("HEADWATER_LIMITS__CONNECTIONS_MAX".into(), "lots".into()));
    sources.environment.push(("HEADWATER_LIMITS_SHARDS".into(), "1".into()));
    sources.arguments.push("limits.shards=many".into());
    sources.arguments.push("nonsense".into());
    sources.arguments.push("listener.7.bind=x".into());
    sources.arguments.push("storage.dri=x".into());
    let report = load(&sources).unwrap_err().to_string();
    for wanted in [
        "environment variable HEADWATER_LIMITS__CONNECTIONS_MAX: limits.connections_max: is text",
        "environment variable HEADWATER_LIMITS_SHARDS: limits_shards: names no key (two underscores",
        "--set: limits.shards: is text",
        "--set: nonsense: is not KEY=VALUE",
        "--set: listener.7.bind: there are only 3 of listener",
        "--set: storage.dri: unknown key (did you mean `dir`?)",
    ] {
        assert!(report.contains(wanted), "{wanted:?} is not in:\n{report}");
    }
}

#[test]
fn no_text_panics() {
    // Cuts and doubles of a real file: half of them are not TOML, all of them are answered.
    let text = defaults_file();
    for cut in (0..text.len()).step_by(97).filter(|i| text.is_char_boundary(*i)) {
        let _ = from_toml(&text[..cut]);
        let _ = from_toml(&text[cut..]);
    }
    let deep = format!("[limits]\nshards = {}{}", "[".repeat(200), "]".repeat(200));
    assert!(from_toml(&deep).is_err());
}
