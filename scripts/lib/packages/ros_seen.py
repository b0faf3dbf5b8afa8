"""Looks for Ria's ROS packages as a program of ROS 2 does, below /opt/ros; ends with what is not as it should be."""

import importlib
import importlib.metadata
import pathlib
import sys

from ament_index_python.packages import get_package_prefix
from ament_index_python.resources import get_resource
from rclpy.type_support import check_for_type_support

PREFIX = pathlib.Path("/opt/ros/jazzy")
PACKAGES = ("ria_msgs", "ria_node", "ria_bringup", "ros2ria")


def must(holds, text):
    if not holds:
        sys.exit(text)


def interfaces():
    """Every message, service and action of the index: its definition is there, and Python can send it."""
    count = 0
    for line in get_resource("rosidl_interfaces", "ria_msgs")[0].splitlines():
        must((PREFIX / "share/ria_msgs" / line).is_file(), f"the index names {line}, which is not there")
        path = pathlib.PurePath(line)
        if path.suffix in (".msg", ".srv", ".action"):
            module = importlib.import_module(f"ria_msgs.{path.parent}")
            must(pathlib.Path(module.__file__).is_relative_to(PREFIX), f"{module.__file__} is another one")
            check_for_type_support(getattr(module, path.stem))
            count += 1
    must(count > 10, f"there are {count} interfaces only")
    return count


def launch_files():
    """They are Python, and what they import of ours can be imported."""
    files = sorted((PREFIX / "share/ria_bringup/launch").glob("*.launch.py"))
    must(len(files) == 2, f"launch files: {files}")
    for file in files:
        compile(file.read_text(), file, "exec")
    for name in ("overlay", "overlay_env"):
        importlib.import_module(f"ria_bringup.{name}")


def commands():
    """What ros2cli and ros2doctor look for."""
    points = importlib.metadata.entry_points()
    verbs = {point.name for point in points.select(group="ros2ria.verb")}
    must({"status", "peers", "ping", "doctor", "watch", "join", "leave"} <= verbs, f"verbs: {verbs}")
    for group, name in (("ros2cli.command", "ria"), ("ros2cli.command", "overlay"), ("ros2doctor.checks", "OverlayCheck")):
        found = [point for point in points.select(group=group) if point.name == name]
        must(len(found) == 1, f"{name} is registered {len(found)} times in {group}")
        file = importlib.util.find_spec(found[0].module.split(".")[0]).origin
        must(pathlib.Path(file).is_relative_to(PREFIX), f"{name} is {file}")


def main():
    for package in PACKAGES:
        must(get_package_prefix(package) == str(PREFIX), f"{package} is found in {get_package_prefix(package)}")
    count = interfaces()
    launch_files()
    commands()
    print(f"{len(PACKAGES)} packages, {count} interfaces")


if __name__ == "__main__":
    main()
