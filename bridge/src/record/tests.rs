//! The stored form byte for byte, and the way back.

use super::*;
use bytes::Bytes;
use headwater_mqtt::codec::{PacketId, PublishProperties, UserPropertiesBuf};
use proptest::prelude::*;

/// A PUBLISH that owns its parts.
#[derive(Debug, Clone)]
struct Owned {
    topic: String,
    payload: Vec<u8>,
    qos: QoS,
    retain: bool,
    format: Option<u8>,
    expiry_s: Option<u32>,
    response_topic: Option<String>,
    correlation_data: Option<Vec<u8>>,
    content_type: Option<String>,
    user: Vec<(String, String)>,
}

impl Owned {
    fn plain(topic: &str) -> Self {
        Self {
            topic: topic.into(),
            payload: b"17.5".to_vec(),
            qos: QoS::AtLeastOnce,
            retain: false,
            format: None,
            expiry_s: None,
            response_topic: None,
            correlation_data: None,
            content_type: None,
            user: Vec::new(),
        }
    }

    fn with<T>(&self, use_it: impl FnOnce(&Publish<'_>) -> T) -> T {
        let mut user = UserPropertiesBuf::default();
        for (name, value) in &self.user {
            user.push(name, value).unwrap();
        }
        use_it(&Publish {
            topic: &self.topic,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            dup: false,
            packet_id: (self.qos != QoS::AtMostOnce).then(|| PacketId::new(7).unwrap()),
            properties: PublishProperties {
                payload_format_indicator: self.format,
                message_expiry_interval_s: self.expiry_s,
                response_topic: self.response_topic.as_deref(),
                correlation_data: self.correlation_data.as_deref(),
                user_properties: user.as_properties(),
                content_type: self.content_type.as_deref(),
                ..PublishProperties::default()
            },
        })
    }
}

const TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// Stores as the bridge does and reads the headers back as the log does: zigzag varints.
fn store(
    message: &Owned,
    key: Option<&[u8]>,
    route_headers: &[RouteHeader],
    marks: Marks,
) -> Record {
    let mut headers = Headers::default();
    message.with(|publish| {
        write_headers(
            publish,
            "pump-1",
            key,
            route_headers,
            marks,
            &mut Scratch::default(),
            &mut headers,
        );
    });
    Record {
        offset: 42,
        timestamp_ms: TIMESTAMP_MS,
        key: key.map(Bytes::copy_from_slice),
        value: Some(Bytes::copy_from_slice(&message.payload)),
        headers: parse(&headers),
    }
}

fn parse(headers: &Headers) -> Vec<(Bytes, Option<Bytes>)> {
    fn take(rest: &mut &[u8]) -> Bytes {
        let (mut zigzag, mut shift) = (0u64, 0);
        loop {
            let (byte, after) = rest.split_first().unwrap();
            *rest = after;
            zigzag |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (taken, after) = rest.split_at(usize::try_from(zigzag >> 1).unwrap());
        *rest = after;
        Bytes::copy_from_slice(taken)
    }
    let mut rest = headers.encoded();
    (0..headers.count()).map(|_| (take(&mut rest), Some(take(&mut rest)))).collect()
}

fn names(record: &Record) -> Vec<&str> {
    record.headers.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect()
}

fn hw(record: &Record) -> &[u8] {
    record.headers.last().unwrap().1.as_ref().unwrap()
}

#[test]
fn the_stored_form_byte_for_byte() {
    let mut message = Owned::plain("plant/a");
    message.retain = true;
    message.format = Some(1);
    message.expiry_s = Some(0x0102_0304);
    message.content_type = Some("text/plain".into());
    message.response_topic = Some("plant/a/reply".into());
    message.correlation_data = Some(vec![0, 255]);
    message.user = vec![
        ("b".into(), "1".into()),
        ("hw".into(), "2".into()),
        ("b".into(), "3".into()),
        ("mqtt.topic".into(), "4".into()),
        ("content-type".into(), "5".into()),
        ("user.hw".into(), "6".into()),
        ("user.name".into(), "7".into()),
    ];
    let line = RouteHeader { name: "line".into(), value: "seven".into() };
    let marks = Marks { copy: false, clock_untrusted: true };
    let record = store(&message, Some(b"key"), &[line], marks);
    assert_eq!(
        names(&record),
        [
            "mqtt.topic",
            "content-type",
            "mqtt.response-topic",
            "mqtt.correlation-data",
            "b",
            "user.hw",
            "b",
            "user.mqtt.topic",
            "user.content-type",
            "user.user.hw",
            "user.name",
            "line",
            "hw"
        ]
    );
    let expected =
        [&[1, 0b0111_0101, 1, 6][..], b"pump-1", &[2, 4, 1, 2, 3, 4], &[3, 2, 0, 1]].concat();
    assert_eq!(hw(&record), expected);
    assert_eq!(record.headers[0].1.as_deref(), Some(&b"plant/a"[..]));
}

#[test]
fn a_plain_message_under_its_topic_has_one_header() {
    let message = Owned::plain("plant/a");
    let record = store(&message, Some(b"plant/a"), &[], Marks::default());
    assert_eq!(names(&record), ["hw"]);
    assert_eq!(hw(&record), [&[1, 1, 1, 6][..], b"pump-1"].concat());
    let read = read(&record, StreamId(3), TIMESTAMP_MS).unwrap();
    assert_eq!((&*read.topic, &read.payload[..]), ("plant/a", &b"17.5"[..]));
    assert_eq!((read.stream, read.offset), (StreamId(3), 42));
    assert_eq!(read.publisher.as_deref(), Some("pump-1"));
}

#[test]
fn an_empty_payload_is_an_empty_value() {
    let mut message = Owned::plain("a");
    message.payload.clear();
    let record = store(&message, None, &[], Marks::default());
    assert_eq!(names(&record), ["mqtt.topic", "hw"]);
    assert!(read(&record, StreamId(0), 0).unwrap().payload.is_empty());
    let null = Record { value: None, ..record };
    assert_eq!(read(&null, StreamId(0), 0), Err(Hidden::Malformed));
}

#[test]
fn expiry_counts_from_the_timestamp() {
    let mut message = Owned::plain("a");
    message.expiry_s = Some(10);
    let record = store(&message, Some(b"a"), &[], Marks::default());
    let at = TIMESTAMP_MS + 10_000;
    assert_eq!(read(&record, StreamId(0), at - 1).unwrap().expires_at_ms, Some(at));
    assert_eq!(read(&record, StreamId(0), at), Err(Hidden::Expired));
    message.expiry_s = Some(u32::MAX);
    let late =
        Record { timestamp_ms: i64::MAX, ..store(&message, Some(b"a"), &[], Marks::default()) };
    assert_eq!(read(&late, StreamId(0), 0).unwrap().expires_at_ms, Some(i64::MAX));
}

#[test]
fn what_is_not_a_message_is_hidden() {
    let message = Owned::plain("a");
    let good = store(&message, Some(b"a"), &[], Marks::default());
    let with_hw = |hw: &[u8]| {
        let mut record = good.clone();
        *record.headers.last_mut().unwrap() =
            (Bytes::from_static(b"hw"), Some(Bytes::copy_from_slice(hw)));
        read(&record, StreamId(0), 0).map(|m| m.publisher)
    };
    let copy = store(&message, Some(b"a"), &[], Marks { copy: true, clock_untrusted: false });
    assert_eq!(read(&copy, StreamId(0), 0), Err(Hidden::Copy));
    let bare = Record { headers: Vec::new(), ..good.clone() };
    assert_eq!(read(&bare, StreamId(0), 0), Err(Hidden::NotMqtt));
    let mut last_is_other = good.clone();
    last_is_other.headers.push((Bytes::from_static(b"x"), None));
    assert_eq!(read(&last_is_other, StreamId(0), 0), Err(Hidden::NotMqtt));
    assert_eq!(with_hw(&[2, 0]), Err(Hidden::Version(2)));
    for malformed in [
        &[][..],
        &[1],
        &[1, 3],
        &[1, 0, 1],
        &[1, 0, 1, 5, b'x'],
        &[1, 0, 1, 0x80, 0x80, 0x80, 0],
        &[1, 0, 1, 1, 0xff],
        &[1, 0, 2, 1, 0],
        &[1, 0, 3, 2, 0, 1],
        &[1, 0, 3, 1, 1],
        &[1, 0, 3, 0],
    ] {
        assert_eq!(with_hw(malformed), Err(Hidden::Malformed), "{malformed:?}");
    }
    assert_eq!(with_hw(&[1, 0, 200, 2, 9, 9, 1, 1, b'p']), Ok(Some("p".into())), "unknown tag");
    let keyless = Record { key: None, ..good.clone() };
    assert_eq!(read(&keyless, StreamId(0), 0), Err(Hidden::Malformed));
}

fn names_of_user_properties() -> impl Strategy<Value = String> {
    prop_oneof![
        "(user\\.){0,3}(hw|content-type|mqtt\\.|mqtt\\.topic|x)",
        "[a-z.]{0,6}",
        "[^\\x00]{0,20}"
    ]
}

prop_compose! {
    fn publishes()(
        topic in "[^+#\\x00]{1,30}",
        payload in prop::collection::vec(any::<u8>(), 0..64),
        qos in prop::sample::select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]),
        retain in any::<bool>(),
        format in prop::option::of(0u8..2),
        expiry_s in prop::option::of(any::<u32>()),
        response_topic in prop::option::of("[^+#\\x00]{1,20}"),
        correlation_data in prop::option::of(prop::collection::vec(any::<u8>(), 0..20)),
        content_type in prop::option::of("[^\\x00]{0,20}"),
        user in prop::collection::vec((names_of_user_properties(), "[^\\x00]{0,20}"), 0..6),
    ) -> Owned {
        Owned {
            topic, payload, qos, retain, format, expiry_s, response_topic, correlation_data,
            content_type, user,
        }
    }
}

proptest! {
    #[test]
    fn any_publish_comes_back_as_it_was(
        sent in publishes(),
        key in 0..3,
        extra in 0usize..3,
        clock_untrusted in any::<bool>(),
    ) {
        let key = match key {
            0 => None,
            1 => Some(sent.topic.as_bytes().to_vec()),
            _ => Some(b"key".to_vec()),
        };
        let route_headers = vec![RouteHeader { name: "line".into(), value: "7".into() }; extra];
        let marks = Marks { copy: false, clock_untrusted };
        let record = store(&sent, key.as_deref(), &route_headers, marks);
        let got = read(&record, StreamId(1), 0).unwrap();
        prop_assert_eq!(&*got.topic, &*sent.topic);
        prop_assert_eq!(&got.payload[..], &sent.payload[..]);
        prop_assert_eq!(got.qos, sent.qos);
        prop_assert_eq!(got.retain, sent.retain);
        prop_assert_eq!(got.payload_format_indicator, sent.format);
        let expires = sent.expiry_s.map(|s| TIMESTAMP_MS + i64::from(s) * 1_000);
        prop_assert_eq!(got.expires_at_ms, expires);
        prop_assert_eq!(got.response_topic.as_deref(), sent.response_topic.as_deref());
        prop_assert_eq!(got.correlation_data.as_deref(), sent.correlation_data.as_deref());
        prop_assert_eq!(got.content_type.as_deref(), sent.content_type.as_deref());
        prop_assert_eq!(got.publisher.as_deref(), Some("pump-1"));
        let user: Vec<(String, String)> =
            got.user_properties.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        prop_assert_eq!(user, sent.user);
    }

    #[test]
    fn any_bytes_as_hw_are_an_answer(hw in prop::collection::vec(any::<u8>(), 0..40)) {
        let _ = Hw::parse(&hw);
    }

    #[test]
    fn plain_messages_that_count_as_the_same_have_the_same_headers(
        a in publishes(), b in publishes(),
    ) {
        let b = Owned { topic: a.topic.clone(), ..b };
        let same = a.with(|a| b.with(|b| same_headers(a, b)));
        let stored = |m: &Owned| store(m, None, &[], Marks::default()).headers;
        prop_assert!(!same || stored(&a) == stored(&b));
    }
}
