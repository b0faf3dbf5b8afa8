"""A reliable ROS 2 topic whose every sample is numbered: steady.py send HZ, or steady.py receive

Sending ends with its standard input, once all that was sent is acknowledged, and prints how many that were. Receiving
prints a JSON line for each line of its standard input: the longest pause between two samples since the one before; and at
the end of its input how many samples it has got, and how many were missing between the first and the last.
"""

import json
import os
import select
import sys
import threading
import time

import rclpy
from rclpy.duration import Duration
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import UInt64

# What is written while there is no way is kept: some ten seconds of it.
QOS = QoSProfile(depth=2000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)


def send(node, hertz):
    publisher, number = node.create_publisher(UInt64, "steady", QOS), 0
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        due += 1 / hertz
        publisher.publish(UInt64(data=number))
        number += 1
    acknowledged = publisher.wait_for_all_acked(Duration(seconds=30))
    print(json.dumps({"sent": number, "acknowledged": acknowledged}), flush=True)


class Arrivals:
    """What has come, and the longest pause since the last look."""

    def __init__(self):
        self.numbers, self.last, self.longest = [], None, 0.0

    def handle(self, message):
        now = time.monotonic()
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now
        self.numbers.append(message.data)


def receive(node):
    arrivals = Arrivals()
    node.create_subscription(UInt64, "steady", arrivals.handle, QOS)
    executor = threading.Thread(target=lambda: rclpy.spin(node), daemon=True)
    executor.start()
    while line := sys.stdin.readline():
        if line.strip():
            print(json.dumps({"pause_ms": round(arrivals.longest * 1000, 1)}), flush=True)
        arrivals.longest = 0.0
    numbers = arrivals.numbers
    missing = numbers[-1] - numbers[0] + 1 - len(set(numbers)) if numbers else None
    print(json.dumps({"received": len(numbers), "first": min(numbers, default=None), "missing": missing}), flush=True)
    # Spinning ends with the process.
    os._exit(0)


def main():
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = rclpy.create_node(f"steady_{sys.argv[1]}")
    if sys.argv[1] == "send":
        send(node, float(sys.argv[2]))
    else:
        receive(node)


if __name__ == "__main__":
    main()
