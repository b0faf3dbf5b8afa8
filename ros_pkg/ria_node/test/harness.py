"""What the tests of the node share: a real node and a made-up agent as processes, and an rclpy node that looks on.

Run by scripts/lib/ros-test, each file in a network namespace of its own, so no two tests meet.
"""

import base64
import hashlib
import itertools
import os
import signal
import subprocess
import tempfile
import time
import unittest

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ria_msgs.msg import Event, PeerArray, Status

NODE = os.environ["RIA_TEST_NODE"]
AGENT = os.environ["RIA_TEST_AGENT"]
LATCHED = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
# Far above what anything here takes; only a failure waits this long.
PATIENCE = 30.0

domains = itertools.count(1)


def join_key():
    """A well-formed join key: CBOR {urls, CA pin, key id, secret} with a checksum, in base32."""
    url = b"https://ria.lab.example"
    content = b"\xa4\x00\x81\x77" + url + b"\x01\x58\x20" + bytes(32) + b"\x02\x45" + bytes(5) + b"\x03\x50" + bytes(16)
    text = base64.b32encode(content + hashlib.sha256(content).digest()[:4]).decode()
    return "ria1_" + text.rstrip("=").lower()


class Agent:
    """The made-up agent of ria-api, told what to say by lines."""

    def __init__(self, socket):
        self.process = subprocess.Popen([AGENT, socket], stdin=subprocess.PIPE, text=True)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(socket):
            assert time.monotonic() < deadline and self.process.poll() is None, "the made-up agent does not start"
            time.sleep(0.01)

    def say(self, *lines):
        for line in lines:
            self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(PATIENCE)


class NodeTest(unittest.TestCase):
    """One ROS domain with an observer; starts agents and nodes and ends them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.environment = {**os.environ, "ROS_DOMAIN_ID": str(next(domains)), "ROS_LOG_DIR": self.folder}
        for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE", "CYCLONEDDS_URI"):
            self.environment.pop(name, None)
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=int(self.environment["ROS_DOMAIN_ID"]))
        self.addCleanup(rclpy.shutdown, context=self.context)
        self.node = rclpy.create_node("observer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.heard = {}

    def socket(self, name):
        return os.path.join(self.folder, f"{name}.bus")

    def start_agent(self, name="robot-1"):
        agent = Agent(self.socket(name))
        self.addCleanup(agent.stop)
        return agent

    def start_node(self, name="robot-1", wrapper=(), arguments=(), **parameters):
        """A node for the agent of a robot, in its namespace. Its output is in the file that `output` reads.

        Of two rules for one name the first counts, so `arguments` may give another namespace.
        """
        arguments = ["--ros-args", *arguments, "-r", f"__ns:=/{name.replace('-', '_')}"]
        parameters.setdefault("agent_socket", self.socket(name))
        for key, value in parameters.items():
            arguments += ["-p", f"{key}:={value}"]
        with open(os.path.join(self.folder, f"{name}.log"), "a", encoding="utf-8") as log:
            process = subprocess.Popen([*wrapper, NODE, *arguments], env=self.environment, stdout=log, stderr=log)
        self.addCleanup(self.end, process)
        return process

    def end(self, process, how=signal.SIGTERM):
        """Ends a node; its exit code."""
        if process.poll() is None:
            process.send_signal(how)
        return process.wait(PATIENCE)

    def output(self, name="robot-1"):
        with open(os.path.join(self.folder, f"{name}.log"), encoding="utf-8") as log:
            return log.read()

    def listen(self, kind, topic, qos):
        """Collects the messages of a topic from now on."""
        messages = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def statuses(self):
        return self.listen(Status, "/overlay/status", LATCHED)

    def peer_arrays(self):
        return self.listen(PeerArray, "/overlay/peers", LATCHED)

    def events(self):
        return self.listen(Event, "/overlay/events", QoSProfile(depth=50))

    def diagnostics(self):
        return self.listen(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))

    def spin(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.05)

    def wait_for(self, messages, wanted, what, patience=PATIENCE):
        """The first message that is as wanted, among those there and those to come."""
        deadline, seen = time.monotonic() + patience, 0
        while True:
            for message in messages[seen:]:
                seen += 1
                if wanted(message):
                    return message
            if time.monotonic() > deadline:
                self.fail(f"{what} did not come within {patience} s; the last: {messages[-1:]}\n{self.outputs()}")
            self.executor.spin_once(timeout_sec=0.05)

    def outputs(self):
        logs = sorted(name for name in os.listdir(self.folder) if name.endswith(".log"))
        return "\n".join(f"--- {name}\n{self.output(name.removesuffix('.log'))}" for name in logs)

    def call(self, kind, name, request=None, patience=PATIENCE):
        """The answer of a service."""
        client = self.node.create_client(kind, name)
        deadline = time.monotonic() + patience
        while not client.service_is_ready():
            self.assertLess(time.monotonic(), deadline, f"no service {name}\n{self.outputs()}")
            self.executor.spin_once(timeout_sec=0.05)
        future = client.call_async(request or kind.Request())
        self.executor.spin_until_future_complete(future, timeout_sec=patience)
        self.assertTrue(future.done(), f"{name} does not answer\n{self.outputs()}")
        self.node.destroy_client(client)
        return future.result()

    def services(self, kind=None):
        """Names of the services in the graph, with the wanted type."""
        return {name for name, kinds in self.node.get_service_names_and_types() if kind is None or kind in kinds}
