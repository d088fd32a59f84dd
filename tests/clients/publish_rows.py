"""Publishes the rows of a gzipped CSV file one by one with paho-mqtt at QoS 1: topic PREFIX/<last column>/row.

Usage: publish_rows.py PORT FILE PREFIX. Ends when every row is acknowledged; prints how many there were.
"""

import gzip
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

port, path, prefix = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with gzip.open(path, "rt") as file:
    rows = file.read().splitlines()[1:]

window = threading.Semaphore(200)
acknowledged = threading.Semaphore(0)
connected = threading.Event()
refused = []


def on_connect(client, userdata, flags, reason, properties):
    if reason.is_failure:
        refused.append(str(reason))
    connected.set()


def on_publish(client, userdata, mid, reason, properties):
    if reason.is_failure:
        refused.append(str(reason))
    window.release()
    acknowledged.release()


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="rows", protocol=mqtt.MQTTv5)
client.max_inflight_messages_set(200)
client.on_connect, client.on_publish = on_connect, on_publish
client.connect("127.0.0.1", port)
client.loop_start()
if not connected.wait(30) or refused:
    sys.exit(f"not connected: {refused}")
for number, row in enumerate(rows):
    if not window.acquire(timeout=60):
        sys.exit(f"row {number} waits for acknowledgements in vain")
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = ("row", str(number))
    client.publish(f"{prefix}/{row.rsplit(',', 1)[1]}/row", row, qos=1, properties=properties)
for number in range(len(rows)):
    if not acknowledged.acquire(timeout=60):
        sys.exit(f"only {number} of {len(rows)} rows are acknowledged")
client.disconnect()
client.loop_stop()
if refused:
    sys.exit(f"refused: {refused[:5]}")
print(len(rows))
