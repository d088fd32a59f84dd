//! The examples' configs say what their READMEs promise.

use headwater_bridge::{Explanation, Router, explain};
use headwater_config::{Config, from_toml};
use headwater_examples::{GATEWAY_ALONE, PLANT_TO_KAFKA};
use std::sync::Arc;

fn config(text: &str) -> Arc<Config> {
    Arc::new(from_toml(text).unwrap_or_else(|report| panic!("{report}")))
}

fn explained(config: &Arc<Config>, mqtt_topic: &str) -> Explanation {
    explain(&Router::new(Arc::clone(config)), mqtt_topic, &|_| None)
}

/// (topic, key, ack) of a message.
fn stored(config: &Arc<Config>, mqtt_topic: &str) -> (String, Option<String>, String) {
    let primary = explained(config, mqtt_topic).primary;
    (primary.topic, primary.key, primary.ack)
}

#[test]
fn gateway_alone() {
    let config = config(GATEWAY_ALONE);
    assert!(config.uplinks.is_empty());
    let expect = |topic: &str, key: &str| (topic.into(), Some(key.into()), "fsync".into());
    for (mqtt_topic, expected) in [
        ("plant/line-1/press/telemetry/temperature", expect("telemetry", "press")),
        ("plant/line-2/saw/alarm", expect("alarms", "saw")),
        ("some/where/else", expect("mqtt", "some/where/else")),
    ] {
        assert_eq!(stored(&config, mqtt_topic), expected, "{mqtt_topic}");
    }
    let headers = explained(&config, "plant/line-2/saw/alarm").primary.headers;
    assert_eq!(headers, [("line".to_owned(), "line-2".to_owned())]);
}

#[test]
fn plant_to_kafka() {
    let config = config(PLANT_TO_KAFKA);
    let telemetry = explained(&config, "plant/line-1/press/telemetry/temperature").primary;
    assert_eq!((telemetry.topic.as_str(), telemetry.ack.as_str()), ("telemetry", "fsync"));
    assert_eq!(telemetry.partition.1, 4);
    assert_eq!(telemetry.uplinks, [("dc".to_owned(), "plant-7.telemetry".to_owned())]);
    let alarm = explained(&config, "plant/line-2/saw/alarm").primary;
    assert_eq!((alarm.topic.as_str(), alarm.ack.as_str()), ("alarms", "mirrored"));
    assert_eq!(alarm.key.as_deref(), Some("line-2/saw"));
    assert_eq!(alarm.uplinks, [("dc".to_owned(), "plant-7.alarms".to_owned())]);
}
