"""Who is heard: presence.py NAME says NAME ten times a second on the ROS topic /presence, and listens there to all others.

For each line of its standard input it prints a JSON line: how often each has been heard since the line before. It ends with
its standard input. `Presence` is the same for any middleware.
"""

import collections
import json
import select
import sys
import time


class Presence:
    """Counts who is heard, and tells it when asked."""

    def __init__(self, name):
        self.name, self.counts = name, collections.Counter()

    def hear(self, name):
        if name != self.name:
            self.counts[name] += 1

    def run(self, say, turn):
        """`say` says the name, `turn` hears what has come meanwhile."""
        due = time.monotonic()
        while self.answer():
            turn()
            if time.monotonic() >= due:
                due += 0.1
                say(self.name)

    def answer(self):
        """Tells the counts for each line that has come; false once the input has ended."""
        if not select.select([sys.stdin], [], [], 0)[0]:
            return True
        if not sys.stdin.buffer.raw.read(1):
            return False
        print(json.dumps(dict(sorted(self.counts.items()))), flush=True)
        self.counts.clear()
        return True


def main():
    import rclpy
    from std_msgs.msg import String

    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    presence = Presence(sys.argv[1])
    node = rclpy.create_node(sys.argv[1])
    publisher = node.create_publisher(String, "/presence", 10)
    node.create_subscription(String, "/presence", lambda message: presence.hear(message.data), 10)
    presence.run(lambda name: publisher.publish(String(data=name)), lambda: rclpy.spin_once(node, timeout_sec=0.02))


if __name__ == "__main__":
    main()
