"""What Nav2 and the like need beside topics: serve.py offers it, serve.py use tries it from another robot.

A service, parameters, a latched topic, transforms at 50 Hz, a lifecycle-like heartbeat. `use` prints one JSON line: how long
each took from the start of the node, and the rate of transforms.
"""

import json
import sys
import time

import rclpy
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from std_srvs.srv import Trigger

LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def offer(node):
    node.declare_parameter("speed", 1.0)

    def answer(_, response):
        response.success, response.message = True, "done"
        return response

    node.create_service(Trigger, "/robot/reset", answer)
    latched = node.create_publisher(String, "/robot/map", LATCHED)
    latched.publish(String(data="map"))
    transforms = node.create_publisher(String, "/robot/tf", 100)
    node.create_timer(0.02, lambda: transforms.publish(String(data="x" * 100)))
    beat = node.create_publisher(String, "/robot/bond", 10)
    node.create_timer(0.1, lambda: beat.publish(String(data="alive")))
    rclpy.spin(node)


def call(node, kind, name, request, limit=30):
    client = node.create_client(kind, name)
    if not client.wait_for_service(limit):
        raise SystemExit(f"no service {name}")
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=limit)
    if not future.done():
        raise SystemExit(f"no answer of {name}")
    return future.result()


def use(node):
    began, report, maps, ticks, beats = time.monotonic(), {}, [], [], []
    node.create_subscription(String, "/robot/map", lambda m: maps.append(time.monotonic()), LATCHED)
    node.create_subscription(String, "/robot/tf", lambda m: ticks.append(time.monotonic()), 100)
    node.create_subscription(String, "/robot/bond", lambda m: beats.append(time.monotonic()), 10)
    answer = call(node, Trigger, "/robot/reset", Trigger.Request())
    assert answer.success and answer.message == "done", answer
    report["service_s"] = round(time.monotonic() - began, 3)
    wanted = Parameter("speed", Parameter.Type.DOUBLE, 2.5).to_parameter_msg()
    done = call(node, SetParameters, "/offer/set_parameters", SetParameters.Request(parameters=[wanted]))
    assert done.results[0].successful, done
    value = call(node, GetParameters, "/offer/get_parameters", GetParameters.Request(names=["speed"]))
    assert value.values[0].double_value == 2.5, value
    report["parameters_s"] = round(time.monotonic() - began, 3)
    end = time.monotonic() + 5
    while time.monotonic() < end or not maps:
        rclpy.spin_once(node, timeout_sec=0.1)
        assert time.monotonic() < end + 30, "nothing latched came"
    report["latched_s"] = round(maps[0] - began, 3)
    late = [at for at in ticks if at > end - 5]
    report["transforms_hz"] = round(len(late) / 5, 1)
    report["longest_without_heartbeat_s"] = round(max(b - a for a, b in zip(beats, beats[1:])), 3)
    print(json.dumps(report), flush=True)


def main():
    rclpy.init()
    node = rclpy.create_node(sys.argv[1])
    offer(node) if sys.argv[1] == "offer" else use(node)


if __name__ == "__main__":
    main()
