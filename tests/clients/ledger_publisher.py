"""Devices with a memory: publish numbered messages at QoS 1 through every outage, and keep the ledger of what they did.

Usage: ledger_publisher.py PORT DEVICES LEDGER. Each device publishes device-D:N to site/dD/count, N = 0, 1, ..., at most
20 unacknowledged. When the connection is lost it opens a new one and sends again what was not acknowledged. Prints
`acknowledged COUNT` as it goes. A line on standard input ends it: no new numbers, but it goes on until every number is
acknowledged, and then writes LEDGER as JSON: per device how often each number was sent.
"""

import json
import sys
import threading

import paho.mqtt.client as mqtt

port, devices, ledger_path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
stop = threading.Event()
output = threading.Lock()
total = 0


def count_acknowledged():
    global total
    with output:
        total += 1
        if total % 50 == 0:
            print(f"acknowledged {total}", flush=True)


class Device:
    """One device: `sent[n]` counts how often number n left, `waiting` holds the numbers without an acknowledgement."""

    def __init__(self, name):
        self.name, self.sent, self.waiting = name, [], []
        self.numbers, self.early = {}, set()
        self.state = threading.Condition()
        self.failed = False

    def send(self, client, number):
        with self.state:
            self.sent[number] += 1
        # Not under the lock: the library calls `acknowledged` while it holds one of its own.
        mid = client.publish(f"site/{self.name}/count", f"{self.name}:{number}", qos=1).mid
        with self.state:
            self.numbers[mid] = number
            if mid in self.early:
                self.early.remove(mid)
                self.done(mid)

    def acknowledged(self, client, userdata, mid, reason, properties):
        with self.state:
            if reason.is_failure:
                self.failed = True
            elif mid in self.numbers:
                self.done(mid)
            else:
                self.early.add(mid)
            self.state.notify()

    def done(self, mid):
        self.waiting.remove(self.numbers.pop(mid))
        count_acknowledged()

    def lost(self, *_):
        with self.state:
            self.failed = True
            self.state.notify()

    def connection(self):
        """One connection, until it is lost or all is done. True when all is done."""
        # A client of its own per connection: the library must not send anything again by itself.
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=self.name, reconnect_on_failure=False)
        client.max_inflight_messages_set(20)
        client.on_publish, client.on_disconnect, client.on_connect_fail = self.acknowledged, self.lost, self.lost
        ready = threading.Event()
        client.on_connect = lambda *_: ready.set()
        with self.state:
            self.failed = False
            self.numbers.clear()
            self.early.clear()
        try:
            client.connect("127.0.0.1", port, keepalive=10)
        except OSError:
            stop.wait(0.05)
            return False
        client.loop_start()
        try:
            while not ready.wait(0.05):
                if self.failed:
                    return False
            for number in list(self.waiting):
                self.send(client, number)
            while True:
                with self.state:
                    while not self.failed and len(self.waiting) >= (1 if stop.is_set() else 20):
                        self.state.wait(0.1)
                    if self.failed:
                        return False
                    if stop.is_set():
                        return True
                    number = len(self.sent)
                    self.sent.append(0)
                    self.waiting.append(number)
                self.send(client, number)
        finally:
            client.disconnect()
            client.loop_stop()

    def run(self):
        while not self.connection():
            pass


fleet = [Device(f"d{number}") for number in range(devices)]
threads = [threading.Thread(target=device.run) for device in fleet]
for thread in threads:
    thread.start()
sys.stdin.readline()
stop.set()
for thread in threads:
    thread.join()
with open(ledger_path, "w") as file:
    json.dump({device.name: device.sent for device in fleet}, file)
print("done", flush=True)
