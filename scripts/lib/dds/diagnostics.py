"""Waits for an error on /diagnostics that says something: diagnostics.py SECONDS TEXT; prints it as one JSON line."""

import json
import sys
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus


def main():
    end, text, found = time.monotonic() + float(sys.argv[1]), sys.argv[2], []
    rclpy.init()
    node = rclpy.create_node("diagnostics_reader")

    def take(message):
        for status in message.status:
            said = [status.message, *(value.value for value in status.values)]
            if status.level == DiagnosticStatus.ERROR and any(text in words for words in said):
                found.append({"name": status.name, "message": status.message})

    node.create_subscription(DiagnosticArray, "/diagnostics", take, 10)
    while not found and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.2)
    print(json.dumps(found[0] if found else None))
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
