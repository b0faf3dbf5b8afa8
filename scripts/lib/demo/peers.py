"""Shows /overlay/peers as a subscriber sees it: a line per reporter and peer, and at last one JSON line.

Waits until every reporter named has told of the number of peers given, each with an UP link.
"""

import json
import sys
import time

import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ria_msgs.msg import Peer, PeerArray

LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def names(kind, prefix):
    """Constants of a message by value: {1: 'IDLE', ...}."""
    return {getattr(kind, n): n.removeprefix(prefix) for n in dir(kind) if n.startswith(prefix)}


def main():
    limit, peers, reporters = float(sys.argv[1]), int(sys.argv[2]), set(sys.argv[3:])
    link_states, paths = names(Peer, "LINK_STATE_"), names(Peer, "PATH_")
    began, latest = time.monotonic(), {}
    rclpy.init()
    node = rclpy.create_node("peers_viewer")
    node.create_subscription(PeerArray, "/overlay/peers", lambda m: latest.__setitem__(m.reporter, m), LATCHED)

    def complete(name):
        up = [p for p in latest[name].peers if p.link_state == Peer.LINK_STATE_UP] if name in latest else []
        return len(up) >= peers

    while not all(complete(name) for name in reporters) and time.monotonic() - began < limit:
        rclpy.spin_once(node, timeout_sec=0.1)
    for name, message in sorted(latest.items()):
        for peer in message.peers:
            rtt = f"{peer.rtt * 1000:.1f} ms" if peer.rtt == peer.rtt else "-"
            print(
                f"  {name:10} sees {peer.name:10} {peer.addresses[0]:14} {link_states.get(peer.link_state, '?'):10} "
                f"{paths.get(peer.path, '?'):9} rtt {rtt:9} {peer.path_reason}"
            )
    missing = sorted(name for name in reporters if not complete(name))
    print(json.dumps({"reporters": sorted(latest), "missing": missing, "after_s": round(time.monotonic() - began, 3)}))
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
