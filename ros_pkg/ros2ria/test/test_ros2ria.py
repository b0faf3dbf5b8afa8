"""The verbs of `ros2 ria` with the real program `ria`, a made-up agent, and real overlay nodes on a real ROS graph.

ros2cli and ros2doctor are in no public package index, so what their plugin systems do (find the entry points, make the
extensions, parse the arguments, collect the report) is done here by stand-ins of a few lines. Against the real ones this was
tried by hand only; the manual says so.
"""

import argparse
import ast
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import types
import unittest
import warnings

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "ria_node" / "test")]


def stand_in(name, **content):
    """A module that is not installed here."""
    module = types.ModuleType(name)
    for key, value in content.items():
        setattr(module, key, value)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
    return module


class Report:
    """As ros2doctor's."""

    def __init__(self, name):
        self.name, self.items = name, []

    def add_to_report(self, name, info):
        self.items.append((name, info))


class Result:
    """As ros2doctor's."""

    def __init__(self):
        self.error = self.warning = 0

    def add_error(self):
        self.error += 1

    def add_warning(self):
        self.warning += 1


DAEMON = []

stand_in("ros2cli")
stand_in("ros2cli.plugin_system", PLUGIN_SYSTEM_VERSION="0.1", satisfies_version=lambda version, wanted: None)
stand_in("ros2cli.command", CommandExtension=object, add_subparsers_on_demand=lambda *args, **kwargs: None)
stand_in("ros2cli.node")
stand_in("ros2cli.node.daemon", shutdown_daemon=lambda args, timeout=None: DAEMON.append(args) or True)
stand_in("ros2doctor")
stand_in("ros2doctor.api", DoctorCheck=object, DoctorReport=object, Report=Report, Result=Result)
stand_in(
    "ros2doctor.api.format",
    doctor_warn=lambda text: warnings.warn(text, stacklevel=2),
    doctor_error=lambda text: warnings.warn(f"ERROR: {text}", stacklevel=2),
)

from harness import PATIENCE, NodeTest, join_key  # noqa: E402
from ros2ria import agent, checks  # noqa: E402
from ros2ria.verb.join import JoinVerb  # noqa: E402


def entry_points():
    """The entry points of setup.py, which is only read: group to {name: object}."""
    tree = ast.parse((HERE.parent / "setup.py").read_text(encoding="utf-8"))
    scope, found = {}, {}

    def setup(**settings):
        found.update(settings["entry_points"])

    tree.body = [node for node in tree.body if not isinstance(node, ast.ImportFrom)]
    exec(compile(tree, "setup.py", "exec"), {"setup": setup, "find_packages": lambda **_: []}, scope)  # noqa: S102
    return {group: dict(entry.split(" = ") for entry in entries) for group, entries in found.items()}


def load(target):
    module, name = target.split(":")
    return getattr(__import__(module, fromlist=[name]), name)


def verb(name):
    return load(entry_points()["ros2ria.verb"][name])()


def run(words):
    """Runs a verb as ros2cli would; exit code, standard output and standard error of this process."""
    extension = verb(words[0])
    parser = argparse.ArgumentParser(prog=f"ros2 ria {words[0]}")
    extension.add_arguments(parser, parser.prog)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = extension.main(args=parser.parse_args(words[1:]))
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()


class Ros2RiaTest(NodeTest):
    def setUp(self):
        super().setUp()
        self.set("ROS_DOMAIN_ID", self.environment["ROS_DOMAIN_ID"])
        self.set("RIA_BINARY", os.environ["RIA_TEST_CLI"])
        self.set("RIA_SOCKET", self.socket("robot-1"))

    def set(self, name, value):
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(os.environ.pop if before is None else os.environ.__setitem__, *([name] if before is None else [name, before]))

    def passed_on(self, *words):
        """What `ria` prints when a verb passes a call on: on the terminal of the command, which is a process here."""
        script = (
            "import sys; sys.path.insert(0, sys.argv.pop(1)); import test_ros2ria as t; "
            "code, out, err = t.run(sys.argv[1:]); sys.stdout.write(out); sys.stderr.write(err); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-B", "-c", script, str(HERE), *words],
            capture_output=True, text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL,
        )
        return done.returncode, done.stdout, done.stderr

    def until(self, words, wanted):
        """Listens again and again until all are heard: how long DDS takes to find others is this machine's business."""
        deadline = time.monotonic() + PATIENCE
        while True:
            code, out, err = run(words)
            if wanted(out):
                return code, out
            self.assertLess(time.monotonic(), deadline, f"{words}: {out}{err}")

    def lab(self):
        made = self.start_agent()
        made.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012 0.25", "clock robot-2 -0.004 0.001")
        return made

    def test_every_verb_and_extension_can_be_loaded_and_explains_itself(self):
        points = entry_points()
        self.assertEqual(set(points["ros2cli.command"]), {"ria", "overlay"})
        self.assertEqual(set(points["ros2ria.verb"]), {"status", "peers", "ping", "join", "leave", "doctor", "watch"})
        for group in points.values():
            for target in group.values():
                self.assertTrue(load(target).__doc__.strip(), target)

    def test_what_concerns_this_machine_is_what_ria_says(self):
        self.lab()
        code, out, _ = self.passed_on("status")
        self.assertEqual((code, out.splitlines()[0].split(":")[0]), (0, "lab works"))
        code, out, _ = self.passed_on("peers", "--json", "--network", "lab")
        peer = json.loads(out)["peers"][0]
        self.assertEqual((code, peer["name"], peer["clock_offset"]), (0, "robot-2", -0.004))
        code, out, _ = self.passed_on("ping", "robot-2", "-c", "2", "--interval", "0.05")
        self.assertEqual(code, 0, out)
        code, out, _ = self.passed_on("doctor", "--json")
        self.assertIn("findings", json.loads(out))
        code, _, err = self.passed_on("leave", "--yes")
        self.assertEqual(code, 0, err)

    def test_without_agent_or_program_the_exit_code_is_that_of_ria_and_the_text_says_what_to_do(self):
        code, _, err = self.passed_on("status")
        self.assertEqual(code, 3, err)
        self.assertIn("agent", err)
        self.set("RIA_BINARY", "/nowhere/ria")
        code, _, err = self.passed_on("status")
        self.assertEqual(code, 3)
        self.assertIn("RIA_BINARY", err)

    def test_joining_renews_the_daemon_and_a_refused_key_does_not(self):
        self.start_agent()
        key = os.path.join(self.folder, "lab.key")
        with open(key, "w", encoding="utf-8") as file:
            file.write("ria1_nonsense")
        for content, code, renewed in (("ria1_nonsense", 2, []), (join_key(), 0, [[]])):
            with open(key, "w", encoding="utf-8") as file:
                file.write(content)
            DAEMON.clear()
            self.assertEqual(run(["join", "--file", key])[0], code)
            self.assertEqual(DAEMON, renewed)
        self.assertIsInstance(verb("join"), JoinVerb)
        self.assertEqual(run(["join"])[0], 2, "a key has to come from somewhere")

    def test_bad_arguments_are_usage_errors(self):
        for words in (["ping", "robot-2", "-c", "0"], ["ping", "robot-2", "--timeout", "nan"], ["watch", "-c", "x"], ["peers", "--wait", "-1"]):
            code, _, err = run(words)
            self.assertEqual(code, 2, words)
            self.assertIn("is no", err)

    def test_all_robots_are_heard_and_a_peer_s_peers_and_pings_from_there(self):
        self.lab()
        other = self.start_agent("robot-2")
        other.say("join robot-2", "interface lo 127.0.0.1/8", "peer robot-1 degraded relay_udp 0.025 0.5", "condition disk warning is full")
        self.start_node("robot-1")
        self.start_node("robot-2")
        statuses = self.statuses()
        for name in ("robot-1", "robot-2"):
            self.wait_for(statuses, lambda m, name=name: m.reporter == name and m.peers_total == 1, f"the status of {name}")
        code, out = self.until(["status", "--all"], lambda out: len(out.splitlines()) == 3)
        lines = out.splitlines()
        self.assertEqual(code, 0, out)
        self.assertRegex(lines[2], r"^robot-2 +lab +up +connected +0 of 1 +127\.0\.0\.1 +disk$")
        _, out = self.until(["status", "--all", "--json"], lambda out: len(json.loads(out)) == 2)
        self.assertEqual([robot["ros_name"] for robot in json.loads(out)], ["robot_1", "robot_2"])
        code, out = self.until(["peers", "--of", "robot_2"], bool)
        self.assertEqual(code, 0)
        self.assertRegex(out, r"robot-2 in lab:\nNAME .*\nrobot-1 .* degraded +relay_udp +25\.0 ms +50\.0 % +-")
        _, out = self.until(["peers", "--of", "robot-1", "--json"], json.loads)
        self.assertEqual(json.loads(out)[0]["peers"][0]["link_state"], "up")
        other.say("peer robot-1 up relay_udp 0.025")
        code, out, _ = run(["ping", "robot-1", "--from", "robot-2", "-c", "2"])
        self.assertEqual(code, 0, out)
        self.assertIn("2 of 2 answered", out)
        code, _, err = run(["ping", "robot-9", "--from", "robot-2", "-c", "1"])
        self.assertEqual(code, 1)
        self.assertTrue(err.strip())

    def test_where_nobody_is_heard_it_says_so(self):
        for words, what in ((["status", "--all", "--wait", "0.5"], "no overlay node"), (["peers", "--of", "robot-9", "--wait", "0.5"], "robot-9")):
            code, _, err = run(words)
            self.assertEqual(code, 5)
            self.assertIn(what, err)

    def test_events_of_all_robots_are_watched(self):
        made = self.lab()
        self.start_node("robot-1")
        self.wait_for(self.statuses(), lambda m: m.peers_total == 1, "the status")
        done = []
        watching = threading.Thread(target=lambda: done.append(run(["watch", "--json", "-c", "1"])))
        watching.start()
        while watching.is_alive():
            made.say("event path robot-2 relay_udp direct 0.4")
            watching.join(0.3)
        code, out, _ = done[0]
        event = json.loads(out)
        self.assertEqual((code, event["robot"], event["kind"], event["peer"], event["after"]), (0, "robot-1", "path", "robot-2", "direct"))

    def test_ros2_doctor_warns_of_what_the_doctor_finds_and_reports_the_networks(self):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = checks.OverlayCheck().check()
        self.assertEqual((result.error, result.warning), (0, 1), "no agent is a warning")
        self.assertEqual(len(told), 1)
        made = self.lab()
        made.say("condition disk warning is full", "peer robot-3 lost")
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            result = checks.OverlayCheck().check()
        texts = [str(warning.message) for warning in told]
        self.assertTrue(any("is full" in text for text in texts), texts)
        self.assertTrue(any(text.startswith("ERROR: overlay: the link to robot-3 is lost") for text in texts), texts)
        self.assertTrue(result.error >= 1 and result.warning >= 1)
        items = dict(checks.OverlayReport().report().items)
        self.assertEqual((items["network"], items["state"], items["peers up"]), ("lab", "up", "1 of 2"))
        self.assertEqual(checks.OverlayCheck().category(), checks.OverlayReport().category())
        self.set("RIA_BINARY", "/nowhere/ria")
        self.assertIn("RIA_BINARY", dict(checks.OverlayReport().report().items)["agent"])


class AgentTest(unittest.TestCase):
    def test_an_answer_that_is_no_json_is_told_as_such(self):
        os.environ["RIA_BINARY"] = "/bin/true"
        self.addCleanup(os.environ.pop, "RIA_BINARY")
        told, problem = agent.ask("status")
        self.assertIsNone(told)
        self.assertIn("another version", problem)


if __name__ == "__main__":
    unittest.main()
