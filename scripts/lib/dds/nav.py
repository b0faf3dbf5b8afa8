"""A robot as Nav2 makes one, and who manages it from another machine: nav.py robot, or nav.py manager BULK_MESSAGES

The robot is a lifecycle node with an action, a heartbeat while it is active (as `bond` does it: every 0.1 s, given up after
4 s), and subscriptions to /cmd_vel and to a large topic. The manager brings it up, sends goals and cancels one, and plays
large messages beside /cmd_vel at 20 Hz. It prints a JSON line for each thing done; when the heartbeat breaks it says so and
goes on until the robot is back. The robot tells what it has got when its standard input ends.
"""

import json
import os
import sys
import threading
import time
from array import array

import rclpy
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.action import ActionClient, ActionServer, CancelResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.qos import LivelinessPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String, UInt8MultiArray
from test_msgs.action import Fibonacci

TIMEOUT = 4.0  # Nav2's bond_timeout
BOND = QoSProfile(
    depth=10,
    reliability=ReliabilityPolicy.RELIABLE,
    deadline=Duration(seconds=TIMEOUT),
    liveliness=LivelinessPolicy.AUTOMATIC,
    liveliness_lease_duration=Duration(seconds=TIMEOUT),
)
EVERY = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
BULK = 200_000  # bytes


def say(**what):
    print(json.dumps(what), flush=True)


class Robot(LifecycleNode):
    """The robot's end."""

    def __init__(self):
        super().__init__("controller")
        group = ReentrantCallbackGroup()
        self.velocities, self.bulk, self.last, self.longest = set(), 0, None, 0.0
        cancel = {"cancel_callback": lambda _: CancelResponse.ACCEPT, "callback_group": group}
        self.navigation = ActionServer(self, Fibonacci, "/robot/navigate", self.navigate, **cancel)
        self.create_subscription(TwistStamped, "/cmd_vel", self.obey, EVERY)
        self.create_subscription(UInt8MultiArray, "/robot/bulk", self.record, 10, callback_group=group)

    def on_configure(self, _):
        self.bond = self.create_lifecycle_publisher(String, "/robot/bond", BOND)
        self.beat = self.create_timer(0.1, lambda: self.bond.publish(String(data="alive")))
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, _):
        self.destroy_timer(self.beat)
        self.destroy_lifecycle_publisher(self.bond)
        return TransitionCallbackReturn.SUCCESS

    def navigate(self, goal):
        """Counts up to the goal's order, ten steps a second."""
        feedback = Fibonacci.Feedback()
        for step in range(goal.request.order):
            if goal.is_cancel_requested:
                goal.canceled()
                return Fibonacci.Result(sequence=feedback.sequence)
            feedback.sequence = [*feedback.sequence, step]
            goal.publish_feedback(feedback)
            time.sleep(0.1)
        goal.succeed()
        return Fibonacci.Result(sequence=feedback.sequence)

    def obey(self, message):
        now = time.monotonic()
        self.longest = max(self.longest, now - (self.last or now))
        self.last = now
        self.velocities.add(int(message.twist.linear.x))

    def record(self, message):
        self.bulk += len(message.data) == BULK


class Manager:
    """The other end."""

    def __init__(self, node):
        self.node, self.beats, self.events = node, [], []
        states = {"get": GetState, "change": ChangeState}
        self.state = {name: node.create_client(kind, f"/controller/{name}_state") for name, kind in states.items()}
        self.navigation = ActionClient(node, Fibonacci, "/robot/navigate")
        events = SubscriptionEventCallbacks(
            deadline=lambda _: self.events.append("deadline"), liveliness=lambda info: self.events.append(f"alive {info.alive_count}")
        )
        node.create_subscription(String, "/robot/bond", lambda _: self.beats.append(time.monotonic()), BOND, event_callbacks=events)

    def done(self, future, what, limit=60):
        end = time.monotonic() + limit
        while not future.done():
            if time.monotonic() > end:
                raise SystemExit(f"no answer: {what}")
            time.sleep(0.005)
        return future.result()

    def change(self, transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        assert self.done(self.state["change"].call_async(request), f"transition {transition}").success, transition

    def state_id(self):
        """Asked until it is told: who asks a robot that has just died, and is not forgotten yet, gets no answer."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            future, until = self.state["get"].call_async(GetState.Request()), time.monotonic() + 3
            while not future.done() and time.monotonic() < until:
                time.sleep(0.005)
            if future.done():
                return future.result().current_state.id
        raise SystemExit("no state within 60 s")

    def bring_up(self):
        for client in self.state.values():
            assert client.wait_for_service(60), "no lifecycle services"
        assert self.state_id() == State.PRIMARY_STATE_UNCONFIGURED
        self.change(Transition.TRANSITION_CONFIGURE)
        self.beats.clear()
        time.sleep(0.5)
        assert not self.beats, "a node that is not active publishes"
        self.change(Transition.TRANSITION_ACTIVATE)
        assert self.state_id() == State.PRIMARY_STATE_ACTIVE
        end = time.monotonic() + 30
        while len(self.beats) < 5:
            assert time.monotonic() < end, "no heartbeat of an active node"
            time.sleep(0.05)

    def navigate(self, order, cancel_after=None):
        """Sends a goal; gives the status, the result's length, and how often feedback came."""
        assert self.navigation.wait_for_server(60), "no action server"
        feedback = []
        goal = self.done(self.navigation.send_goal_async(Fibonacci.Goal(order=order), feedback.append), "goal")
        assert goal.accepted
        while cancel_after and len(feedback) < cancel_after:
            time.sleep(0.01)
        if cancel_after:
            assert self.done(goal.cancel_goal_async(), "cancelling").goals_canceling
        result = self.done(goal.get_result_async(), "result")
        return {"status": result.status, "steps": len(result.result.sequence), "feedback": len(feedback)}

    def play(self, messages):
        """Large messages, ten a second, beside velocities at 20 Hz."""
        velocity = self.node.create_publisher(TwistStamped, "/cmd_vel", EVERY)
        bulk = self.node.create_publisher(UInt8MultiArray, "/robot/bulk", 10)
        while not (velocity.get_subscription_count() and bulk.get_subscription_count()):
            time.sleep(0.05)
        content, due = UInt8MultiArray(data=array("B", bytes(BULK))), time.monotonic()
        for number in range(2 * messages):
            twist = TwistStamped()
            twist.twist.linear.x = float(number)
            velocity.publish(twist)
            if number % 2:
                bulk.publish(content)
            due += 0.05
            time.sleep(max(0, due - time.monotonic()))
        for publisher in (velocity, bulk):
            assert publisher.wait_for_all_acked(Duration(seconds=60)), "not all was acknowledged"

    def longest_pause(self):
        return round(max(b - a for a, b in zip(self.beats, self.beats[1:])), 3)

    def is_broken(self):
        return time.monotonic() - self.beats[-1] > TIMEOUT


def manage(node, messages):
    manager, began = Manager(node), time.monotonic()
    manager.bring_up()
    say(did="active", after_s=round(time.monotonic() - began, 3))
    say(did="goal", **manager.navigate(20))
    say(did="cancelled", **manager.navigate(600, cancel_after=5))
    # What is lost of the heartbeat while much else is sent breaks the bond.
    manager.play(messages)
    say(did="played", longest_without_heartbeat_s=manager.longest_pause(), events=[e for e in manager.events if e == "deadline"])
    while not manager.is_broken():
        time.sleep(0.1)
    # DDS itself tells of it, too, when the writer's lease is over.
    end = time.monotonic() + 40
    while "alive 0" not in manager.events and time.monotonic() < end:
        time.sleep(0.1)
    say(did="broken", events=manager.events)
    manager.bring_up()
    say(did="back")


def main():
    rclpy.init(signal_handler_options=rclpy.SignalHandlerOptions.NO)
    node = Robot() if sys.argv[1] == "robot" else rclpy.create_node("manager")
    executor = MultiThreadedExecutor(4)
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    if sys.argv[1] == "manager":
        manage(node, int(sys.argv[2]))
        # The executor ends with the process.
        os._exit(0)
    sys.stdin.read()
    say(velocities=len(node.velocities), bulk=node.bulk, longest_without_velocity_s=round(node.longest, 3))
    # As in a crash: without a farewell.
    os._exit(1)


if __name__ == "__main__":
    main()
