"""Other robots, by what their overlay nodes publish on the ROS graph: status, peers, events, pings from there."""

import contextlib
import json
import math
import sys
import time

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ria_msgs.msg import Event, Peer, PeerArray, Status
from ria_msgs.srv import Ping

LATCHED = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EVENTS = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)

FAILED = 1
TIMED_OUT = 5

NOBODY = (
    "no overlay node was heard: start one on each robot (ros2 launch ria_bringup overlay.launch.py), and look with "
    "`ros2 ria doctor` whether this shell has the overlay's settings"
)


def constants(message, prefix):
    """Names of a message's constants by their numbers, in small letters."""
    names = [name for name in dir(message) if name.startswith(prefix)]
    return {getattr(message, name): name[len(prefix):].lower() for name in names}


STATES = constants(Status, "STATE_")
COORDINATORS = constants(Status, "COORDINATOR_")
LINKS = constants(Peer, "LINK_STATE_")
PATHS = constants(Peer, "PATH_")
SEVERITIES = constants(Event, "SEVERITY_")


@contextlib.contextmanager
def node():
    """A node for the time of a command, and what spins it until a moment."""
    context = rclpy.Context()
    rclpy.init(context=context)
    try:
        made = rclpy.create_node(f"ros2ria_{int(time.monotonic() * 1e3) % 1_000_000}", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(made)

        def spin(until):
            while not until() and context.ok():
                executor.spin_once(timeout_sec=0.05)

        yield made, spin
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown(context=context)


def latest(kind, topic, seconds):
    """The last message of each robot and network, of those that come within so many seconds."""
    found = {}

    def take(message):
        found[(message.reporter_id or message.reporter, message.network_id)] = message

    with node() as (made, spin):
        made.create_subscription(kind, topic, take, LATCHED)
        deadline = time.monotonic() + seconds
        spin(lambda: time.monotonic() >= deadline)
    return sorted(found.values(), key=lambda message: (message.reporter, message.network))


def table(header, rows):
    """Prints rows below a header in columns."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def number(value, factor=1.0, unit=""):
    """A number for people; unknown ones are NaN."""
    return "-" if math.isnan(value) else f"{value * factor:.1f}{unit}"


def known(value):
    """A number for JSON, which has no NaN."""
    return None if math.isnan(value) else value


def show_statuses(seconds, as_json):
    """What each robot reports of itself; an exit code."""
    statuses = latest(Status, "/overlay/status", seconds)
    if as_json:
        print(json.dumps([status_in_json(status) for status in statuses], indent=2))
    elif statuses:
        rows = [
            (
                status.reporter,
                status.network or "-",
                STATES.get(status.state, "unknown"),
                COORDINATORS.get(status.coordinator, "unknown"),
                f"{status.peers_up} of {status.peers_total}",
                (status.addresses or ["-"])[0].split("/")[0],
                "; ".join(condition.code for condition in status.conditions) or "-",
            )
            for status in statuses
        ]
        table(("ROBOT", "NETWORK", "STATE", "COORDINATOR", "PEERS UP", "ADDRESS", "CONDITIONS"), rows)
    if not statuses:
        print(NOBODY, file=sys.stderr)
    return 0 if statuses else TIMED_OUT


def status_in_json(status):
    """One robot's status."""
    return {
        "robot": status.reporter,
        "ros_name": status.ros_name,
        "network": status.network,
        "state": STATES.get(status.state, "unknown"),
        "coordinator": COORDINATORS.get(status.coordinator, "unknown"),
        "peers_up": status.peers_up,
        "peers_total": status.peers_total,
        "addresses": list(status.addresses),
        "conditions": [{"code": condition.code, "text": condition.text} for condition in status.conditions],
    }


def show_peers(robot, seconds, as_json):
    """The peers of another robot as that one sees them; an exit code."""
    arrays = [a for a in latest(PeerArray, "/overlay/peers", seconds) if is_named(a.reporter, robot)]
    if as_json:
        print(json.dumps([peers_in_json(array) for array in arrays], indent=2))
    for array in [] if as_json else arrays:
        if not array.network:
            print(f"{array.reporter} is in no network, or its agent is not there: ros2 ria status --all")
            continue
        print(f"{array.reporter} in {array.network}:")
        rows = [
            (
                peer.name,
                (peer.addresses or ["-"])[0],
                LINKS.get(peer.link_state, "unknown"),
                PATHS.get(peer.path, "unknown"),
                number(peer.rtt, 1e3, " ms"),
                number(peer.loss, 100.0, " %"),
                number(peer.clock_offset, 1e3, " ms"),
            )
            for peer in array.peers
        ]
        table(("NAME", "ADDRESS", "STATE", "PATH", "RTT", "LOSS", "CLOCK"), rows)
    if not arrays:
        print(f"no overlay node of {robot} was heard; `ros2 ria status --all` lists those that are", file=sys.stderr)
    return 0 if arrays else TIMED_OUT


def peers_in_json(array):
    """One robot's view of its peers."""
    peers = [
        {
            "name": peer.name,
            "addresses": list(peer.addresses),
            "link_state": LINKS.get(peer.link_state, "unknown"),
            "path": PATHS.get(peer.path, "unknown"),
            "rtt": known(peer.rtt),
            "loss": known(peer.loss),
            "clock_offset": known(peer.clock_offset),
        }
        for peer in array.peers
    ]
    return {"robot": array.reporter, "network": array.network, "peers": peers}


def is_named(name, wanted):
    """Whether a robot is meant, by its name or by its name in ROS."""
    return wanted.lstrip("/") in (name, name.replace("-", "_"))


def ping_from(robot, request, patience):
    """Has another robot's node ping; an exit code."""
    service = f"/{robot.lstrip('/').replace('-', '_')}/overlay/ping"
    with node() as (made, spin):
        client = made.create_client(Ping, service)
        deadline = time.monotonic() + patience
        spin(lambda: client.service_is_ready() or time.monotonic() >= deadline)
        if not client.service_is_ready():
            print(f"there is no service {service}; does the overlay node run on {robot}?", file=sys.stderr)
            return TIMED_OUT
        answer = client.call_async(request)
        deadline = time.monotonic() + patience + request.count * (request.interval + request.timeout)
        spin(lambda: answer.done() or time.monotonic() >= deadline)
        if not answer.done():
            print(f"{robot} took the request and did not answer", file=sys.stderr)
            return TIMED_OUT
        return show_ping(answer.result(), request.peer)
    return FAILED


def show_ping(answer, peer):
    """Each probe and a summary."""
    for probe in answer.probes:
        way = f"{PATHS.get(probe.path, 'unknown')} {probe.endpoint}".rstrip()
        told = f"{number(probe.rtt, 1e3, ' ms')} by {way}" if probe.ok else "no answer"
        print(f"{answer.reporter} -> {peer}: {probe.seq}: {told}")
    if answer.sent:
        print(f"{answer.received} of {answer.sent} answered, mean {number(answer.rtt_mean, 1e3, ' ms')}")
    if not answer.result.success:
        print(answer.result.message, file=sys.stderr)
    return answer.result.code


def watch(count, as_json):
    """Prints the events of all robots as they come; an exit code."""
    seen = 0

    def tell(event):
        nonlocal seen
        seen += 1
        if count and seen > count:
            return
        stamp = event.header.stamp.sec + event.header.stamp.nanosec * 1e-9
        if as_json:
            line = {
                "time": stamp,
                "robot": event.reporter,
                "network": event.network,
                "severity": SEVERITIES.get(event.severity, "unknown"),
                "kind": event.kind_name,
                "peer": event.peer,
                "before": event.before_text,
                "after": event.after_text,
                "gap": known(event.gap),
                "text": event.text,
            }
            print(json.dumps(line), flush=True)
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(stamp))
            print(f"{clock} {event.reporter}: {event.text}", flush=True)

    with node() as (made, spin):
        made.create_subscription(Event, "/overlay/events", tell, EVENTS)
        spin(lambda: bool(count) and seen >= count)
    return 0
