//! The codec's cost per packet: `cargo bench -p headwater-mqtt --bench codec`. Aim: at most 50 ns to decode a PUBLISH of
//! QoS 1 with a 64-byte payload.

use bytes::BytesMut;
use criterion::{Criterion, criterion_group, criterion_main};
use headwater_mqtt::codec::{
    Acknowledgement, Decoder, Packet, PacketId, Publish, PublishProperties, QoS, UserPropertiesBuf,
    Version, encode, encode_publish_header,
};
use std::hint::black_box;

fn publish<'a>(user: &'a UserPropertiesBuf) -> Publish<'a> {
    Publish {
        topic: "plant/line-4/press-17/telemetry",
        payload: &[7; 64],
        qos: QoS::AtLeastOnce,
        retain: false,
        dup: false,
        packet_id: PacketId::new(4_711),
        properties: PublishProperties {
            user_properties: user.as_properties(),
            ..PublishProperties::default()
        },
    }
}

fn encoded(publish: Publish<'_>, version: Version) -> BytesMut {
    let mut out = BytesMut::new();
    if let Err(error) = encode(&Packet::Publish(publish), version, u32::MAX, &mut out) {
        panic!("{error}");
    }
    out
}

fn codec(c: &mut Criterion) {
    let none = UserPropertiesBuf::default();
    let mut two = UserPropertiesBuf::default();
    for (name, value) in [("traceparent", "00-0af7651916cd43dd8448eb211c80319c"), ("unit", "K")] {
        if let Err(error) = two.push(name, value) {
            panic!("{error}");
        }
    }
    for (name, version, user) in [
        ("3.1.1", Version::V311, &none),
        ("5", Version::V5, &none),
        ("5, two user properties", Version::V5, &two),
    ] {
        let mut decoder = Decoder::server(1_000_000);
        decoder.set_version(version);
        let bytes = encoded(publish(user), version);
        c.bench_function(&format!("decode PUBLISH {name}"), |b| {
            b.iter(|| match decoder.decode(black_box(&bytes)) {
                Ok(decoded) => {
                    black_box(&decoded);
                }
                Err(error) => panic!("{error}"),
            });
        });
        let mut out = BytesMut::with_capacity(4_096);
        c.bench_function(&format!("encode PUBLISH header {name}"), |b| {
            b.iter(|| {
                out.clear();
                encode_publish_header(black_box(&publish(user)), 64, version, 1_000, &mut out)
            });
        });
    }
    let id = PacketId::new(4_711);
    c.bench_function("encode PUBACK", |b| {
        b.iter(|| black_box(id).map(|id| Acknowledgement::PubAck.success(id)));
    });
}

criterion_group!(benches, codec);
criterion_main!(benches);
