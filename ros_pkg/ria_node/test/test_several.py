"""What a robot may have other than usual: several networks, names of its own for node and topics, simulated time."""

from diagnostic_msgs.msg import DiagnosticArray
from harness import LATCHED, NodeTest
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import GetParameters
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ria_msgs.msg import Event, LinkStats, PeerArray, Status
from ria_msgs.srv import GetStatus
from rosgraph_msgs.msg import Clock


def by_network(messages):
    """The last message of each network."""
    return {message.network: message for message in messages}


class SeveralNetworksTest(NodeTest):
    def start(self, **parameters):
        """A robot in the networks lab and yard, with peers that only one of them has."""
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012", "peer robot-3 lost",
                  "join crane-1 yard", "interface lo 127.0.0.1/8", "peer gate up relay_udp 0.025")
        self.start_node(**parameters)
        return agent

    def test_each_has_its_messages_also_for_who_comes_late(self):
        self.start(publish_period=60.0)
        statuses, arrays = self.statuses(), self.peer_arrays()
        self.wait_for(arrays, lambda m: len(by_network(arrays)) == 2, "the peers of both networks")
        self.wait_for(statuses, lambda m: len(by_network(statuses)) == 2, "the status of both networks")
        for messages in (arrays, self.peer_arrays()):
            self.wait_for(messages, lambda m: len(by_network(messages)) == 2, "both, latched", 5.0)
            told = {name: (m.reporter, [peer.name for peer in m.peers]) for name, m in by_network(messages).items()}
            self.assertEqual(told, {"lab": ("robot-1", ["robot-2", "robot-3"]), "yard": ("crane-1", ["gate"])})
            self.assertEqual(len({m.network_id for m in messages}), 2)
        told = {name: (m.reporter, m.state, m.peers_up, m.peers_total) for name, m in by_network(statuses).items()}
        self.assertEqual(told, {"lab": ("robot-1", Status.STATE_UP, 1, 2), "yard": ("crane-1", Status.STATE_UP, 1, 1)})

    def test_events_links_and_diagnostics_say_which(self):
        events, diagnostics = self.events(), self.diagnostics()
        stats = self.listen(LinkStats, "/overlay/link_stats", QoSProfile(depth=20, reliability=ReliabilityPolicy.BEST_EFFORT))
        agent = self.start()
        told = self.wait_for(diagnostics, lambda m: len(m.status) == 8, "diagnostics of both")
        of_lab = [f"lab: {part}" for part in ("network", "coordinator", "peer robot-2", "peer robot-3")]
        of_yard = [f"yard: {part}" for part in ("network", "coordinator", "peer gate")]
        names = {status.name.removeprefix("robot_1/overlay: ") for status in told.status}
        self.assertEqual(names, {"agent", *of_lab, *of_yard})
        self.wait_for(stats, lambda m: len(by_network(stats)) == 2, "the links of both")
        self.assertEqual([link.name for link in by_network(stats)["yard"].links], ["gate"])
        for network, reporter in (("lab", "robot-1"), ("yard", "crane-1")):
            agent.say(f"network {network}", "event map - 1 2")
            event = self.wait_for(events, lambda m, network=network: m.network == network, f"an event of {network}")
            self.assertEqual((event.kind, event.reporter), (Event.KIND_MAP, reporter))

    def test_one_that_is_left_takes_its_peers_along(self):
        agent = self.start(publish_period=60.0)
        arrays = self.peer_arrays()
        self.wait_for(arrays, lambda m: len(by_network(arrays)) == 2, "the peers of both networks")
        # The first of them: the other one moves to its publisher.
        for left, there in (("lab", ["gate"]), ("yard", [])):
            arrays.clear()
            agent.say(f"network {left}", "leave")
            self.wait_for(arrays, lambda m, left=left: m.network == left and not m.peers, f"that {left} has no peers any more")
            self.wait_for(arrays, lambda m, there=there: m.network != left and [p.name for p in m.peers] == there, "the rest")
            late = self.peer_arrays()
            self.wait_for(late, lambda m: True, "a latched message", 5.0)
            self.spin(0.5)
            self.assertEqual([[peer.name for peer in m.peers] for m in late], [there])


class NamesTest(NodeTest):
    def test_node_namespace_and_topics_are_as_remapped(self):
        rules = ("__node:=net", "__ns:=/fleet/robot_1", "/overlay/peers:=/fleet/peers", "/diagnostics:=/fleet/diagnostics")
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012")
        statuses, moved, usual = self.statuses(), self.listen(PeerArray, "/fleet/peers", LATCHED), self.peer_arrays()
        diagnostics = self.listen(DiagnosticArray, "/fleet/diagnostics", QoSProfile(depth=10))
        logs = self.listen(Log, "/rosout", LATCHED)
        self.start_node(arguments=[word for rule in rules for word in ("-r", rule)])
        self.wait_for(moved, lambda m: len(m.peers) == 1, "peers on the other topic")
        self.wait_for(diagnostics, lambda m: len(m.status) == 4, "diagnostics on the other topic")
        self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "the status where it always is")
        self.wait_for(logs, lambda m: m.name == "fleet.robot_1.net", "a line of its logger")
        self.assertIn(("net", "/fleet/robot_1"), self.node.get_node_names_and_namespaces())
        self.assertEqual(usual, [], "nothing is published under the name before")
        self.assertEqual(self.call(GetStatus, "/fleet/robot_1/net/get_status").statuses[0].network, "lab")
        request = GetParameters.Request(names=["publish_period"])
        (value,) = self.call(GetParameters, "/fleet/robot_1/net/get_parameters", request).values
        self.assertEqual(value.double_value, 1.0)
        self.assertEqual({name for name in self.services() if "/overlay/" in name}, set())


class SimulatedTimeTest(NodeTest):
    def wait_for_stamp(self, messages, seconds, what):
        """Plays the simulator until something has this stamp."""
        clock = Clock()
        clock.clock.sec = seconds
        for _ in range(300):
            self.clock.publish(clock)
            self.spin(0.1)
            if any(m.header.stamp.sec == seconds for m in messages):
                return
        self.fail(f"no {what} at {seconds} s; the last: {messages[-1:]}\n{self.outputs()}")

    def test_stamps_are_of_the_clock_topic_and_periods_of_real_time(self):
        self.clock = self.node.create_publisher(Clock, "/clock", QoSProfile(depth=1))
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012")
        statuses, arrays, events, diagnostics = self.statuses(), self.peer_arrays(), self.events(), self.diagnostics()
        self.start_node(use_sim_time="true")
        for seconds in (1234, 5678):
            for messages, what in ((statuses, "status"), (arrays, "peers"), (diagnostics, "diagnostics")):
                self.wait_for_stamp(messages, seconds, what)
        # The simulation stands still; the network below is real.
        statuses.clear()
        agent.say("event map - 1 2")
        event = self.wait_for(events, lambda m: m.kind == Event.KIND_MAP, "the event")
        self.assertEqual(event.header.stamp.sec, 5678)
        self.wait_for(statuses, lambda m: len(statuses) >= 2, "the status again and again")
        self.assertEqual({m.header.stamp.sec for m in statuses}, {5678})
