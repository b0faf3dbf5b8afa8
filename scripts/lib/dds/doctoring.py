"""The case of the doctor: it names what is wrong, each thing with a process that has it."""

import json
import time

from lab import BIN, HERE, ROS, Site, check, plain_ros, ros, say


def doctor(lab, figures):
    """The doctor names what is wrong with ROS processes, and finds nothing when they are started again as it says."""
    talker = HERE / "demo/talker.py"

    def ask(site, *options):
        done = site.run("robot-b", [BIN / "ria", "doctor", "--json", *options])
        check(done.returncode in (0, 1), f"ria doctor: {done.returncode} {done.stderr}")
        report = json.loads(done.stdout)
        check(report["ok"] == (done.returncode == 0), f"exit code {done.returncode} of {report}")
        return report, {finding["code"] for finding in report["findings"] if finding["severity"] != "info"}

    def settled(*command):
        """With the settings that `ria env` gives, by the script, which needs no agent."""
        return ["bash", "-c", 'source "$1"; source /run/ria/dds/ros.sh; shift; exec "$@"', "ros", ROS / "setup.sh", *command]

    def named(report, code):
        return any(f["code"] == code and "talker.py" in f["text"] for f in report["findings"])

    with Site(lab.work) as site:
        site.join("robot-a")
        early = site.spawn("robot-b", plain_ros("python3", talker, "robot-b"), "talker")
        time.sleep(2)  # It has made its participant.
        check(site.run("robot-b", [BIN / "ria", "doctor"]).returncode == 3, "there is a doctor without an agent")
        site.join("robot-b")
        site.peers("robot-b", 1)
        report, _ = ask(site)
        check(named(report, "older-than-interface") and "restart talker.py" in report["next"], f"not named: {report}")
        early.kill()
        deaf = site.spawn("robot-b", plain_ros("python3", talker, "robot-b"), "talker")
        site.wait("the talker without settings is found", lambda: named(ask(site)[0], "environment"))
        deaf.kill()
        alone = ["env", "ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST", *ros("python3", talker, "robot-b")]
        alone = site.spawn("robot-b", alone, "talker")
        site.wait("the talker that keeps to itself is found", lambda: named(ask(site)[0], "range"))
        alone.kill()
        # Each in its robot's namespace: two nodes with one name would be a finding, too.
        own = {"robot-a": "/robot_a", "robot-b": "/robot_b"}
        both = [site.spawn(host, ros("python3", talker, host, "--ros-args", "-r", f"__ns:={space}"), "talker") for host, space in own.items()]
        site.wait("they meet", lambda: site.seen("robot-b", "robot-a") == 1)

        def is_well():
            report, codes = ask(site)
            heard = [f["text"] for f in report["findings"] if f["code"] == "participants"]
            return report["ok"] and not codes - {"setting"} and heard == ["robot-a: 1 of 1 participants heard"]

        site.wait("nothing is wrong any more", is_well)
        fixed, codes = ask(site, "--fix")
        check(fixed["fixed"] and "setting" not in codes, f"not mended: {fixed}")
        kept = site.output("robot-b", ["cat", "/etc/sysctl.d/60-ria.conf"])
        check("# before: net.ipv4.ipfrag_time = 30" in kept, f"old values are not kept: {kept}")
        for child in both:
            child.kill()
        site.agents["robot-b"].terminate()
        site.agents["robot-b"].wait(30)
        meanwhile = site.spawn("robot-b", settled("python3", talker, "robot-b"), "talker")
        time.sleep(5)  # It has made its participant.
        site.join("robot-b")
        site.wait("the talker from a time without an agent is found", lambda: named(ask(site)[0], "off-interface"))
        meanwhile.kill()
        # Of one machine: two users, two IPC namespaces, and the daemon of the ros2 command by a name that only looks like it.
        daemon = lab.work / "_ros2_daemon"
        daemon.symlink_to(talker)
        listing = site.spawn("robot-b", plain_ros("python3", daemon, "robot-b"), "talker")
        logs = lab.work / "logs-of-another"
        logs.mkdir()
        logs.chmod(0o777)
        lab.work.chmod(0o711)
        command = ["env", f"ROS_LOG_DIR={logs}", *ros("setpriv", "--reuid", "65534", "--clear-groups", "python3", talker, "robot-b")]
        other = site.spawn("robot-b", command, "talker")
        apart = site.spawn("robot-b", ["unshare", "--ipc", *ros("python3", talker, "robot-b")], "talker")
        wanted = {"stale-daemon", "users", "ipc"}
        site.wait("a stale daemon is named", lambda: "stale-daemon" in ask(site)[1])
        site.wait("users and memory are named", lambda: wanted <= ask(site)[1])
        for child in (listing, other, apart):
            child.kill()
    say("     the doctor named processes from before ria0 and from a pause of the agent, one without settings, and one that keeps to itself;")
    say("     a stale daemon of ros2, processes of two users, and of two IPC namespaces")
