"""Has a managed node go through transitions: transition.py NODE LABEL...; fails when one is refused."""

import sys
import time

import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

PATIENCE = 30.0


def main(name, labels):
    """One after the other."""
    rclpy.init()
    node = rclpy.create_node("manager")
    client = node.create_client(ChangeState, f"{name}/change_state")
    if not client.wait_for_service(PATIENCE):
        sys.exit(f"there is no service {name}/change_state")
    for label in labels:
        answer = client.call_async(ChangeState.Request(transition=Transition(label=label)))
        deadline = time.monotonic() + PATIENCE
        while not answer.done() and time.monotonic() < deadline:
            rclpy.spin_once(node, timeout_sec=0.1)
        if not answer.done() or not answer.result().success:
            sys.exit(f"{name} refused to {label}")
        print(label, flush=True)
    rclpy.try_shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
