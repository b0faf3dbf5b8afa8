"""Large messages: large.py send BYTES HERTZ COUNT, or large.py receive COUNT

Both ends are reliable and keep the last ten. The sender begins half a second after it has found a receiver and ends when
all is acknowledged, or 20 s after the last message. The receiver ends with the last message, or 15 s after the one before,
and prints one JSON line: messages received, and how long they took in the middle and at most (one clock at both ends).
"""

import json
import statistics
import struct
import sys
import time
from array import array

import rclpy
from rclpy.duration import Duration
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import UInt8MultiArray

QOS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
STAMP = struct.Struct("<QQ")  # Number, and time of sending in nanoseconds.
LONGEST = 15  # seconds without a message


def send(node, size, rate, count):
    publisher = node.create_publisher(UInt8MultiArray, "/large", QOS)
    began = time.monotonic()
    while publisher.get_subscription_count() < 1:
        if time.monotonic() - began > 60:
            return 1
        rclpy.spin_once(node, timeout_sec=0.05)
    time.sleep(0.5)
    payload = bytearray(size)
    began = time.monotonic()
    for number in range(count):
        time.sleep(max(0, began + number / rate - time.monotonic()))
        STAMP.pack_into(payload, 0, number, time.monotonic_ns())
        publisher.publish(UInt8MultiArray(data=array("B", payload)))
    publisher.wait_for_all_acked(Duration(seconds=20))
    return 0


def receive(node, count):
    took, last = {}, [time.monotonic() + 60 - LONGEST]

    def take(message):
        number, sent = STAMP.unpack_from(message.data)
        took[number] = (time.monotonic_ns() - sent) / 1e6
        last[0] = time.monotonic()

    node.create_subscription(UInt8MultiArray, "/large", take, QOS)
    while count - 1 not in took and time.monotonic() - last[0] < LONGEST:
        rclpy.spin_once(node, timeout_sec=0.1)
    report = {"received": len(took), "of": count}
    if took:
        report |= {"median_ms": round(statistics.median(took.values()), 1), "max_ms": round(max(took.values()), 1)}
    print(json.dumps(report), flush=True)


def main():
    rclpy.init()
    node = rclpy.create_node(f"large_{sys.argv[1]}")
    if sys.argv[1] == "send":
        return send(node, int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
    return receive(node, int(sys.argv[2]))


if __name__ == "__main__":
    sys.exit(main())
