//! Writes the seed corpus anew: `cargo run --bin seeds`, in this folder.

use bytes::BytesMut;
use headwater_log::batch::compression::{self, Codec, Compression};
use headwater_log::batch::{self, BatchBuilder, Seal};
use headwater_log::record::{Headers, RecordParts};
use headwater_log::{LeaderEpoch, Offset};
use headwater_mqtt::codec::{
    Ack, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect,
    Packet, PacketId, Publish, PublishProperties, QoS, ReasonCode, ReasonCodes, RetainHandling,
    SubAck, Subscribe, SubscribeProperties, Subscription, SubscriptionIdentifiers,
    SubscriptionOptions, Subscriptions, TopicFilters, UnsubAck, Unsubscribe, UserPropertiesBuf,
    Version, Will, WillProperties, encode,
};
use std::fs;
use std::path::Path;

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    packets(&corpus.join("mqtt_decode"));
    batches(&corpus.join("record_batch"));
    streams(&corpus.join("codecs"));
    files(&corpus);
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    fs::create_dir_all(folder).expect("the folder can be made");
    fs::write(folder.join(name), bytes).expect("the seed can be written");
}

fn packets(folder: &Path) {
    let mut user = UserPropertiesBuf::default();
    user.push("unit", "°C").expect("short");
    user.push("unit", "").expect("short");
    let user = user.as_properties();
    let packet_id = PacketId::new(258).expect("not 0");
    let will = Will {
        topic: "plant/é/last",
        payload: b"gone",
        qos: QoS::ExactlyOnce,
        retain: true,
        properties: WillProperties {
            delay_interval_s: Some(5),
            payload_format_indicator: Some(1),
            message_expiry_interval_s: Some(9),
            content_type: Some("text/plain"),
            response_topic: Some("r"),
            correlation_data: Some(&[0, 255]),
            user_properties: user,
        },
    };
    let connect = |version| {
        Packet::Connect(Connect {
            version,
            clean_start: true,
            keep_alive_s: 60,
            client_id: "press-17",
            will: Some(will),
            user_name: Some("u"),
            password: Some(b"\xFFp"),
            properties: ConnectProperties {
                session_expiry_interval_s: Some(3_600),
                receive_maximum: Some(10),
                maximum_packet_size_bytes: Some(1_000),
                topic_alias_maximum: Some(3),
                request_response_information: Some(true),
                request_problem_information: Some(false),
                user_properties: user,
                authentication_method: Some("m"),
                authentication_data: Some(b"d"),
            },
        })
    };
    let publish = Packet::Publish(Publish {
        topic: "plant/line-4/press-17",
        payload: b"{\"t\":21.5}",
        qos: QoS::AtLeastOnce,
        retain: true,
        dup: true,
        packet_id: Some(packet_id),
        properties: PublishProperties {
            payload_format_indicator: Some(1),
            message_expiry_interval_s: Some(7),
            topic_alias: Some(2),
            response_topic: Some("answers/1"),
            correlation_data: Some(b"\0\x01"),
            user_properties: user,
            subscription_identifiers: SubscriptionIdentifiers::new(&[1, 268_435_455]),
            content_type: Some("application/json"),
        },
    });
    let subscriptions = [
        Subscription {
            filter: "plant/+/#",
            options: SubscriptionOptions {
                qos: QoS::AtLeastOnce,
                no_local: true,
                retain_as_published: true,
                retain_handling: RetainHandling::DoNotSend,
            },
        },
        Subscription { filter: "$share/g/a", options: SubscriptionOptions::default() },
    ];
    let connack = ConnAckProperties {
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(false),
        assigned_client_identifier: Some("made-up"),
        reason_string: Some("why"),
        server_reference: Some("other"),
        user_properties: user,
        ..ConnAckProperties::default()
    };
    let ack = Ack::new(packet_id, ReasonCode::Success);
    let codes = [ReasonCode::GrantedQoS1, ReasonCode::UnspecifiedError];
    let gone = [ReasonCode::Success, ReasonCode::NoSubscriptionExisted];
    let properties = AuthProperties {
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
        ..AuthProperties::default()
    };
    for version in [Version::V3, Version::V311, Version::V5] {
        let all = [
            connect(version),
            Packet::ConnAck(ConnAck {
                session_present: true,
                reason: ReasonCode::Success,
                properties: connack,
            }),
            publish,
            Packet::PubAck(ack),
            Packet::PubRec(ack),
            Packet::PubRel(ack),
            Packet::PubComp(ack),
            Packet::Subscribe(Subscribe {
                packet_id,
                properties: SubscribeProperties {
                    subscription_identifier: Some(300),
                    user_properties: user,
                },
                subscriptions: Subscriptions::new(&subscriptions),
            }),
            Packet::SubAck(SubAck {
                packet_id,
                properties: Default::default(),
                reasons: ReasonCodes::new(&codes),
            }),
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties: user,
                filters: TopicFilters::new(&["a/+", "#"]),
            }),
            Packet::UnsubAck(UnsubAck {
                packet_id,
                properties: Default::default(),
                reasons: ReasonCodes::new(&gone),
            }),
            Packet::PingReq,
            Packet::PingResp,
            Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
        ];
        let mut stream = BytesMut::new();
        for packet in &all {
            let mut out = BytesMut::new();
            encode(packet, version, u32::MAX, &mut out).expect("a legal packet");
            let name = format!("{:?}-{version:?}", packet.packet_type()).to_lowercase();
            write(folder, &name, &out);
            stream.extend_from_slice(&out);
        }
        write(folder, &format!("stream-{version:?}").to_lowercase(), &stream);
    }
    let auth = Packet::Auth(Auth { reason: ReasonCode::ContinueAuthentication, properties });
    let mut out = BytesMut::new();
    encode(&auth, Version::V5, u32::MAX, &mut out).expect("a legal packet");
    write(folder, "auth-v5", &out);
}

fn batches(folder: &Path) {
    let mut headers = Headers::default();
    headers.push("mqtt.topic", b"plant/line-4/press-17");
    headers.push("hw", &[1, 0, 1, 1, 1]);
    let record =
        |key, value, headers| RecordParts { timestamp_ms: 1_700_000_000_000, key, value, headers };
    let shapes: [(&str, Vec<RecordParts<'_>>); 4] = [
        ("one", vec![record(Some(&b"k"[..]), Some(&b"value"[..]), &headers)]),
        ("tombstone", vec![record(Some(&b"k"[..]), None, Headers::EMPTY)]),
        ("no-key", vec![record(None, Some(&b""[..]), Headers::EMPTY)]),
        ("three", vec![record(Some(&b"k"[..]), Some(&[7; 200][..]), &headers); 3]),
    ];
    for (name, records) in shapes {
        let mut builder = BatchBuilder::new();
        for record in &records {
            builder.push(record, 1_000_000).expect("it fits");
        }
        let seal = Seal {
            base_offset: Offset::new(40).expect("not negative"),
            epoch: LeaderEpoch::new(2).expect("not negative"),
            node_slot: 0,
            base_sequence: 40,
        };
        let batch = builder.seal(seal).expect("not empty");
        write(folder, name, &batch);
        for codec in CODECS {
            if let Some(small) = batch::compressed(&batch, Compression { codec, level: None }) {
                write(folder, &format!("{name}-{codec}"), &small);
            }
        }
    }
}

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A stream of each codec behind the byte that chooses it, with a limit of 32 KiB.
fn streams(folder: &Path) {
    let plain = b"{\"line\":7,\"temperature\":21.5}".repeat(9);
    for codec in CODECS {
        let mut out = vec![0xf0 | (codec as u8 - 1)];
        compression::compress(Compression { codec, level: None }, &plain, &mut out)
            .expect("memory");
        write(folder, codec.name(), &out);
    }
}

/// The files of a small data directory, in the form that each target takes.
fn files(corpus: &Path) {
    let disk = headwater_fuzz::populated();
    let used = |bytes: Vec<u8>| {
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        bytes[..end].to_vec()
    };
    for name in disk.files() {
        let bytes = used(disk.contents(&name).expect("it was listed"));
        let base = name.rsplit('/').next().unwrap_or_default();
        let choose = |choice: u8, bytes: &[u8]| [&[choice][..], bytes].concat();
        match base.rsplit('.').next() {
            _ if base == "superblock" => write(&corpus.join("superblock"), "one", &bytes),
            _ if base.starts_with("catalog.") && bytes.len() > 109 => {
                write(&corpus.join("catalog"), base, &choose(1, &bytes[40..]));
                // Behind id, flags, mark, clock and sequence: the metadata.
                let length = u32::from_le_bytes([bytes[105], bytes[106], bytes[107], bytes[108]]);
                let metadata = &bytes[109..109 + length as usize];
                write(&corpus.join("metadata"), base, metadata);
            }
            Some("journal") if bytes.len() > 4096 => {
                // Three cycles of one file show all there is.
                let cycles = &bytes[4096..bytes.len().min(4096 * 4)];
                write(&corpus.join("journal"), "cycles", &choose(0, cycles));
            }
            Some("log") if base.starts_with("00000000000000000000") => {
                write(&corpus.join("segment"), "whole", &choose(0, &bytes));
                write(&corpus.join("segment"), "mended", &choose(1, &bytes));
            }
            Some("index") => write(&corpus.join("index"), "offsets", &bytes),
            Some("timeindex") => write(&corpus.join("index"), "times", &bytes),
            _ => {}
        }
    }
    let batch = std::fs::read(corpus.join("record_batch/one")).expect("it was written");
    let journal = headwater_log::fuzzing::journal_seed(&batch.into());
    write(&corpus.join("journal"), "frames", &journal);
    // One byte of each file, by its place in the list.
    let edits: Vec<u8> = (0..16).flat_map(|file| [file, 90, 0, 1]).collect();
    write(&corpus.join("directory"), "edits", &edits);
    write(&corpus.join("directory"), "none", &[]);
    let mut snapshot = vec![0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    snapshot.extend_from_slice(&[0; 46]);
    write(&corpus.join("transactions"), "snapshot", &snapshot);
    let mut labels = vec![0; 36];
    for field in [1_u32, 1, 2, 1, 0] {
        labels.extend_from_slice(&field.to_le_bytes());
    }
    labels.truncate(52);
    labels.extend_from_slice(&[0; 4 + 12 + 2]);
    write(&corpus.join("labels"), "one", &labels);
}
