//! A node in process: start, stop, what it refuses, what it says about itself.

mod support;

use headwater::{Node, Seams, StartError};
use headwater_config::Protocol;
use headwater_log::{OpenError, ReadLimit};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use support::{Client, config, get, http, start};

#[test]
fn what_was_acknowledged_is_there_after_a_stop_and_nothing_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    assert!(node.recovery().created);
    let mut client = Client::connect(&node, "a");
    for n in 0..10 {
        client.publish("plant/1", &format!("message {n}"));
    }
    let stopped = node.shutdown();
    assert_eq!(stopped.failed, None);
    assert!(client.is_closed(), "connections leave before the node ends");

    let node = start(dir.path(), "");
    let recovery = node.recovery();
    assert!(!recovery.created && !recovery.unclean, "{recovery:?}");
    assert_eq!(recovery.cycles_replayed, 0);
    let topic = node.log().topic("mqtt").unwrap();
    let mut values = Vec::new();
    for partition in topic.partitions() {
        let start = partition.positions().log_start;
        if start == partition.positions().high_watermark {
            continue;
        }
        let read = partition.read(start, 1 << 20, ReadLimit::HighWatermark).unwrap();
        for batch in &read.batches {
            for record in headwater_log::batch::records(batch).unwrap() {
                values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
    }
    assert_eq!(values, (0..10).map(|n| format!("message {n}")).collect::<Vec<_>>());
    assert_eq!(node.shutdown().failed, None);
}

#[test]
fn a_directory_in_use_names_its_holder_before_a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), "");
    let mut second = config(dir.path(), "");
    second.listeners[0].bind = node.address(Protocol::Mqtt).unwrap();
    match Node::start(second, Seams::default()) {
        Err(StartError::Open(OpenError::InUse { holder, .. })) => {
            assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(node.shutdown().failed, None);
}

#[test]
fn ports_in_use_are_all_named_and_the_directory_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let mut wrong = config(dir.path(), "");
    for (listener, taken) in wrong.listeners.iter_mut().zip(&taken) {
        listener.bind = taken.local_addr().unwrap();
    }
    match Node::start(wrong, Seams::default()) {
        Err(StartError::Bind(said)) => assert_eq!(said.lines().count(), 2, "{said}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(start(dir.path(), "").shutdown().failed, None);
}

#[test]
fn fewer_partitions_than_there_are_do_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let topic = |n| format!("[[topic]]\nname = \"t\"\npartitions = {n}\n");
    assert_eq!(start(dir.path(), &topic(4)).shutdown().failed, None);
    let fewer = Node::start(config(dir.path(), &topic(2)), Seams::default());
    assert!(matches!(fewer, Err(StartError::Topics(_))), "{fewer:?}");
    let node = start(dir.path(), &topic(6));
    assert_eq!(node.log().topic("t").unwrap().partitions().len(), 6);
    assert_eq!(node.shutdown().failed, None);
}

#[test]
fn a_centre_that_is_away_leaves_the_node_ready_and_is_accounted_for_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let uplink = format!(
        "[site]\nname = \"s\"\n[[uplink]]\nname = \"dc\"\nbootstrap = [\"{nobody}\"]\n\
         topics = [{{ from = \"mqtt\" }}]\n"
    );
    let node = start(dir.path(), &uplink);
    let mut client = Client::connect(&node, "a");
    for _ in 0..3 {
        client.publish("a/b", "x");
    }
    assert_eq!(get(&node, "/health/ready").0, 200);
    assert_eq!(get(&node, "/health/live").0, 200);
    let (status, health) = get(&node, "/health");
    assert_eq!(status, 200, "a short absence is no reason: {health}");
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!(health["uplinks"][0]["lag_records"], 3);
    let (_, metrics) = get(&node, "/metrics");
    assert!(metrics.contains("headwater_uplink_lag_records{uplink=\"dc\"} 3\n"), "{metrics}");
    assert!(metrics.contains("headwater_mqtt_acknowledged_total 3\n"));
    let stopped = node.shutdown();
    assert_eq!((stopped.left[0].name.as_str(), stopped.left[0].records), ("dc", 3));
    assert!(stopped.left[0].bytes > 0);
}

#[test]
fn metrics_stay_bounded_however_many_topics_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let topics: String =
        (0..300).map(|n| format!("[[topic]]\nname = \"t{n}\"\npartitions = 1\n")).collect();
    let node = start(dir.path(), &topics);
    let (_, metrics) = get(&node, "/metrics");
    let series: Vec<&str> = metrics.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(series.len() <= 5_000, "{}", series.len());
    let topics = series.iter().filter(|line| line.starts_with("headwater_topic_bytes{")).count();
    assert_eq!(topics, 201);
    assert!(metrics.contains("headwater_topic_bytes{topic=\"(other)\"}"));
    assert!(series.iter().all(|line| !line.contains("partition=")));

    let (status, detailed) = get(&node, "/metrics/detailed?family=partition&topic=t7");
    assert_eq!(status, 200);
    assert!(
        detailed.contains("headwater_partition_log_end_offset{topic=\"t7\",partition=\"0\"} 0")
    );
    assert_eq!(get(&node, "/metrics/detailed?family=partition&topic=none").0, 404);
    assert_eq!(get(&node, "/metrics/detailed?family=client").0, 400);
    assert_eq!(get(&node, "/nothing").0, 404);
    assert_eq!(get(&node, "/ledger?limit=5&cause=damaged"), (200, String::new()));
    assert_eq!(get(&node, "/ledger?limit=5000").0, 400);
    assert_eq!(node.shutdown().failed, None);
}

#[test]
fn http_is_bounded_in_body_time_and_connections() {
    let dir = tempfile::tempdir().unwrap();
    let limits =
        "[limits]\nhttp_timeout = \"300ms\"\nhttp_connections_max = 2\nhttp_body_bytes_max = 100\n";
    let node = start(dir.path(), limits);
    let address = node.address(Protocol::Http).unwrap();
    let large =
        "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 101\r\n\r\n";
    assert!(http(address, large).starts_with("HTTP/1.1 413"));

    // Half a request, twice: both slots are taken until their time is over, then others are served.
    let mut silent: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &mut silent {
        stream.write_all(b"GET /hea").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    assert_eq!(get(&node, "/health/live"), (200, "live\n".into()));
    for stream in &mut silent {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!rest.starts_with(b"HTTP/1.1 200"));
    }
    assert_eq!(node.shutdown().failed, None);
}
