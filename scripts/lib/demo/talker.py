"""Publishes std_msgs/String on /chatter ten times a second until it is told to stop."""

import itertools
import signal
import sys

import rclpy
from std_msgs.msg import String


def main():
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    node = rclpy.create_node("talker")
    publisher = node.create_publisher(String, "/chatter", 10)
    numbers = itertools.count(1)
    node.create_timer(0.1, lambda: publisher.publish(String(data=f"hello from {sys.argv[1]} #{next(numbers)}")))
    rclpy.spin(node)


if __name__ == "__main__":
    main()
