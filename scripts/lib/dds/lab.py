"""A lab with a coordinator, agents and real DDS, as the tests and the benchmark of DDS use it.

Environment: RIA_ROS_DIR (default .ria-env/ros), RIA_BIN_DIR (default target/debug), RIA_CYCLONE (a Python with Cyclone
DDS; without it one is made below .ria-env), RIA_ENV_DIR.
"""

import contextlib
import itertools
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
ENV = pathlib.Path(os.environ.get("RIA_ENV_DIR", ROOT / ".ria-env"))
ROS = pathlib.Path(os.environ.get("RIA_ROS_DIR", ENV / "ros"))
BIN = pathlib.Path(os.environ.get("RIA_BIN_DIR", pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"))
HERE = ROOT / "scripts/lib"
COORDINATOR = "198.51.100.2"

WITH_ENV = 'source "$1"; eval "$("$2" env)"; shift 2; exec "$@"'
PLAIN = 'source "$1"; shift; exec "$@"'
NUMBERS = itertools.count(1)


class Failed(Exception):
    """Something is not as it must be."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def check(holds, text):
    if not holds:
        raise Failed(text)


def missing_parts():
    """What must have been built and is not there."""
    return [path for path in (BIN / "ria", BIN / "ria-coordinator", BIN / "netlab", ROS / "setup.sh") if not path.exists()]


class Lab:
    """Networks and hosts from a description (netlab's), programs in them, and their end."""

    def __init__(self, work, description="campus"):
        self.name, self.work, self.children = f"dds-{os.getpid()}-{next(NUMBERS)}", work, []
        self.lab = self.start([BIN / "netlab", "up", description, "--name", self.name], self.name, stdin=subprocess.PIPE)
        said = work / f"{self.name}.log"
        self.wait("the lab is ready", lambda: self.lab.poll() is not None or said.read_text())
        check(self.lab.poll() is None, f"there is no lab: {said.read_text()}")

    def start(self, line, log, **options):
        with open(self.work / f"{log}.log", "ab") as file:
            options = {"stdin": subprocess.DEVNULL, "stdout": file, "stderr": file, **options}
            child = subprocess.Popen([str(word) for word in line], **options)
        self.children.append(child)
        return child

    def line(self, host, command):
        return [str(word) for word in [BIN / "netlab", "exec", self.name, host, "--", *command]]

    def spawn(self, host, command, log, **options):
        return self.start(self.line(host, command), log, **options)

    def run(self, host, command, timeout=120):
        return subprocess.run(self.line(host, command), capture_output=True, text=True, timeout=timeout, check=False)

    def output(self, host, command):
        done = self.run(host, command)
        check(done.returncode == 0, f"{host}: {' '.join(map(str, command))}: {done.stderr or done.stdout}")
        return done.stdout

    def wait(self, what, is_so, limit=60):
        end = time.monotonic() + limit
        while not is_so():
            check(time.monotonic() < end, f"not so within {limit} s: {what}")
            time.sleep(0.1)

    def set_link(self, host, *settings):
        line = [BIN / "netlab", "set", self.name, host, *settings]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        check(done.returncode == 0, f"netlab set {host} {settings}: {done.stderr}")

    def fragments(self, host):
        """How many IP fragments a host has made since its start."""
        lines = [line.split() for line in self.output(host, ["cat", "/proc/net/snmp"]).splitlines()]
        names, values = [line for line in lines if line[0] == "Ip:"]
        return int(values[names.index("FragCreates")])

    def end(self):
        for child in reversed(self.children):
            if child.stdin:
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.close()
            child.terminate() if child is not self.lab else None
        for child in self.children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end()


class Site(Lab):
    """A lab with the coordinator on its host of that name, and agents on others."""

    def __init__(self, work, description="campus"):
        super().__init__(work, description)
        self.agents = {}
        try:
            serve = [BIN / "ria-coordinator", "serve", "--public-url", f"https://{COORDINATOR}"]
            self.spawn("coordinator", serve, "coordinator")
            list_networks = [BIN / "ria-coordinator", "network", "list"]
            self.wait("the coordinator answers", lambda: self.run("coordinator", list_networks).returncode == 0)
            self.key = self.new_key()
        except BaseException:
            self.end()
            raise

    def admin(self, *arguments):
        return self.output("coordinator", [BIN / "ria-coordinator", *arguments])

    def new_key(self, *options):
        """A file with a join key."""
        file = self.work / f"join-{next(NUMBERS)}.key"
        file.touch(mode=0o600)
        file.write_text(self.admin("key", "create", "--reusable", *options))
        return file

    def ria(self, host, *arguments):
        return self.output(host, [BIN / "ria", *arguments])

    def join(self, *hosts, config=None, key=None):
        """Starts agents that join, or that are members already; their processes are in `agents`."""
        for host in hosts:
            options = ["--join-file", key or self.key] + (["--config", config] if config else [])
            self.agents[host] = self.spawn(host, [BIN / "ria", "daemon", *options], f"{host}-agent")
        self.wait("the agents answer", lambda: all(self.run(h, [BIN / "ria", "status"]).returncode == 0 for h in hosts))

    def peers(self, host, count):
        self.ria(host, "wait", "--peers", str(count), "--timeout", "60")

    def network(self, host):
        return json.loads(self.ria(host, "status", "--json"))["networks"][0]

    def drops(self, host):
        return self.network(host)["drops"]

    def memory(self, host):
        """What a host's agent occupies, in MiB."""
        pids = [self.agents[host].pid]
        while pathlib.Path(f"/proc/{pids[0]}/comm").read_text() != "ria\n":
            pids = pathlib.Path(f"/proc/{pids[0]}/task/{pids[0]}/children").read_text().split()
        status = pathlib.Path(f"/proc/{pids[0]}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def address(self, host):
        return self.network(host)["addresses"][0].split("/")[0]

    def seen(self, host, peer):
        peers = json.loads(self.ria(host, "peers", "--json"))["peers"]
        return next(p["participants_seen"] for p in peers if p["name"] == peer)


def ros(*command):
    """A command with ROS 2 and the DDS settings that Ria gives."""
    return ["bash", "-c", WITH_ENV, "ros", ROS / "setup.sh", BIN / "ria", *command]


def plain_ros(*command, **variables):
    """A command with ROS 2 and the variables given, without Ria's settings."""
    return ["env", *(f"{name}={value}" for name, value in variables.items()), "bash", "-c", PLAIN, "ros", ROS / "setup.sh", *command]


def python_with(name, *packages, **variables):
    """A Python with packages, in an environment of its own; variables are for their building."""
    python = ENV / name / "bin/python"
    if not (ENV / name / "ready").exists():
        subprocess.run(["/usr/bin/python3", "-m", "venv", ENV / name], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages]
        environment = {**os.environ, **variables}
        subprocess.run([str(word) for word in install], check=True, stdout=sys.stderr, stderr=sys.stderr, env=environment)
        (ENV / name / "ready").touch()
    return python


def cyclone_python():
    """A Python with Cyclone DDS 11 from its wheel."""
    return os.environ.get("RIA_CYCLONE") or python_with("cyclone", "cyclonedds==11.0.1")


def old_cyclone_python():
    """A Python with Cyclone DDS 0.10: there is no wheel, so it is built on Debian's library (package cyclonedds-dev)."""
    home = ENV / "cyclone-0.10-home"
    home.mkdir(exist_ok=True)
    library = sysconfig.get_config_var("MULTIARCH")
    for name, target in (("include", "/usr/include"), ("lib", f"/usr/lib/{library}"), ("bin", "/usr/bin")):
        if not (home / name).exists():
            (home / name).symlink_to(target)
    return python_with("cyclone-0.10", "cyclonedds==0.10.2", CYCLONEDDS_HOME=str(home))


def cyclone(*arguments, release="lyrical"):
    """Cyclone 11, which takes the file for it as ROS 2 Lyrical does, or 0.10, as in Humble to Kilted."""
    environment = f'export ROS_DISTRO={release}; eval "$("$1" env)"; shift; exec "$@"'
    python = cyclone_python() if release == "lyrical" else old_cyclone_python()
    return ["bash", "-c", environment, "cyclone", BIN / "ria", python, HERE / "dds/cyclone.py", *arguments]


def fast_dds_2_9(*arguments):
    """Fast DDS 2.9 as Debian has it (package libfastrtps-dev), which takes the file for it as ROS 2 Humble does."""
    source, program = HERE / "dds/fast_dds_2_9.cpp", ENV / "fast-dds-2.9/chatter"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        build = ["g++", "-std=c++17", "-O1", "-o", program, source, "-lfastrtps", "-lfastcdr"]
        subprocess.run([str(word) for word in build], check=True, stdout=sys.stderr, stderr=sys.stderr)
    environment = 'export ROS_DISTRO=humble; eval "$("$1" env)"; shift; exec "$@"'
    return ["bash", "-c", environment, "fast-dds", BIN / "ria", program, *arguments]


def release(name, *packages):
    """A release of ROS 2 in a Python environment of its own, with the settings that Ria gives it, or none (plain): wraps scripts."""

    def wrap(script, *arguments, plain=False):
        python = python_with(name, f"ros-{name}-rclpy[fastrtps]", *(f"ros-{name}-{package}" for package in packages), "numpy")
        prefix = ENV / name
        libraries = ":".join(map(str, [prefix / "lib", *prefix.glob("lib/python3.*/site-packages/ros_*.libs")]))
        environment = 'shift; exec "$@"' if plain else 'eval "$("$1" env)"; shift; exec "$@"'
        variables = [f"ROS_DISTRO={name}", f"AMENT_PREFIX_PATH={prefix}", f"LD_LIBRARY_PATH={libraries}"]
        return ["env", *variables, "bash", "-c", environment, name, BIN / "ria", python, script, *arguments]

    return wrap


# Fast DDS 3.
kilted = release("kilted", "std-msgs")
# With an action, which the environment of Ria's own packages has no need of.
jazzy = release("jazzy", "std-msgs", "std-srvs", "geometry-msgs", "test-msgs")


def with_mode(lab, text):
    """A file with this section [dds]."""
    config = lab.work / f"agent-{next(NUMBERS)}.toml"
    config.write_text(f"[dds]\n{text}\n")
    return config


def heard(lab, host, command):
    """Runs a listener; gives after how many seconds it heard the first message."""
    done = lab.run(host, command)
    check(done.returncode == 0, f"{host} heard nothing: {done.stdout} {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])["first_after_s"]


class Participants:
    """Participants on a host, whose graph is watched."""

    def __init__(self, lab, host, count, expected, wrap=ros):
        command = wrap("python3", HERE / "dds/participants.py", host.replace("-", "_"), count, expected)
        self.log = lab.work / f"{host}-participants.jsonl"
        with open(self.log, "wb") as file:
            self.child = lab.spawn(host, command, f"{host}-ros", stdin=subprocess.PIPE, stdout=file)

    def said(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def end(self):
        self.child.stdin.close()
        self.child.wait(30)

    def kill(self):
        self.child.kill()
        self.child.wait(30)


class Presence:
    """A process that is there and hears who else is (presence.py), with ROS 2 or with Cyclone."""

    def __init__(self, lab, host, name, command):
        self.name, self.log = name, lab.work / f"{name}.jsonl"
        with open(self.log, "wb") as file:
            self.child = lab.spawn(host, command, name, stdin=subprocess.PIPE, stdout=file)
        self.lab = lab

    def heard(self):
        """How often each other has been heard since the last question."""
        told = len(self.log.read_text().splitlines())
        check(self.child.poll() is None, f"{self.name} has ended with {self.child.poll()}")
        self.child.stdin.write(b"\n")
        self.child.stdin.flush()
        self.lab.wait(f"{self.name} answers", lambda: self.child.poll() is not None or len(self.log.read_text().splitlines()) > told)
        check(self.child.poll() is None, f"{self.name} has ended")
        return json.loads(self.log.read_text().splitlines()[-1])

    def end(self):
        self.child.stdin.close()
        self.child.wait(30)


def ros_presence(lab, host, name, wrap=ros):
    return Presence(lab, host, name, wrap("python3", HERE / "dds/presence.py", name) if wrap is ros else wrap(HERE / "dds/presence.py", name))


def cyclone_presence(lab, host, name, release="lyrical", domain=0):
    return Presence(lab, host, name, ["env", f"ROS_DOMAIN_ID={domain}", *cyclone("presence", name, release=release)])


def watch(lab, hosts, seconds):
    """What went over the interfaces of hosts meanwhile (watch.py)."""
    line = [sys.executable, HERE / "dds/watch.py", seconds]
    watched = [subprocess.Popen(lab.line(host, line), stdout=subprocess.PIPE, text=True) for host in hosts]
    return [json.loads(child.communicate()[0]) for child in watched]
