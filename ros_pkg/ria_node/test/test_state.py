"""Status, peers, events and diagnostics, with an agent that comes, changes and goes."""

import pathlib
import re
import signal
import time

import yaml
from diagnostic_msgs.msg import DiagnosticStatus
from harness import LATCHED, NodeTest
from rcl_interfaces.msg import Log
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ria_msgs.msg import Event, LinkStats, Peer, PeerArray, Status
from ria_msgs.srv import Leave


GROUPS = pathlib.Path(__file__).resolve().parents[2] / "ria_bringup/config/diagnostics.yaml"


def groups_of(name):
    """The groups of the aggregator's configuration that take a part of the diagnostics; it matches whole names, too."""
    parameters = yaml.safe_load(GROUPS.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    groups = {group: analyzer["regex"] for group, analyzer in parameters.items() if isinstance(analyzer, dict)}
    return [group for group, patterns in groups.items() if any(re.fullmatch(p, name) for p in patterns)]


class StateTest(NodeTest):
    def test_without_an_agent_it_says_so_and_recovers_when_one_comes(self):
        statuses, events, diagnostics = self.statuses(), self.events(), self.diagnostics()
        logs = self.listen(Log, "/rosout", LATCHED)
        self.start_node()
        status = self.wait_for(statuses, lambda m: m.state == Status.STATE_NO_AGENT, "NO_AGENT")
        self.assertEqual([c.code for c in status.conditions], ["agent-not-running"])
        self.assertIn("start", status.conditions[0].text)
        self.wait_for(logs, lambda m: m.name == "robot_1.overlay" and "is not running" in m.msg, "a line on /rosout")
        sick = self.wait_for(diagnostics, lambda m: m.status[0].level == DiagnosticStatus.ERROR, "an ERROR")
        self.assertTrue(sick.status[0].name.endswith("/overlay: agent"), sick)

        agent = self.start_agent()
        self.wait_for(statuses, lambda m: m.state == Status.STATE_NOT_JOINED, "NOT_JOINED")
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012 0.25")
        status = self.wait_for(statuses, lambda m: m.state == Status.STATE_UP and m.peers_up == 1, "UP")
        self.assertEqual((status.reporter, status.ros_name, status.network), ("robot-1", "robot_1", "lab"))
        self.assertEqual((status.coordinator, status.conditions), (Status.COORDINATOR_CONNECTED, []))
        self.assertEqual(status.host_name, "robot-1.lab.ria.internal")
        self.assertGreater(status.certificate_expires.sec, time.time())
        healthy = self.wait_for(diagnostics, lambda m: len(m.status) == 4, "diagnostics of a peer")
        names = [part.name for part in healthy.status]
        self.assertEqual(names[3], "robot_1/overlay: peer robot-2")
        self.assertEqual([groups_of(name) for name in names], [["agents"], ["networks"], ["coordinators"], ["peers"]])
        several = [f"robot_1/overlay: lab: {part}" for part in ("network", "coordinator", "peer robot-2")]
        self.assertEqual([groups_of(name) for name in several], [["networks"], ["coordinators"], ["peers"]])
        self.assertEqual(groups_of("camera/overlay: driver"), [])

        agent.stop()
        status = self.wait_for(statuses[-1:], lambda m: m.state == Status.STATE_UP, "the state before")
        gone = self.listen_again(statuses)
        status = self.wait_for(gone, lambda m: m.state == Status.STATE_NO_AGENT, "NO_AGENT after UP")
        self.assertEqual(status.reporter, "robot-1", "a robot keeps its name when its agent goes")
        self.wait_for(events, lambda m: m.kind == Event.KIND_AGENT and m.after == Status.STATE_NO_AGENT, "an event")
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8")
        again = self.listen_again(statuses)
        self.wait_for(again, lambda m: m.state == Status.STATE_UP, "UP again")

    def listen_again(self, messages):
        messages.clear()
        return messages

    def test_a_late_subscriber_gets_the_latched_peers(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up relay_udp 0.025")
        self.start_node(publish_period=60.0)
        first = self.peer_arrays()
        self.wait_for(first, lambda m: len(m.peers) == 1, "peers")
        self.spin(1.0)
        late = self.peer_arrays()
        message = self.wait_for(late, lambda m: True, "the latched message", 3.0)
        (peer,) = message.peers
        self.assertEqual((message.reporter, message.network, message.header.frame_id), ("robot-1", "lab", ""))
        self.assertEqual((peer.name, peer.ros_name, list(peer.addresses)[0]), ("robot-2", "robot_2", "10.213.0.2"))
        self.assertEqual((peer.link_state, peer.path), (Peer.LINK_STATE_UP, Peer.PATH_RELAY_UDP))
        self.assertAlmostEqual(peer.rtt, 0.025, places=5)
        self.assertNotEqual(peer.loss, peer.loss, "unknown is NaN")

    def late_arrays(self):
        """What a subscriber that comes now gets, and until a while later."""
        late = self.peer_arrays()
        self.wait_for(late, lambda m: True, "the latched message", 5.0)
        self.spin(0.5)
        return late

    def test_who_comes_after_a_network_was_left_or_the_agent_has_gone_gets_no_peers(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012")
        arrays = self.peer_arrays()
        self.start_node(publish_period=60.0, allow_control="true")
        self.wait_for(arrays, lambda m: len(m.peers) == 1, "peers")
        arrays.clear()
        self.assertTrue(self.call(Leave, "/robot_1/overlay/leave", Leave.Request(network="lab")).result.success)
        left = self.wait_for(arrays, lambda m: m.network == "lab" and not m.peers, "that the network's peers have gone")
        self.assertEqual(left.reporter, "robot-1")
        self.wait_for(arrays, lambda m: not m.network_id, "the peers of no network")
        for message in self.late_arrays():
            self.assertEqual((message.reporter, message.network, list(message.peers)), ("robot-1", "", []))

        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012")
        self.wait_for(arrays, lambda m: len(m.peers) == 1, "peers again")
        arrays.clear()
        agent.stop()
        self.wait_for(arrays, lambda m: m.network == "lab" and not m.peers, "that no peers are known")
        self.wait_for(arrays, lambda m: not m.network_id, "the peers of no network")
        for message in self.late_arrays():
            self.assertEqual((message.reporter, message.network, list(message.peers)), ("robot-1", "", []))

    def test_no_peers_are_repeated_like_others(self):
        self.start_agent()
        arrays = self.peer_arrays()
        self.start_node(publish_period=0.5)
        for _ in range(3):
            self.wait_for(arrays, lambda m: not m.peers and not m.network_id, "no peers")
            arrays.clear()

    def test_the_log_topic_gets_what_the_logger_s_level_lets_through(self):
        levels = (("all-1", ("--log-level", "warn")), ("own-1", ("--log-level", "own_1.overlay:=error")), ("usual-1", ()))
        logs, statuses = self.listen(Log, "/rosout", LATCHED), self.statuses()
        for name, arguments in levels:
            self.start_node(name, arguments=arguments)
        lines = lambda name: [m for m in logs if m.name == f"{name.replace('-', '_')}.overlay"]
        for name, _ in levels:
            self.wait_for(logs, lambda m, name=name: m in lines(name) and "is not running" in m.msg, f"an error of {name}")
        for name, _ in levels:
            self.start_agent(name).say(f"join {name}", "interface lo 127.0.0.1/8")
        for name, _ in levels:
            self.wait_for(statuses, lambda m, name=name: m.reporter == name and m.state == Status.STATE_UP, f"{name} UP")
        # All of them have said so to their log by then.
        self.wait_for(logs, lambda m: m in lines("usual-1") and m.level == 20 and "is there" in m.msg, "a line of the usual level")
        self.spin(0.5)
        for name, _ in levels[:2]:
            self.assertEqual([m.msg for m in lines(name) if m.level < 30], [], name)

    def test_changes_come_at_once_but_at_most_twice_a_second(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.01")
        self.start_node(publish_period=60.0)
        arrays = self.peer_arrays()
        self.wait_for(arrays, lambda m: len(m.peers) == 1, "peers")
        self.spin(0.7)
        agent.say("peer robot-2 lost")
        # The patience is far shorter than publish_period.
        self.wait_for(arrays, lambda m: m.peers and m.peers[0].link_state == Peer.LINK_STATE_LOST, "LOST")
        self.spin(0.7)
        arrays.clear()
        began, count = time.monotonic(), 2
        while time.monotonic() - began < 2.0:
            count += 1
            agent.say(f"peer robot-{count} up")
            self.spin(0.03)
        self.wait_for(arrays, lambda m: len(m.peers) == count - 1, "the last change")
        took = time.monotonic() - began
        self.assertTrue(2 <= len(arrays) <= 2 * took + 2, f"{len(arrays)} messages in {took} s of changes")

    def test_events_carry_typed_values(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8")
        statuses, events = self.statuses(), self.events()
        self.start_node()
        self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "UP")
        agent.say("event path robot-2 relay_udp direct 0.4")
        event = self.wait_for(events, lambda m: m.kind == Event.KIND_PATH, "the event")
        self.assertEqual((event.before, event.after), (Peer.PATH_RELAY_UDP, Peer.PATH_DIRECT))
        self.assertEqual((event.reporter, event.network, event.peer, event.seq), ("robot-1", "lab", "robot-2", 1))
        self.assertAlmostEqual(event.gap, 0.4, places=5)
        kinds = {"ros_clash": Event.KIND_ROS_CLASH, "denied": Event.KIND_DENIED, "key": Event.KIND_KEY}
        for word, kind in kinds.items():
            agent.say(f"event {word} robot-2 - tcp/22")
            event = self.wait_for(events, lambda m, word=word: m.kind_name == word, f"the event {word}")
            self.assertEqual((event.kind, event.peer, event.after_text), (kind, "robot-2", "tcp/22"))

    def test_clocks_that_are_apart_are_told_and_a_warning_beyond_the_threshold(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012", "clock robot-2 -0.25 0.003")
        arrays = self.listen(PeerArray, "/overlay/peers", LATCHED)
        diagnostics = self.diagnostics()
        self.start_node()
        peer = self.wait_for(arrays, lambda m: len(m.peers) == 1, "peers").peers[0]
        self.assertAlmostEqual(peer.clock_offset, -0.25, places=5)
        self.assertAlmostEqual(peer.clock_offset_stddev, 0.003 / 3 ** 0.5, places=6)
        self.assertIn(("clock offset error [s]", "0.003000"), [(detail.key, detail.value) for detail in peer.details])
        warned = self.wait_for(diagnostics, lambda m: len(m.status) == 4 and m.status[3].level == DiagnosticStatus.WARN, "a warning")
        self.assertIn("0.250 s behind", warned.status[3].message)
        agent.say("clock robot-2 0.01 0.003")
        self.listen_again(diagnostics)
        self.wait_for(diagnostics, lambda m: m.status[3].level == DiagnosticStatus.OK, "clocks that agree well enough")

    def test_the_threshold_for_clocks_is_a_parameter(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012", "clock robot-2 0.25 0.003")
        diagnostics = self.diagnostics()
        self.start_node(clock_offset_warning=1.0)
        told = self.wait_for(diagnostics, lambda m: len(m.status) == 4 and m.status[3].values, "a peer")
        self.assertEqual(told.status[3].level, DiagnosticStatus.OK)

    def test_fast_numbers_of_links_have_rates(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-3 up direct 0.004", "peer robot-2 up relay_udp 0.025 0.5")
        stats = self.listen(LinkStats, "/overlay/link_stats", QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT))
        self.start_node(publish_period=60.0, link_stats_period=0.2)
        first = self.wait_for(stats, lambda m: len(m.links) == 2, "link statistics")
        self.assertEqual((first.reporter, first.network), ("robot-1", "lab"))
        self.assertEqual([(link.name, link.path) for link in first.links],
                         [("robot-2", Peer.PATH_RELAY_UDP), ("robot-3", Peer.PATH_DIRECT)])
        self.assertAlmostEqual(first.links[0].rtt, 0.025, places=5)
        self.assertNotEqual(first.links[0].rtt_deviation, first.links[0].rtt_deviation, "unknown is NaN")
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 2.0:
            sent += 5000
            agent.say(f"traffic robot-2 {2 * sent} {sent}")
            self.spin(0.1)
        # 50 kB/s and twice that, as well as this loop keeps its time.
        busy = self.wait_for(stats, lambda m: m.links[0].tx_rate > 0, "a rate")
        self.assertTrue(0 < busy.links[0].tx_rate < 500_000 and busy.links[0].rx_rate > busy.links[0].tx_rate, busy)
        self.assertEqual(busy.links[1].rx_rate, 0.0)
        last = self.wait_for(stats, lambda m: m.links[0].tx_bytes == sent, "the last count")
        self.assertEqual((last.links[0].rx_packets, last.links[0].tx_packets), (sent // 500, sent // 1000))
        seconds = stats[-1].header.stamp.sec - stats[0].header.stamp.sec + 1
        self.assertLess(len(stats), seconds / 0.2 * 1.5 + 3, "more often than asked for")

    def test_two_robots_share_the_topics(self):
        for name in ("robot-1", "robot-2"):
            self.start_agent(name).say(f"join {name}", "interface lo 127.0.0.1/8")
            self.start_node(name)
        statuses = self.statuses()
        for name in ("robot-1", "robot-2"):
            self.wait_for(statuses, lambda m, name=name: m.reporter == name, f"the status of {name}")

    def test_a_killed_node_leaves_the_agent_alone_and_the_next_one_brings_the_topics_back(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8")
        arrays, count = self.peer_arrays(), 1
        # Into its start, its first messages, and the quiet after them.
        for delay in (0.0, 0.05, 0.2, 0.7):
            process = self.start_node()
            self.spin(delay)
            self.end(process, signal.SIGKILL)
            self.assertIsNone(agent.process.poll(), "the agent ended with the node")
        process = self.start_node()
        for how in (signal.SIGKILL, signal.SIGKILL):
            arrays.clear()
            count += 1
            agent.say(f"peer robot-{count} up direct 0.01")
            self.wait_for(arrays, lambda m: len(m.peers) == count - 1, "what changed meanwhile")
            self.end(process, how)
            process = self.start_node()
        self.wait_for(self.statuses(), lambda m: m.state == Status.STATE_UP, "the status of the last one")

    def test_a_signal_ends_it_well_and_quickly(self):
        for how in (signal.SIGINT, signal.SIGTERM):
            statuses = self.statuses()
            process = self.start_node()
            self.wait_for(statuses, lambda m: True, "a status")
            began = time.monotonic()
            self.assertEqual(self.end(process, how), 0, self.outputs())
            self.assertLess(time.monotonic() - began, 10.0)
