"""Two ROS 2 topics, one reliable and one best effort, whose every sample is numbered: steady.py send HZ, or steady.py receive

Sending ends with its standard input, once all that was sent reliably is acknowledged, and prints how many that were.
Receiving prints a JSON line for each line of its standard input: the longest pause between two samples since the line
before; and at the end of its input how many samples it has got, and how many were missing between the first and the last.
"""

import json
import os
import select
import sys
import threading
import time

import rclpy
from arrivals import Arrivals, report
from rclpy.duration import Duration
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import UInt64

# What is written while there is no way is kept: some ten seconds of it.
RELIABLE = QoSProfile(depth=2000, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=10, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.BEST_EFFORT)


def send(node, hertz):
    publisher, number = node.create_publisher(UInt64, "steady", RELIABLE), 0
    best_effort = node.create_publisher(UInt64, "steady_best_effort", BEST_EFFORT)
    while not publisher.get_subscription_count():
        time.sleep(0.05)
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        due += 1 / hertz
        publisher.publish(UInt64(data=number))
        best_effort.publish(UInt64(data=number))
        number += 1
    acknowledged = publisher.wait_for_all_acked(Duration(seconds=30))
    print(json.dumps({"sent": number, "acknowledged": acknowledged}), flush=True)


def receive(node):
    reliable, best_effort = Arrivals(), Arrivals()
    node.create_subscription(UInt64, "steady", lambda m: reliable.handle(m.data), RELIABLE)
    node.create_subscription(UInt64, "steady_best_effort", lambda m: best_effort.handle(m.data), BEST_EFFORT)
    executor = threading.Thread(target=lambda: rclpy.spin(node), daemon=True)
    executor.start()
    report(reliable, best_effort)
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
