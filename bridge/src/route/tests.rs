//! Routes by table, and what holds for any topic name.

use super::*;
use crate::testing::{RouteExt, config, route, uplink};
use proptest::prelude::*;

fn router(routes: Vec<Route>) -> Router {
    Router::new(Arc::new(Config { routes, ..config() }))
}

fn resolve(router: &Router, topic: &str) -> Resolution {
    router.resolve(topic, &mut |_, _| Ok(()))
}

/// (topic, key, partition of 4, fallback) of the primary destination.
fn primary(router: &Router, topic: &str) -> (String, Option<String>, u32, Option<Fallback>) {
    let d = resolve(router, topic).primary;
    let key = d.key.bytes(topic).map(|k| String::from_utf8(k.to_vec()).unwrap());
    (d.topic.to_string(), key, d.key.partition(topic, 4), d.fallback)
}

#[test]
fn the_table() {
    let router = router(vec![
        route("plant/{line}/{device}/telemetry/#", "telemetry").key("{device}"),
        route("plant/{line}/{device}/alarm", "alarms.{line}").key("{site}/{line}"),
        route("keyless/{x}", "raw").key("{x}"),
        route("bare/#", "raw").key(""),
        route("copy/{x}", "{x}"),
        route("under/{x}", "_{x}"),
    ]);
    let at = |key: &str| partitioner::partition(key.as_bytes(), 4);
    let long = "n".repeat(250);
    let fits = "n".repeat(249);
    for (topic, log_topic, key, hashed, fallback) in [
        ("plant/a/p1/telemetry/x/y", "telemetry", Some("p1"), "p1", None),
        ("plant/a/p1/telemetry", "telemetry", Some("p1"), "p1", None),
        ("plant/a/p1/alarm", "alarms.a", Some("plant-7/a"), "plant-7/a", None),
        (
            "plant/a b/p1/alarm",
            "mqtt",
            Some("plant/a b/p1/alarm"),
            "plant/a b/p1/alarm",
            Some(Fallback::IllegalName),
        ),
        ("keyless/", "raw", None, "keyless/", None),
        ("bare/1", "raw", None, "bare/1", None),
        ("other", "mqtt", Some("other"), "other", None),
        ("Ünï/ço∂e", "mqtt", Some("Ünï/ço∂e"), "Ünï/ço∂e", None),
        ("$SYS/x", "mqtt", Some("$SYS/x"), "$SYS/x", None),
        ("copy/ok", "ok", Some("copy/ok"), "copy/ok", None),
        ("copy/mqtt", "mqtt", Some("copy/mqtt"), "copy/mqtt", None),
        ("copy/", "mqtt", Some("copy/"), "copy/", Some(Fallback::IllegalName)),
        ("copy/.", "mqtt", Some("copy/."), "copy/.", Some(Fallback::IllegalName)),
        ("copy/..", "mqtt", Some("copy/.."), "copy/..", Some(Fallback::IllegalName)),
        ("copy/é", "mqtt", Some("copy/é"), "copy/é", Some(Fallback::IllegalName)),
        ("copy/__x", "mqtt", Some("copy/__x"), "copy/__x", Some(Fallback::ReservedName)),
        (
            "copy/__headwater_ledger",
            "mqtt",
            Some("copy/__headwater_ledger"),
            "copy/__headwater_ledger",
            Some(Fallback::ReservedName),
        ),
        ("under/_x", "mqtt", Some("under/_x"), "under/_x", Some(Fallback::ReservedName)),
        ("under/x", "_x", Some("under/x"), "under/x", None),
    ] {
        assert_eq!(
            primary(&router, topic),
            (log_topic.into(), key.map(String::from), at(hashed), fallback),
            "{topic}"
        );
    }
    assert_eq!(primary(&router, &format!("copy/{fits}")).3, None);
    assert_eq!(primary(&router, &format!("copy/{long}")).3, Some(Fallback::IllegalName));
}

#[test]
fn the_first_match_is_final_unless_it_goes_on() {
    let router = router(vec![
        route("a/#", "one").goes_on(),
        route("b/#", "two"),
        route("a/{x}", "three.{x}").goes_on(),
        route("a/#", "four"),
        route("#", "five"),
    ]);
    let topics = |topic: &str| {
        let r = resolve(&router, topic);
        let copies: Vec<String> = r.copies.iter().map(|d| d.topic.to_string()).collect();
        (r.primary.topic.to_string(), copies)
    };
    assert_eq!(topics("a/x"), ("one".into(), vec!["three.x".into(), "four".into()]));
    assert_eq!(topics("a/x/y"), ("one".into(), vec!["four".into()]));
    assert_eq!(topics("b/x"), ("two".into(), vec![]));
    assert_eq!(topics("c"), ("five".into(), vec![]));
    assert_eq!(topics("$c"), ("mqtt".into(), vec![]));
}

#[test]
fn no_room_falls_back_with_the_routes_headers_and_ack() {
    let router = router(vec![
        route("a/{x}", "t.{x}").key("{x}").header("x", "{x}-{site}").ack(Ack::Memory, None),
    ]);
    let full = router.resolve("a/b", &mut |route, topic| {
        assert_eq!((route, topic.as_str()), (0, "t.b"));
        Err(Fallback::RouteFull)
    });
    assert_eq!(full.primary.topic.as_str(), "mqtt");
    assert_eq!(full.primary.fallback, Some(Fallback::RouteFull));
    assert_eq!(full.primary.key, Key::MqttTopic);
    let header = RouteHeader { name: "x".into(), value: "b-plant-7".into() };
    assert_eq!(full.primary.headers, [header]);
    assert_eq!(full.primary.ack, AckRule::Log(AckPoint::Appended));
}

#[test]
fn ack_points() {
    let base = Config {
        uplinks: vec![uplink("dc", "telemetry*"), uplink("cloud", "telemetry.b")],
        ..config()
    };
    let mirrored = |uplink: &str| AckRule::Mirrored { uplink: uplink.into() };
    for (ack, wanted, topic, expected) in [
        (None, None, "x", AckRule::Log(AckPoint::HighWatermark)),
        (Some(Ack::Memory), None, "x", AckRule::Log(AckPoint::Appended)),
        (Some(Ack::Fsync), None, "x", AckRule::Log(AckPoint::Synced)),
        (Some(Ack::Mirrored), Some("dc"), "telemetry.b", mirrored("dc")),
        (Some(Ack::Mirrored), Some("cloud"), "telemetry.b", mirrored("cloud")),
        (Some(Ack::Mirrored), None, "telemetry.a", mirrored("dc")),
        (Some(Ack::Mirrored), None, "telemetry.b", AckRule::Nowhere),
        (Some(Ack::Mirrored), Some("cloud"), "telemetry.a", AckRule::Nowhere),
        (Some(Ack::Mirrored), None, "x", AckRule::Nowhere),
    ] {
        let mut route = route("m/{t}", "{t}");
        route.ack = ack;
        route.ack_uplink = wanted.map(str::to_owned);
        let router = Router::new(Arc::new(Config { routes: vec![route], ..base.clone() }));
        assert_eq!(
            resolve(&router, &format!("m/{topic}")).primary.ack,
            expected,
            "{ack:?} {topic}"
        );
    }
}

#[test]
fn which_topics_routes_can_write() {
    let router = router(vec![route("a/{x}", "t.{x}"), route("b", "fixed"), route("{c}", "{c}{c}")]);
    assert!(router.writes("mqtt") && router.writes("fixed") && router.writes("t.a"));
    assert!(router.route_writes(0, "t.a") && !router.route_writes(0, "fixed"));
    assert!(!router.writes("__consumer_offsets") && !router.writes("__headwater_ledger"));
    assert!(router.is_fixed(1) && !router.is_fixed(0));
}

proptest! {
    #[test]
    fn any_topic_has_one_legal_primary_destination(
        topic in "[^+#\\x00]{1,300}",
        template in prop::sample::select(vec!["{x}", "t.{x}", "{x}.{y}", "_{x}"]),
        partitions in 1u32..64,
    ) {
        let router = router(vec![
            route("{x}/{y}", template).key("{y}").goes_on(),
            route("#", "all"),
        ]);
        let resolution = resolve(&router, &topic);
        for d in std::iter::once(&resolution.primary).chain(&resolution.copies) {
            prop_assert!(is_topic_name(d.topic.as_str()));
            prop_assert!(router.writes(d.topic.as_str()));
            prop_assert!(d.key.partition(&topic, partitions) < partitions);
            prop_assert_ne!(d.key.bytes(&topic), Some(&b""[..]));
        }
        prop_assert_eq!(&resolution, &resolve(&router, &topic));
    }
}
