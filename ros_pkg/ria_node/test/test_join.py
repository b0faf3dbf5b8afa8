"""Joining by a key file at start."""

import os

from harness import NodeTest, join_key
from ria_msgs.msg import Status


class JoinTest(NodeTest):
    def key_file(self, text):
        path = os.path.join(self.folder, "lab.key")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def test_the_node_hands_its_key_file_to_the_agent(self):
        self.start_agent()
        statuses = self.statuses()
        self.start_node(join_key_file=self.key_file(join_key() + "\n"))
        status = self.wait_for(statuses, lambda m: m.state == Status.STATE_UP, "UP")
        self.assertEqual((status.network, status.conditions), ("lab", []))
        self.assertIn("joined the network lab as robot-1", self.output())

    def test_a_bad_key_is_a_condition_that_says_what_is_wrong_and_the_node_stays(self):
        self.start_agent()
        statuses = self.statuses()
        process = self.start_node(join_key_file=self.key_file(join_key()[:-3]))
        status = self.wait_for(statuses, lambda m: m.conditions, "a condition")
        (condition,) = status.conditions
        self.assertEqual((status.state, condition.code), (Status.STATE_NOT_JOINED, "join-key-invalid"))
        self.assertIn("damaged", condition.text)
        self.spin(1.0)
        self.assertIsNone(process.poll())

    def test_a_key_file_that_comes_later_is_found(self):
        self.start_agent()
        statuses = self.statuses()
        path = os.path.join(self.folder, "lab.key")
        self.start_node(join_key_file=path)
        status = self.wait_for(statuses, lambda m: m.conditions, "a condition")
        self.assertIn(path, status.conditions[0].text)
        self.key_file(join_key())
        self.wait_for(statuses, lambda m: m.state == Status.STATE_UP and not m.conditions, "UP")
