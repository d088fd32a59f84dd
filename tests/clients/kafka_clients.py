"""confluent-kafka (librdkafka) and kafka-python against a node, without groups.

Usage: kafka_clients.py PORT STEP. Each step prints `ok` at its end or fails with what was wrong.

    produce     both libraries produce to topics of their own, several codecs, idempotent where they can
    times       offsets by timestamp, the start, the end
    read TOPIC COUNT
                both libraries read the topic from its start and must find COUNT records, the same ones
    survive TOPIC COUNT
                an idempotent producer whose broker is killed meanwhile: says `acknowledged N` now and then, and at the
                end finds every record once, in the order of its partition
    group       a consumer group is refused with an error that is shown, not retried for ever (librdkafka)
    transaction a transactional producer is refused likewise (librdkafka)
"""

import json
import sys

import confluent_kafka
import kafka
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka import KafkaConsumer, KafkaProducer

server = f"127.0.0.1:{sys.argv[1]}"
step = sys.argv[2]
COUNT = 300


def values(name):
    return [f"{name}-{number}" for number in range(COUNT)]


def confluent_produce(topic, codec, timestamps=None, **more):
    failures = []
    producer = Producer({"bootstrap.servers": server, "compression.type": codec, **more})
    for number, value in enumerate(values(topic)):
        stamp = {"timestamp": timestamps[number]} if timestamps else {}
        producer.produce(
            topic,
            value.encode(),
            key=f"k{number % 7}".encode(),
            headers=[("n", str(number).encode()), ("empty", b""), ("null", None)],
            on_delivery=lambda error, message: failures.append(error) if error else None,
            **stamp,
        )
        producer.poll(0)
    assert producer.flush(30) == 0, "not all delivered"
    assert not failures, failures


def confluent_read(topic, count):
    consumer = Consumer(
        {"bootstrap.servers": server, "group.id": "unused", "enable.partition.eof": False, "check.crcs": True}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, confluent_kafka.OFFSET_BEGINNING) for number in partitions])
    found = []
    while len(found) < count:
        message = consumer.poll(15)
        assert message is not None, f"confluent-kafka: {len(found)} of {count} came"
        assert message.error() is None, message.error()
        found.append((message.partition(), message.offset(), message.key(), message.value()))
    assert consumer.poll(0.5) is None, "more came than was sent"
    consumer.close()
    return sorted(found)


def python_read(topic, count):
    consumer = KafkaConsumer(
        bootstrap_servers=server, auto_offset_reset="earliest", consumer_timeout_ms=15_000, check_crcs=True
    )
    parts = consumer.partitions_for_topic(topic) or set()
    consumer.assign([kafka.TopicPartition(topic, number) for number in sorted(parts)])
    consumer.seek_to_beginning()
    found = []
    while len(found) < count:
        got = consumer.poll(timeout_ms=15_000)
        assert got, f"kafka-python: {len(found)} of {count} came"
        for messages in got.values():
            found += [(m.partition, m.offset, m.key, m.value) for m in messages]
    consumer.close()
    return sorted(found)


def produce():
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        topic = f"confluent-{codec}"
        confluent_produce(topic, codec, **{"enable.idempotence": True})
        found = confluent_read(topic, COUNT)
        assert sorted(value.decode() for *_, value in found) == sorted(values(topic))
        for key in range(7):
            mine = [value for *_, found_key, value in found if found_key == f"k{key}".encode()]
            assert mine == [v.encode() for n, v in enumerate(values(topic)) if n % 7 == key], "order within a key"
    for codec in (None, "gzip"):
        for acks in (1, "all"):
            topic = f"python-{codec}-{acks}"
            producer = KafkaProducer(bootstrap_servers=server, compression_type=codec, acks=acks, linger_ms=5)
            sent = [producer.send(topic, value.encode(), key=b"k") for value in values(topic)]
            offsets = [future.get(timeout=30).offset for future in sent]
            assert offsets == list(range(COUNT)), "offsets are dense and in order"
            producer.close()
            found = python_read(topic, COUNT)
            assert [value.decode() for *_, value in found] == values(topic)
            assert confluent_read(topic, COUNT) == found, "both libraries read the same"


def times():
    topic = "times"
    stamps = [1_700_000_000_000 + 1000 * number for number in range(COUNT)]
    # Many small batches, so that the search passes through the index.
    confluent_produce(topic, "none", stamps, partitioner="consistent", **{"batch.num.messages": 10})
    found = confluent_read(topic, COUNT)
    consumer = Consumer({"bootstrap.servers": server, "group.id": "unused"})
    by_partition = {}
    for partition, offset, _, value in found:
        by_partition.setdefault(partition, []).append((stamps[int(value.split(b"-")[1])], offset))
    for partition, pairs in by_partition.items():
        asked = [stamps[0], stamps[0] - 1, stamps[17], stamps[17] + 1, stamps[-1], stamps[-1] + 1]
        for stamp in asked:
            expected = next((offset for at, offset in pairs if at >= stamp), None)
            (answer,) = consumer.offsets_for_times([TopicPartition(topic, partition, stamp)], timeout=10)
            assert answer.error is None, answer.error
            if expected is None:
                assert answer.offset in (confluent_kafka.OFFSET_END, -1), answer
            else:
                assert answer.offset == expected, (partition, stamp, expected, answer.offset)
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        assert (low, high) == (0, len(pairs))
    consumer.close()
    # By kafka-python, too.
    consumer = KafkaConsumer(bootstrap_servers=server)
    for partition, pairs in by_partition.items():
        place = kafka.TopicPartition(topic, partition)
        answer = consumer.offsets_for_times({place: stamps[17]})[place]
        expected = next(((offset, at) for at, offset in pairs if at >= stamps[17]), None)
        assert (answer and (answer.offset, answer.timestamp)) == expected
        assert consumer.end_offsets([place])[place] == len(pairs)
        assert consumer.beginning_offsets([place])[place] == 0
    consumer.close()


def read(topic, count):
    one, other = confluent_read(topic, count), python_read(topic, count)
    assert one == other, "both libraries read the same"
    print(json.dumps([value.decode() for *_, value in one]))


def survive(topic, count):
    done, failures = [0], []

    def delivered(error, message):
        if error:
            failures.append(error)
        done[0] += 1
        if done[0] % (count // 20) == 0:
            print(f"acknowledged {done[0]}", flush=True)

    producer = Producer(
        {
            "bootstrap.servers": server,
            "enable.idempotence": True,
            "linger.ms": 1,
            "batch.num.messages": 50,
            "queue.buffering.max.messages": 2000,
            "reconnect.backoff.max.ms": 500,
            "message.timeout.ms": 120_000,
        }
    )
    for number in range(count):
        while True:
            try:
                producer.produce(topic, str(number).encode(), key=str(number % 11).encode(), on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(120) == 0, "not all delivered"
    assert not failures, failures[:5]
    found = [(partition, int(value)) for partition, _, _, value in confluent_read(topic, count)]
    assert sorted(number for _, number in found) == list(range(count)), "each exactly once"
    for partition in {partition for partition, _ in found}:
        mine = [number for at, number in found if at == partition]
        assert mine == sorted(mine), f"order in partition {partition}"


def group():
    errors = []
    consumer = Consumer(
        {"bootstrap.servers": server, "group.id": "g", "error_cb": errors.append, "topic.metadata.refresh.interval.ms": 500}
    )
    consumer.subscribe(["confluent-none"])
    message = consumer.poll(20)
    shown = errors or (message and message.error())
    assert shown, "a group was neither served nor refused within 20 s"
    print(shown)
    consumer.close()


def transaction():
    producer = Producer({"bootstrap.servers": server, "transactional.id": "tx"})
    try:
        producer.init_transactions(20)
    except KafkaException as error:
        assert not error.args[0].retriable(), f"retriable: {error}"
        print(error)
        return
    raise AssertionError("transactions are not served, but init_transactions succeeded")


if step in ("read", "survive"):
    {"read": read, "survive": survive}[step](sys.argv[3], int(sys.argv[4]))
else:
    {"produce": produce, "times": times, "group": group, "transaction": transaction}[step]()
print("ok")
