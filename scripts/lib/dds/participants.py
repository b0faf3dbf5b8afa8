"""N ROS 2 participants in one process, each with a node: participants.py NAME N EXPECTED

Writes a JSON line when the graph is complete (EXPECTED nodes, seen by every participant), and from then on one each time
that this changes. Ends with its standard input.
"""

import json
import select
import sys
import time

import rclpy
from rclpy.context import Context


def main():
    name, count, expected = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    began = time.monotonic()
    nodes = []
    for number in range(count):
        context = Context()
        rclpy.init(context=context, signal_handler_options=rclpy.SignalHandlerOptions.NO)
        nodes.append(rclpy.create_node(f"{name}_{number}", context=context))
    told = last = None
    while not select.select([sys.stdin], [], [], 0.25)[0]:
        fewest = min(len(set(node.get_node_names())) for node in nodes)
        if fewest != last:
            last = fewest
            print(f"{fewest} nodes seen by all", file=sys.stderr, flush=True)
        if fewest != told and (told is not None or fewest >= expected):
            told = fewest
            print(json.dumps({"nodes": fewest, "after_s": round(time.monotonic() - began, 3)}), flush=True)


if __name__ == "__main__":
    main()
