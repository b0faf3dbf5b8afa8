"""Services and parameters."""

import os
import shutil

from harness import NodeTest, join_key
from rcl_interfaces.msg import ParameterEvent, ParameterType, ParameterValue
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from ria_msgs.msg import CallResult, NetworkReport, Peer, Status
from ria_msgs.srv import GetPeer, GetStatus, Join, Leave, Netcheck, Ping, SetEnabled
from rclpy.qos import QoSProfile


class ServicesTest(NodeTest):
    def test_one_ping_acts_on_one_robot(self):
        for name, peer in (("robot-1", "robot-3"), ("robot-2", "robot-4")):
            agent = self.start_agent(name)
            agent.say(f"join {name}", "interface lo 127.0.0.1/8", f"peer {peer} up direct 0.012")
            self.start_node(name)
        answer = self.call(Ping, "/robot_1/overlay/ping", Ping.Request(peer="robot-3", count=4))
        self.assertTrue(answer.result.success, answer)
        self.assertEqual((answer.reporter, answer.network, answer.sent, answer.received), ("robot-1", "lab", 4, 4))
        self.assertEqual([(p.seq, p.ok, p.path) for p in answer.probes], [(n, True, Peer.PATH_DIRECT) for n in (1, 2, 3, 4)])
        self.assertAlmostEqual(answer.rtt_mean, 0.012, places=5)
        stranger = self.call(Ping, "/robot_2/overlay/ping", Ping.Request(peer="robot-3"))
        self.assertEqual((stranger.result.success, stranger.result.error), (False, "NoSuchPeer"))

    def test_what_goes_wrong_with_a_ping_is_told(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 lost")
        self.start_node()
        ping = "/robot_1/overlay/ping"
        silent = self.call(Ping, ping, Ping.Request(peer="robot-2", count=2, timeout=0.1))
        self.assertEqual((silent.result.code, silent.sent, silent.received), (CallResult.TIMED_OUT, 2, 0))
        self.assertNotEqual(silent.rtt_mean, silent.rtt_mean)
        self.assertEqual(self.call(Ping, ping, Ping.Request(peer="robot-2", count=5000)).result.code, CallResult.INVALID)
        self.assertEqual(self.call(Ping, ping, Ping.Request()).result.code, CallResult.INVALID)
        wrong = self.call(Ping, ping, Ping.Request(peer="robot-2", network="field"))
        self.assertEqual((wrong.result.error, "lab" in wrong.result.message), ("NoSuchNetwork", True))
        agent.stop()
        self.wait_for(self.statuses(), lambda m: m.state == Status.STATE_NO_AGENT, "NO_AGENT")
        self.assertEqual(self.call(Ping, ping, Ping.Request(peer="robot-2")).result.code, CallResult.NO_AGENT)

    def test_a_netcheck_is_answered_and_its_report_stays_in_the_status(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8")
        agent.say("report udp=yes mapping=address_and_port_dependent filtering=address_dependent isolation=yes portal=no relay=0.012 finding=client-isolation")
        self.start_node()
        statuses = self.statuses()
        self.wait_for(statuses, lambda m: m.report.stamp.sec == 0 and m.report.udp_port == 41820, "nothing measured")
        answer = self.call(Netcheck, "/robot_1/overlay/netcheck")
        self.assertEqual((answer.result.success, answer.reporter), (True, "robot-1"), answer)
        report = answer.report
        self.assertEqual((report.udp, report.captive_portal, report.ipv6),
                         (NetworkReport.ANSWER_YES, NetworkReport.ANSWER_NO, NetworkReport.ANSWER_UNKNOWN))
        self.assertEqual((report.nat, report.relays), (NetworkReport.NAT_ENDPOINT_DEPENDENT, ["coordinator"]))
        self.assertEqual((report.filtering, report.client_isolation, report.hairpin),
                         (NetworkReport.FILTERING_ADDRESS_DEPENDENT, NetworkReport.ANSWER_YES, NetworkReport.ANSWER_UNKNOWN))
        self.assertAlmostEqual(report.relay_rtts[0], 0.012, places=5)
        self.assertEqual([f.code for f in answer.findings], ["client-isolation"])
        self.wait_for(statuses, lambda m: m.report.stamp.sec > 0 and m.report.udp == NetworkReport.ANSWER_YES, "the report")
        bad = self.call(Netcheck, "/robot_1/overlay/netcheck", Netcheck.Request(timeout=-1.0))
        self.assertEqual(bad.result.code, CallResult.INVALID)

    def test_a_peer_and_the_status_are_asked_for(self):
        agent = self.start_agent()
        agent.say("join robot-1", "interface lo 127.0.0.1/8", "peer robot-2 up direct 0.012")
        self.start_node()
        for name in ("robot-2", "robot_2", "10.213.0.2"):
            answer = self.call(GetPeer, "/robot_1/overlay/get_peer", GetPeer.Request(peer=name))
            self.assertEqual((answer.result.success, answer.peer.name), (True, "robot-2"), answer)
        answer = self.call(GetPeer, "/robot_1/overlay/get_peer", GetPeer.Request(peer="robot-9"))
        self.assertEqual((answer.result.success, answer.result.error), (False, "NoSuchPeer"))
        (status,) = self.call(GetStatus, "/robot_1/overlay/get_status").statuses
        self.assertEqual((status.state, status.network, status.peers_up), (Status.STATE_UP, "lab", 1))

    def test_nothing_can_be_changed_unless_it_was_allowed_at_start(self):
        self.start_agent()
        self.start_node()
        self.call(GetStatus, "/robot_1/overlay/get_status")
        offered = self.services()
        self.assertTrue({f"/robot_1/overlay/{n}" for n in ("ping", "netcheck", "get_peer", "get_status")} <= offered)
        self.assertFalse({f"/robot_1/overlay/{n}" for n in ("join", "leave", "set_enabled")} & offered)

    def test_allowed_control_changes_the_agent_but_reads_no_foreign_files(self):
        self.start_agent().say("join robot-1", "interface lo 127.0.0.1/8")
        self.start_node(allow_control="true")
        off = self.call(SetEnabled, "/robot_1/overlay/set_enabled", SetEnabled.Request(enabled=False))
        self.assertEqual((off.result.success, off.state), (True, Status.STATE_DISABLED), off)
        self.assertEqual(self.call(Leave, "/robot_1/overlay/leave").result.code, CallResult.INVALID)
        self.assertTrue(self.call(Leave, "/robot_1/overlay/leave", Leave.Request(network="lab")).result.success)
        self.wait_for(self.statuses(), lambda m: m.state == Status.STATE_NOT_JOINED, "NOT_JOINED")
        for path in ("/etc/shadow", "../shadow", ""):
            answer = self.call(Join, "/robot_1/overlay/join", Join.Request(key_file=path))
            self.assertEqual(answer.result.code, CallResult.INVALID, path)


    def test_a_key_below_its_folder_joins_and_a_link_out_of_it_does_not(self):
        self.start_agent()
        self.start_node(allow_control="true")
        outside = os.path.join(self.folder, "outside.key")
        with open(outside, "w", encoding="utf-8") as file:
            file.write(join_key() + "\n")
        os.symlink(outside, "/etc/ria/keys/link.key")
        linked = self.call(Join, "/robot_1/overlay/join", Join.Request(key_file="link.key"))
        self.assertEqual((linked.result.code, "link" in linked.result.message), (CallResult.FAILED, True), linked)
        shutil.copy(outside, "/etc/ria/keys/lab.key")
        for asked, already in (("lab.key", False), ("/etc/ria/keys/lab.key", True)):
            joined = self.call(Join, "/robot_1/overlay/join", Join.Request(key_file=asked, name="robot-9"))
            self.assertEqual((joined.result.success, joined.name, joined.already), (True, "robot-9", already), joined)
        on = self.call(SetEnabled, "/robot_1/overlay/set_enabled", SetEnabled.Request(network="lab", enabled=True))
        self.assertEqual((on.result.success, on.state), (True, Status.STATE_UP), on)


class ParametersTest(NodeTest):
    def set(self, name, **value):
        parameter = ParameterMessage(name=name, value=ParameterValue(**value))
        request = SetParameters.Request(parameters=[parameter])
        (result,) = self.call(SetParameters, "/robot_1/overlay/set_parameters", request).results
        return result

    def period(self):
        request = GetParameters.Request(names=["publish_period"])
        (value,) = self.call(GetParameters, "/robot_1/overlay/get_parameters", request).values
        return value.double_value

    def test_ranges_are_described_and_bad_values_refused_with_a_reason(self):
        self.start_node(publish_period=2.0)
        names = self.call(ListParameters, "/robot_1/overlay/list_parameters").result.names
        request = DescribeParameters.Request(names=names)
        described = self.call(DescribeParameters, "/robot_1/overlay/describe_parameters", request).descriptors
        by_name = {d.name: d for d in described}
        (span,) = by_name["publish_period"].floating_point_range
        self.assertEqual((span.from_value, span.to_value), (0.5, 60.0))
        self.assertTrue(all(d.description and d.type != ParameterType.PARAMETER_NOT_SET for d in described), described)
        read_only = {name for name, d in by_name.items() if d.read_only}
        self.assertEqual(read_only, {"agent_socket", "allow_control", "autostart", "join_key_file", "use_sim_time"})

        events = self.listen(ParameterEvent, "/parameter_events", QoSProfile(depth=10))
        refused = self.set("publish_period", type=ParameterType.PARAMETER_DOUBLE, double_value=0.0)
        self.assertEqual((refused.successful, "from 0.5 to 60" in refused.reason), (False, True), refused)
        refused = self.set("allow_control", type=ParameterType.PARAMETER_BOOL, bool_value=True)
        self.assertEqual((refused.successful, "read only" in refused.reason), (False, True), refused)
        self.assertEqual(self.period(), 2.0)
        self.assertTrue(self.set("publish_period", type=ParameterType.PARAMETER_DOUBLE, double_value=5.0).successful)
        self.assertEqual(self.period(), 5.0)
        event = self.wait_for(events, lambda m: m.changed_parameters, "/parameter_events")
        self.assertEqual((event.node, event.changed_parameters[0].name), ("/robot_1/overlay", "publish_period"))

    def test_a_start_with_bad_parameters_fails_and_names_all_of_them(self):
        process = self.start_node(publish_period=0.0, join_key_file="ria1_thisisasecret")
        self.assertEqual(process.wait(10), 1)
        for part in ("publish_period must be from 0.5 to 60", "never a join key"):
            self.assertIn(part, self.output())
        self.assertNotIn("thisisasecret", self.output())

    def test_a_parameter_file_is_read(self):
        file = os.path.join(self.folder, "overlay.yaml")
        with open(file, "w", encoding="utf-8") as text:
            text.write("/**:\n  ros__parameters:\n    publish_period: 3.5\n    camera_rate: 30\n")
        self.start_node(wrapper=["sh", "-c", f'exec "$@" --params-file {file}', "sh"])
        self.assertEqual(self.period(), 3.5)
