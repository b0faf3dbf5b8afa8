"""A robot's base as many are written: a node `base` that obeys cmd_vel and writes tf. Ends with SIGTERM."""

import signal
import sys

import rclpy
from std_msgs.msg import String


def main():
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node = rclpy.create_node("base")
    node.create_subscription(String, "cmd_vel", lambda _: None, 10)
    node.create_publisher(String, "tf", 10)
    try:
        while True:
            # Not for ever, or no signal would be handled.
            rclpy.spin_once(node, timeout_sec=0.2)
    finally:
        # With a farewell, so that nobody waits for a lease.
        rclpy.shutdown()


if __name__ == "__main__":
    main()
