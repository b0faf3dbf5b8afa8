"""The agent on this machine, through its command line: is it there, start it, its name, its DDS environment.

Everything here waits only as long as it is told to, and every error says what to do next.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time

NO_DAEMON = 3
NOT_JOINED = 4

# Capability that the agent needs to make network interfaces; bit of CapEff in /proc/PID/status.
CAP_NET_ADMIN = 12

# Which release's file each ROS 2 release takes.
LIKE = {**dict.fromkeys(("foxy", "galactic", "humble", "iron"), "humble"), "kilted": "kilted", "lyrical": "lyrical", "rolling": "lyrical"}

INSTALL = "install Ria on this machine (its README, \"Install\"), or give the path in the environment variable RIA_BINARY"


class AgentError(Exception):
    """The agent can't do what is wanted; the text says what to do."""


class Agent:
    """The command line of the agent. `program` is for tests."""

    def __init__(self, program=None, environment=None):
        self.environment = dict(os.environ if environment is None else environment)
        self.started = None
        self.program = program or self.environment.get("RIA_BINARY") or shutil.which(
            "ria", path=self.environment.get("PATH")
        )

    def call(self, *arguments, timeout=5.0):
        """Exit code, standard output and standard error of one command. A command that hangs counts as failed."""
        if not self.program:
            raise AgentError(f"the program ria was not found; {INSTALL}")
        try:
            done = subprocess.run(
                [self.program, *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 1, "", f"`ria {arguments[0]}` did not answer within {timeout:g} s; restart the agent"
        except OSError as error:
            raise AgentError(f"{self.program} can't be started: {error.strerror}; {INSTALL}") from error
        return done.returncode, done.stdout, done.stderr.strip()

    def runs(self):
        """Whether an agent answers."""
        return self.call("status", "--json")[0] != NO_DAEMON

    def ros_name(self):
        """The robot's name in ROS: of its network, else the one it would join under, else of its host."""
        try:
            code, output, _ = self.call("status", "--json")
            status = json.loads(output) if code in (0, NOT_JOINED) else {}
        except (AgentError, ValueError):
            status = {}
        for network in status.get("networks") or []:
            if network.get("ros_name"):
                return network["ros_name"]
        suggested = (status.get("agent") or {}).get("suggested_name")
        return ros_name(suggested or socket.gethostname())

    def dds_environment(self, wait):
        """Variables for DDS, as soon as there is a network, within `wait` seconds."""
        deadline = time.monotonic() + wait
        while True:
            left = deadline - time.monotonic()
            code, output, error = self.call("env", "--format", "json", timeout=max(left, 1.0))
            if code == 0:
                return variables(output)
            if time.monotonic() >= deadline:
                raise AgentError(error or f"`ria env` failed with exit code {code}")
            time.sleep(min(0.2, max(deadline - time.monotonic(), 0.0)))

    def kept_environment(self):
        """What the agent has left in its run directory, where that is: while no network is up, and without an agent, the
        files there keep ROS to this machine. What the user has set stays."""
        run = self.environment.get("RIA_RUN_DIR") or "/run/ria"
        release = LIKE.get(self.environment.get("ROS_DISTRO"), "jazzy")
        try:
            with open(os.path.join(run, "dds", f"ros-{release}.env"), encoding="utf-8") as file:
                lines = [line.strip().partition("=") for line in file if not line.startswith("#")]
        except OSError:
            return {}
        return {name: value for name, mark, value in lines if mark and not self.environment.get(name)}

    def start(self, wait, log_level=""):
        """Starts an agent that outlives this process, and waits until it answers."""
        problem = self.may_not_start()
        if problem:
            raise AgentError(problem)
        log = open_log()
        arguments = [self.program, *(["--log-level", log_level] if log_level else []), "daemon"]
        # A session of its own: no signal for this process, its terminal or its group reaches the agent.
        with log:
            process = self.started = subprocess.Popen(
                arguments,
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            if self.runs():
                return process.pid
            if process.poll() is not None:
                # Another one may have been quicker.
                if self.runs():
                    return None
                raise AgentError(f"the agent ended at once (exit code {process.returncode}): {last_line(log.name)}")
            time.sleep(0.1)
        raise AgentError(f"the agent was started, but did not answer within {wait:g} s; its log is {log.name}")

    def may_not_start(self):
        """Why this user may not run an agent; empty when it may."""
        if not self.program:
            return f"the program ria was not found; {INSTALL}"
        if os.geteuid() == 0 or has_capability() or file_has_capability(self.program):
            return ""
        return (
            f"no agent runs, and this user may not start one: start the service (sudo systemctl start ria), or run "
            f"this as root, or let members of the group ria start it (sudo chgrp ria {self.program}; sudo chmod 750 "
            f"{self.program}; sudo setcap cap_net_admin+ep {self.program})"
        )


def variables(text):
    """The object that `ria env --format json` prints."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise AgentError(f"`ria env` printed no JSON ({error}); are ria and ria_bringup of the same version?") from error
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise AgentError("`ria env` printed something else than variables; are ria and ria_bringup of one version?")
    return found


def ros_name(name):
    """A host or node name as a name in ROS."""
    label = name.split(".")[0].lower()
    label = re.sub(r"_+", "_", re.sub(r"[^a-z0-9_]", "_", label)).strip("_")
    if not label:
        return "robot"
    return label if label[0].isalpha() else f"robot_{label}"


def is_true(text):
    """A launch argument as a truth value; anything unclear is an error."""
    value = str(text).strip().lower()
    if value in ("true", "1", "yes", "on"):
        return True
    if value in ("false", "0", "no", "off"):
        return False
    raise AgentError(f'"{text}" is neither true nor false')


def seconds(text, name):
    """A launch argument as a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 3600:
        raise AgentError(f'{name} must be from 0 to 3600 seconds, not "{text}"')
    return value


def has_capability():
    """Whether this process may make network interfaces."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            effective = next(line.split()[1] for line in status if line.startswith("CapEff:"))
    except (OSError, StopIteration):
        return False
    return bool(int(effective, 16) >> CAP_NET_ADMIN & 1)


def file_has_capability(program):
    """Whether the program brings the capability, and this user may run it."""
    try:
        return os.access(program, os.X_OK) and bool(os.getxattr(program, "security.capability"))
    except OSError:
        return False


def open_log():
    """Where an agent started here writes what it has to say."""
    home = os.environ.get("ROS_LOG_DIR") or os.path.join(os.environ.get("ROS_HOME") or os.path.expanduser("~/.ros"), "log")
    os.makedirs(home, exist_ok=True)
    return open(os.path.join(home, "ria-agent.log"), "a", encoding="utf-8")


def last_line(path):
    """The end of a log, for an error message."""
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            lines = [line.strip() for line in log if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else f"it said nothing; its log is {path}"
