"""The node as a managed one, beside a stock node of rclpy: states, transitions, and what they do and do not do."""

from harness import NodeTest
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableStates, GetAvailableTransitions, GetState
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from ria_msgs.msg import Status
from ria_msgs.srv import GetStatus, Ping

OURS = "/robot_1/overlay"


def described(answer):
    return [
        (t.transition.id, t.transition.label, t.start_state.id, t.start_state.label, t.goal_state.id, t.goal_state.label)
        for t in answer.available_transitions
    ]


class Managed:
    """A managed node, seen from outside."""

    def __init__(self, test, name):
        self.test, self.name = test, name
        self.events = test.listen(TransitionEvent, f"{name}/transition_event", QoSProfile(depth=10))

    def state(self):
        state = self.test.call(GetState, f"{self.name}/get_state").current_state
        return state.id, state.label

    def states(self):
        answer = self.test.call(GetAvailableStates, f"{self.name}/get_available_states")
        return [(state.id, state.label) for state in answer.available_states]

    def transitions(self, service="get_available_transitions"):
        return described(self.test.call(GetAvailableTransitions, f"{self.name}/{service}"))

    def change(self, number=0, label=""):
        request = ChangeState.Request(transition=Transition(id=number, label=label))
        return self.test.call(ChangeState, f"{self.name}/change_state", request).success

    def change_and_tell(self, number=0, label=""):
        """All that can be seen of a change."""
        self.events.clear()
        success = self.change(number, label)
        self.test.wait_for(self.events, lambda _: len(self.events) == 2, "two transition events")
        events = [(e.start_state.id, e.start_state.label, e.goal_state.id, e.goal_state.label) for e in self.events]
        return success, self.state(), self.transitions(), events


class LifecycleTest(NodeTest):
    def managed(self, **parameters):
        self.start_node(**parameters)
        return Managed(self, OURS)

    def test_it_is_managed_as_a_stock_node_is(self):
        stock = LifecycleNode("stock", context=self.context)
        self.executor.add_node(stock)
        both = [Managed(self, "/stock"), self.managed(autostart="false")]
        # Nobody who listens may miss an event.
        for node in both:
            while self.node.count_publishers(f"{node.name}/transition_event") == 0:
                self.spin(0.05)
        for what in (Managed.state, Managed.states, Managed.transitions, lambda n: n.transitions("get_transition_graph")):
            expected, got = (what(node) for node in both)
            self.assertEqual(got, expected)
        ways = [(1, ""), (3, ""), (4, ""), (2, ""), (0, "configure"), (0, "activate"), (0, "deactivate"), (6, "")]
        for number, label in ways:
            expected, got = (node.change_and_tell(number, label) for node in both)
            self.assertEqual(got, expected, (number, label))
        self.assertEqual(both[1].state(), (State.PRIMARY_STATE_FINALIZED, "finalized"))
        names = {"change_state", "get_state", "get_available_states", "get_available_transitions", "get_transition_graph"}
        kinds = {name: kind for name, kind in self.node.get_service_names_and_types() if name.rsplit("/", 1)[1] in names}
        for name in names:
            self.assertEqual(kinds[f"{OURS}/{name}"], kinds[f"/stock/{name}"])
        stock.destroy_node()

    def test_what_is_out_of_order_is_refused_and_changes_nothing(self):
        node = self.managed(autostart="false")
        wrong = [(Transition.TRANSITION_ACTIVATE, ""), (Transition.TRANSITION_ACTIVE_SHUTDOWN, ""), (0, "deactivate"),
                 (Transition.TRANSITION_ON_CONFIGURE_SUCCESS, ""), (1, "nonsense"), (255, ""), (0, "")]
        for number, label in wrong:
            self.assertFalse(node.change(number, label), (number, label))
        self.assertEqual((node.state(), node.events), ((1, "unconfigured"), []))
        self.assertIn("there are: configure, shutdown", self.output())
        self.assertTrue(node.change(label="shutdown"))
        self.assertFalse(node.change(label="configure"))
        self.assertEqual(node.state(), (4, "finalized"))

    def test_by_itself_it_is_active_and_otherwise_silent_until_it_is_activated(self):
        self.start_agent().say("join robot-1", "interface lo 127.0.0.1/8")
        statuses, diagnostics = self.statuses(), self.diagnostics()
        process = self.start_node()
        self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "UP")
        self.assertEqual(Managed(self, OURS).state(), (3, "active"))
        self.end(process)
        statuses.clear()
        diagnostics.clear()
        node = self.managed(autostart="false", publish_period=60.0)
        self.assertEqual(node.state(), (1, "unconfigured"))
        self.assertTrue(node.change(label="configure"))
        self.assertEqual(self.call(GetStatus, f"{OURS}/get_status").statuses[0].state, Status.STATE_UP)
        self.spin(1.5)
        self.assertEqual((statuses, diagnostics), ([], []))
        self.assertTrue(node.change(label="activate"))
        self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "UP at once, not after publish_period")
        self.wait_for(diagnostics, lambda m: True, "diagnostics")

    def test_deactivating_stops_what_is_published_and_touches_nothing_else(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012")
        arrays, events, diagnostics = self.peer_arrays(), self.events(), self.diagnostics()
        node = self.managed(publish_period=0.5, diagnostics_period=0.2)
        self.wait_for(arrays, lambda m: len(m.peers) == 1, "peers")
        self.assertTrue(node.change(label="deactivate"))
        self.spin(0.5)
        for messages in (arrays, events, diagnostics):
            messages.clear()
        agent.say("peer robot-3 up direct 0.01", "event path robot-2 relay_udp direct 0.4")
        self.spin(2.0)
        self.assertEqual((arrays, events, diagnostics), ([], [], []))
        # Whatever it is told: the agent's network is up, and the peer answers.
        for label in ("cleanup", "configure", "shutdown"):
            self.assertTrue(node.change(label=label))
            status, = self.call(GetStatus, f"{OURS}/get_status").statuses
            self.assertEqual((status.state, status.peers_up), (Status.STATE_UP, 2), label)
            answer = self.call(Ping, f"{OURS}/ping", Ping.Request(peer="robot-2", count=1))
            self.assertEqual(answer.received, 1, (label, answer))
        self.assertIsNone(agent.process.poll())
