"""The launch files' logic against a stand-in for the program `ria`."""

import os
import stat
import tempfile
import time
import unittest

from ria_bringup.agent import Agent, AgentError, is_true, ros_name, seconds
from ria_bringup.overlay import make_plan
from ria_bringup.overlay_env import find_variables

DEFAULTS = {
    "namespace": "",
    "params_file": "",
    "join_key_file": "",
    "start_agent": "auto",
    "wait": "5",
    "required": "false",
    "autostart": "true",
    "log_level": "",
}

# An agent runs exactly while the file `up` is there, like the real one's socket.
STAND_IN = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$here/calls"
case "$*" in
*daemon) [ -e "$here/broken" ] && { echo "no /dev/net/tun" >&2; exit 1; }
    echo $$ >"$here/pid"; touch "$here/up"; while [ -e "$here/up" ]; do sleep 0.05; done ;;
*) [ -e "$here/up" ] || { echo "the Ria agent is not running" >&2; exit 3; } ;;
esac
case "$*" in
"status --json") cat "$here/status"; exit "$(cat "$here/code")" ;;
"env --format json") [ "$(cat "$here/code")" = 0 ] || { echo "in no network" >&2; exit 4; }; cat "$here/env" ;;
esac
"""


class BringupTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.program = self.write("ria", STAND_IN)
        os.chmod(self.program, stat.S_IRWXU)
        os.environ["ROS_LOG_DIR"] = self.folder
        self.addCleanup(os.environ.pop, "ROS_LOG_DIR")
        self.answer('{"networks": [], "agent": {"suggested_name": "robot-7"}}', code=4)
        self.agent = Agent(self.program, {**os.environ, "RIA_RUN_DIR": self.folder})
        self.addCleanup(self.remove, "up")

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def remove(self, name):
        path = os.path.join(self.folder, name)
        if os.path.exists(path):
            os.remove(path)

    def read(self, name):
        with open(os.path.join(self.folder, name), encoding="utf-8") as file:
            return file.read()

    def answer(self, status, code):
        self.write("status", status)
        self.write("code", str(code))

    def plan(self, **arguments):
        return make_plan({**DEFAULTS, **arguments}, self.agent)

    def allow_start(self, reason=""):
        self.agent.may_not_start = lambda: reason


class OverlayTest(BringupTest):
    def test_a_running_agent_is_left_alone_and_gives_the_name(self):
        self.write("up", "")
        plan = self.plan()
        self.assertEqual((plan.namespace, plan.messages, plan.parameters), ("robot_7", [], []))
        self.assertNotIn("daemon", self.read("calls"))

    def test_the_name_given_by_the_network_counts_more_than_the_wanted_one(self):
        self.write("up", "")
        self.answer('{"networks": [{"ros_name": "robot_7_2"}], "agent": {"suggested_name": "robot-7"}}', code=0)
        self.assertEqual(self.plan().namespace, "robot_7_2")
        self.assertEqual(self.plan(namespace="arm").namespace, "arm")

    def test_an_agent_started_here_is_in_a_session_of_its_own(self):
        self.allow_start()
        plan = self.plan()
        self.assertIn("runs on when this launch ends", plan.messages[0])
        pid = int(self.read("pid"))
        self.assertEqual(os.getsid(pid), pid)
        self.assertNotEqual(os.getpgid(pid), os.getpgid(0), "a Ctrl-C in this terminal would reach it")
        self.remove("up")
        self.agent.started.wait(5)

    def test_an_agent_that_dies_at_once_is_reported_with_its_last_words(self):
        self.allow_start()
        self.write("broken", "")
        plan = self.plan()
        self.assertIn("no /dev/net/tun", plan.messages[0])
        self.assertIn("The node starts anyway", plan.messages[0])
        with self.assertRaisesRegex(AgentError, "no /dev/net/tun"):
            self.plan(required="true")

    def test_a_user_who_may_not_start_one_is_told_what_to_do(self):
        self.allow_start("start the service")
        self.assertIn("start the service", self.plan().messages[0])
        self.assertNotIn("daemon", self.read("calls"))

    def test_a_node_on_a_robot_in_a_network_starts_with_its_profile(self):
        self.write("up", "")
        self.assertEqual(self.plan().environment, {})
        self.answer("{}", code=0)
        self.write("env", '{"CYCLONEDDS_URI": "file:///run/ria/dds/c.xml"}')
        self.assertEqual(self.plan().environment, {"CYCLONEDDS_URI": "file:///run/ria/dds/c.xml"})

    def test_starting_can_be_switched_off(self):
        self.allow_start()
        self.assertIn("start_agent:=false", self.plan(start_agent="false").messages[0])
        self.assertNotIn("daemon", self.read("calls"))

    def test_without_the_program_the_error_says_what_to_install(self):
        self.agent = Agent(environment={"PATH": self.folder + "/empty"})
        self.assertIn("install Ria", self.plan().messages[0])

    def test_key_and_parameter_files_become_absolute_and_a_missing_one_ends_the_launch(self):
        self.write("up", "")
        file = self.write("overlay.yaml", "")
        plan = self.plan(params_file=file, join_key_file="lab.key")
        self.assertEqual(plan.parameters, [file, {"join_key_file": os.path.abspath("lab.key")}])
        with self.assertRaisesRegex(AgentError, "there is no file"):
            self.plan(params_file="/nowhere.yaml")

    def test_a_managers_node_does_not_start_by_itself(self):
        self.write("up", "")
        file = self.write("overlay.yaml", "")
        self.assertEqual(self.plan(params_file=file, autostart="false").parameters, [file, {"autostart": False}])
        with self.assertRaises(AgentError):
            self.plan(autostart="perhaps")


class OverlayEnvTest(BringupTest):
    def find(self, **arguments):
        return find_variables({"wait": "0", "required": "false", **arguments}, self.agent)

    def test_the_variables_are_those_of_the_agent(self):
        self.write("up", "")
        self.answer("{}", code=0)
        self.write("env", '{"CYCLONEDDS_URI": "file:///run/ria/dds/c.xml"}')
        self.assertEqual(self.find(), ({"CYCLONEDDS_URI": "file:///run/ria/dds/c.xml"}, []))

    def test_it_waits_for_the_overlay_and_not_longer_than_told(self):
        began = time.monotonic()
        variables, warnings = self.find(wait="0.5")
        self.assertTrue(0.4 < time.monotonic() - began < 15)
        self.assertEqual(variables, {})
        self.assertIn("agent is not running", warnings[0])

    def test_without_the_overlay_it_takes_what_keeps_ros_to_this_machine(self):
        os.mkdir(os.path.join(self.folder, "dds"))
        self.write("dds/ros-jazzy.env", "# Ria's\nCYCLONEDDS_URI=file:///run/ria/dds/c.xml\nROS_DOMAIN_ID=7\n")
        self.write("dds/ros-humble.env", "CYCLONEDDS_URI=file:///run/ria/dds/h.xml\n")
        own = {"RIA_RUN_DIR": self.folder, "ROS_DOMAIN_ID": "5", "PATH": os.environ["PATH"]}
        self.agent = Agent(self.program, own)
        variables, warnings = self.find()
        self.assertEqual(variables, {"CYCLONEDDS_URI": "file:///run/ria/dds/c.xml"})
        self.assertIn("this machine only", warnings[0])
        self.agent = Agent(self.program, {**own, "ROS_DISTRO": "iron"})
        self.assertEqual(self.find()[0], {"CYCLONEDDS_URI": "file:///run/ria/dds/h.xml"})

    def test_required_fails_instead_of_warning(self):
        with self.assertRaisesRegex(AgentError, "not running"):
            self.find(required="true")

    def test_nonsense_from_another_version_sets_nothing(self):
        self.write("up", "")
        self.answer("{}", code=0)
        for nonsense in ("export A=b", "[1]", '{"A": 1}'):
            self.write("env", nonsense)
            self.assertEqual(self.find()[0], {})


class TextTest(unittest.TestCase):
    def test_names_become_ros_names(self):
        for name, expected in [("robot-7", "robot_7"), ("Lab--PC.example", "lab_pc"), ("7", "robot_7"), ("-", "robot")]:
            self.assertEqual(ros_name(name), expected)

    def test_unclear_arguments_are_errors(self):
        self.assertTrue(is_true("True"))
        self.assertFalse(is_true("0"))
        for bad in ("maybe", ""):
            self.assertRaises(AgentError, is_true, bad)
        for bad in ("-1", "nan", "soon", "1e9"):
            self.assertRaises(AgentError, seconds, bad, "wait")


if __name__ == "__main__":
    unittest.main()
