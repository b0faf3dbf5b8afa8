"""The context made anew when an overlay's interface comes.

A file of its own: Fast DDS keeps the list of interfaces for a process, and these tests change it.
"""

import os
import subprocess

from harness import PATIENCE, NodeTest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from ria_msgs.msg import Status

# Ends of one cable: the observer's, and the robot's, which becomes its overlay interface.
HERE, THERE = "other0", "ria0"


class ContextTest(NodeTest):
    """The node as on another host: a network namespace of its own, whose only way out is the overlay's interface."""

    def setUp(self):
        # Same machine id, so DDS would try shared memory, which another host does not have.
        os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
        self.addCleanup(os.environ.pop, "FASTDDS_BUILTIN_TRANSPORTS")
        # Both ends are up before the observer binds its sockets; the robot's end moves over later.
        run("ip", "link", "add", HERE, "type", "veth", "peer", "name", THERE)
        self.addCleanup(subprocess.run, ["ip", "link", "del", HERE], check=False, capture_output=True)
        run("ip", "addr", "add", "10.213.0.9/16", "dev", HERE)
        run("ip", "link", "set", HERE, "up")
        run("ip", "link", "set", THERE, "up")
        super().setUp()

    def start_robot(self, before=""):
        script = f'ip link set lo up; mount -t tmpfs none /dev/shm; {before} exec "$@"'
        return self.start_node(wrapper=["unshare", "--net", "--mount", "sh", "-c", script, "sh"])

    def plug_in(self, robot, address="10.213.0.1/16"):
        run("ip", "link", "set", THERE, "netns", str(robot.pid))
        self.readdress(robot, address)
        run("nsenter", f"--net=/proc/{robot.pid}/ns/net", "ip", "link", "set", THERE, "up")

    def readdress(self, robot, address):
        inside = ["nsenter", f"--net=/proc/{robot.pid}/ns/net", "ip", "addr"]
        run(*inside, "flush", "dev", THERE)
        run(*inside, "add", address, "dev", THERE)

    def wait_for_text(self, text, count=1):
        for _ in range(int(PATIENCE / 0.05)):
            if self.output().count(text) >= count:
                return
            self.spin(0.05)
        self.fail(f"no {text!r}\n{self.outputs()}")

    def test_a_node_started_before_the_first_join_is_seen_from_another_host(self):
        agent = self.start_agent()
        statuses = self.statuses()
        robot = self.start_robot()
        self.wait_for_text("is there")
        self.spin(0.5)
        self.assertEqual(statuses, [], "nothing may come over before there is an interface")
        self.plug_in(robot)
        self.spin(0.5)
        self.assertEqual(statuses, [], "the first context is deaf on the interface")
        agent.say("join robot-1", "interface ria0 10.213.0.1/16")
        status = self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "UP, over the overlay")
        self.assertEqual((status.reporter, list(status.addresses)), ("robot-1", ["10.213.0.1/16"]))
        self.assertIsNone(robot.poll())
        self.spin(1.5)
        self.assertEqual(self.output().count("starting the ROS context anew"), 1, self.outputs())
        self.assertEqual(self.end(robot), 0, "also a replaced process ends well")

    def test_another_address_makes_the_context_anew_and_keeps_parameters_and_state(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface ria0 10.213.0.1/16")
        statuses = self.statuses()
        robot = self.start_robot()
        self.wait_for_text("is there")
        self.plug_in(robot)
        self.wait_for(statuses, lambda m: list(m.addresses) == ["10.213.0.1/16"], "the first address")
        value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=0.75)
        request = SetParameters.Request(parameters=[Parameter(name="publish_period", value=value)])
        self.call(SetParameters, "/robot_1/overlay/set_parameters", request)
        self.readdress(robot, "10.213.0.2/16")
        agent.say("interface ria0 10.213.0.2/16")
        self.wait_for(statuses, lambda m: list(m.addresses) == ["10.213.0.2/16"], "the second address")
        self.wait_for_text("starting the ROS context anew", 2)
        self.spin(1.0)
        request = GetParameters.Request(names=["publish_period"])
        (value,) = self.call(GetParameters, "/robot_1/overlay/get_parameters", request).values
        self.assertEqual(value.double_value, 0.75)
        # So does the state of its lifecycle.
        off = ChangeState.Request(transition=Transition(label="deactivate"))
        self.assertTrue(self.call(ChangeState, "/robot_1/overlay/change_state", off).success)
        self.readdress(robot, "10.213.0.3/16")
        agent.say("interface ria0 10.213.0.3/16")
        self.wait_for_text("starting the ROS context anew", 3)
        self.spin(1.0)
        state = self.call(GetState, "/robot_1/overlay/get_state").current_state
        self.assertEqual(state.label, "inactive")

    def test_an_interface_that_was_there_first_needs_no_second_start(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface ria0 10.213.0.1/16")
        statuses = self.statuses()
        robot = self.start_robot('until ip addr show ria0 2>/dev/null | grep -q "state UP"; do sleep 0.05; done;')
        self.spin(0.3)
        self.plug_in(robot)
        self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "UP")
        self.spin(1.0)
        self.assertNotIn("anew", self.output())


def run(*command):
    subprocess.run(command, check=True)
