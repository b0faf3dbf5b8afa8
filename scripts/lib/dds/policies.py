"""Prints which policies publishers got that were made with profiles of ROS 2, as JSON: policies.py"""

import json
import time

import rclpy
from rclpy.qos import (
    QoSProfile,
    qos_profile_action_status_default,
    qos_profile_parameter_events,
    qos_profile_sensor_data,
    qos_profile_services_default,
    qos_profile_system_default,
)
from std_msgs.msg import String

PROFILES = {
    "system_default": qos_profile_system_default,
    "sensor_data": qos_profile_sensor_data,
    "services_default": qos_profile_services_default,
    "parameter_events": qos_profile_parameter_events,
    "action_status_default": qos_profile_action_status_default,
    "depth": QoSProfile(depth=3),
}


def main():
    rclpy.init()
    node = rclpy.create_node("policies")
    publishers = {name: node.create_publisher(String, f"of_{name}", profile) for name, profile in PROFILES.items()}
    got = {}
    while not all(got.get(name) for name in publishers):
        time.sleep(0.1)
        got = {name: node.get_publishers_info_by_topic(f"/of_{name}") for name in publishers}
    print(json.dumps({name: str(info[0].qos_profile) for name, info in got.items()}))


if __name__ == "__main__":
    main()
