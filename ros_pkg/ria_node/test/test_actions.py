"""The actions: feedback, results, goals that are cancelled or can't be reached."""

import time

from action_msgs.msg import GoalStatus
from harness import PATIENCE, NodeTest, join_key
from rclpy.action import ActionClient
from ria_msgs.action import Join, Netcheck
from ria_msgs.msg import CallResult, NetworkReport, Status


class Goal:
    """A goal that was sent."""

    def __init__(self, test, kind, name, goal):
        self.test, self.feedback = test, []
        self.client = ActionClient(test.node, kind, name)
        test.addCleanup(self.client.destroy)
        self.wait(lambda: self.client.server_is_ready(), f"the action {name}")
        sent = self.client.send_goal_async(goal, feedback_callback=lambda message: self.feedback.append(message.feedback))
        self.wait(sent.done, "an answer to the goal")
        self.handle = sent.result()
        if self.handle.accepted:
            self.answer = self.handle.get_result_async()

    def wait(self, is_so, what):
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            self.test.assertLess(time.monotonic(), deadline, f"{what} did not come\n{self.test.outputs()}")
            self.test.executor.spin_once(timeout_sec=0.05)

    def wait_for_feedback(self, wanted):
        return self.test.wait_for(self.feedback, wanted, "feedback")

    def end(self):
        self.wait(self.answer.done, "the result")
        return self.answer.result().status, self.answer.result().result

    def cancel(self):
        cancelled = self.handle.cancel_goal_async()
        self.wait(cancelled.done, "an answer to the cancelling")
        self.test.assertEqual(len(cancelled.result().goals_canceling), 1)


class ActionsTest(NodeTest):
    def key(self):
        with open("/etc/ria/keys/lab.key", "w", encoding="utf-8") as file:
            file.write(join_key() + "\n")

    def actions(self):
        return {name.removesuffix("/_action/send_goal") for name in self.services() if name.endswith("/_action/send_goal")}

    def test_a_measurement_tells_that_it_goes_on_and_gives_the_report(self):
        self.start_agent().say("join robot-1", "interface lo 127.0.0.1/8", "report udp=yes isolation=yes", "slow 1.5")
        self.start_node()
        goal = Goal(self, Netcheck, "/robot_1/overlay/netcheck", Netcheck.Goal())
        status, result = goal.end()
        self.assertEqual((status, result.result.success, result.reporter), (GoalStatus.STATUS_SUCCEEDED, True, "robot-1"))
        self.assertEqual((result.report.udp, result.report.client_isolation), (NetworkReport.ANSWER_YES,) * 2)
        times = [feedback.elapsed for feedback in goal.feedback]
        self.assertTrue(len(times) >= 2 and times == sorted(times) and 0.4 < times[0] < 2.0, times)
        bad = Goal(self, Netcheck, "/robot_1/overlay/netcheck", Netcheck.Goal(network="nowhere"))
        status, result = bad.end()
        self.assertEqual((status, result.result.error), (GoalStatus.STATUS_ABORTED, "NoSuchNetwork"))
        self.assertIn("/robot_1/overlay/netcheck", self.actions())
        self.assertNotIn("/robot_1/overlay/join", self.actions(), "control was not allowed")

    def test_cancelling_half_way_ends_the_waiting_and_the_node_goes_on(self):
        self.start_agent().say("join robot-1", "interface lo 127.0.0.1/8", "slow 60")
        self.start_node()
        goals = [Goal(self, Netcheck, "/robot_1/overlay/netcheck", Netcheck.Goal()) for _ in range(2)]
        goals[0].wait_for_feedback(lambda feedback: True)
        goals[0].cancel()
        status, result = goals[0].end()
        self.assertEqual((status, result.result.error), (GoalStatus.STATUS_CANCELED, "Cancelled"))
        before = len(goals[1].feedback)
        goals[1].wait(lambda: len(goals[1].feedback) > before, "feedback of the other goal")
        goals[1].cancel()
        self.assertEqual(goals[1].end()[0], GoalStatus.STATUS_CANCELED)

    def test_more_goals_than_there_is_room_for_are_refused(self):
        self.start_agent().say("join robot-1", "interface lo 127.0.0.1/8", "slow 60")
        self.start_node()
        goals = [Goal(self, Netcheck, "/robot_1/overlay/netcheck", Netcheck.Goal()) for _ in range(9)]
        self.assertEqual([goal.handle.accepted for goal in goals], [True] * 8 + [False])

    def test_a_join_waits_for_the_administrator_and_says_what_that_one_has_to_type(self):
        agent = self.start_agent()
        agent.say("approval")
        self.key()
        self.start_node(allow_control="true")
        goal = Goal(self, Join, "/robot_1/overlay/join", Join.Goal(key_file="lab.key", name="robot-9"))
        waiting = goal.wait_for_feedback(lambda feedback: feedback.state == Status.STATE_WAITING)
        self.assertIn("ria-coordinator node approve ab12-cd34", waiting.text)
        self.assertEqual(goal.feedback[0].state, Status.STATE_JOINING)
        agent.say("interface lo 127.0.0.1/8", "state up")
        status, result = goal.end()
        self.assertEqual((status, result.result.code), (GoalStatus.STATUS_SUCCEEDED, CallResult.DONE), result)
        self.assertEqual((result.network, result.name, result.already), ("lab", "robot-9", False))

    def test_a_join_that_nobody_wants_to_wait_for_or_that_is_refused(self):
        agent = self.start_agent()
        agent.say("approval")
        self.key()
        self.start_node(allow_control="true")
        goal = Goal(self, Join, "/robot_1/overlay/join", Join.Goal(key_file="../shadow"))
        self.assertEqual((goal.end()[0], goal.end()[1].result.code), (GoalStatus.STATUS_ABORTED, CallResult.INVALID))
        goal = Goal(self, Join, "/robot_1/overlay/join", Join.Goal(key_file="lab.key"))
        goal.wait_for_feedback(lambda feedback: feedback.state == Status.STATE_WAITING)
        goal.cancel()
        self.assertEqual(goal.end()[0], GoalStatus.STATUS_CANCELED)
        self.wait_for(self.statuses(), lambda m: m.state == Status.STATE_WAITING, "the request is still there")
        agent.say("leave", "approval")
        goal = Goal(self, Join, "/robot_1/overlay/join", Join.Goal(key_file="lab.key"))
        goal.wait_for_feedback(lambda feedback: feedback.state == Status.STATE_WAITING)
        agent.say("condition join-refused error the administrator said no", "state refused")
        status, result = goal.end()
        self.assertEqual((status, result.result.code), (GoalStatus.STATUS_ABORTED, CallResult.REFUSED), result)
        self.assertIn("said no", result.result.message)
