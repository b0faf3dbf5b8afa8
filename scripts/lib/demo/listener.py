"""Waits for messages on /chatter; prints one JSON line: how long the first took and what was heard."""

import json
import sys
import time

import rclpy
from std_msgs.msg import String


def main():
    limit, wanted = float(sys.argv[1]), int(sys.argv[2])
    began = time.monotonic()
    rclpy.init()
    node = rclpy.create_node("listener")
    heard = []

    def take(message):
        heard.append((time.monotonic(), message.data))

    node.create_subscription(String, "/chatter", take, 10)
    while len(heard) < wanted and time.monotonic() - began < limit:
        rclpy.spin_once(node, timeout_sec=0.1)
    result = {
        "heard": len(heard),
        "first_after_s": round(heard[0][0] - began, 3) if heard else None,
        "first": heard[0][1] if heard else "",
    }
    print(json.dumps(result), flush=True)
    return 0 if len(heard) >= wanted else 1


if __name__ == "__main__":
    sys.exit(main())
