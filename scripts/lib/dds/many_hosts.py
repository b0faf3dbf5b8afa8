"""Cases with many hosts or many processes: a fleet, a crowd on one machine, and announcements that nobody leaves out."""

import json
import subprocess
import time

from lab import BIN, HERE, Participants, Site, check, cyclone, heard, ros, say, watch, with_mode

HOSTS, EACH = 10, 5
CROWD = 200


def fleet(lab, figures):
    """Ten robots with five nodes each: everybody sees all fifty."""
    hosts = [f"r{number}" for number in range(HOSTS)]
    text = 'name = "fleet"\n[network.internet]\nprefix = "198.51.100.0/24"\ninternet = true\n'
    for wifi in "ab":
        text += f'[network.wifi-{wifi}]\nprefix = "192.168.{ord(wifi)}.0/24"\nisolate-clients = true\ndrop-multicast = true\n'
        text += f'[router.nat-{wifi}]\nuplink = "internet"\ndownlink = "wifi-{wifi}"\n'
    text += '[host.coordinator]\nnetwork = "internet"\naddress = "198.51.100.2"\n'
    text += "".join(f'[host.{host}]\nnetwork = "wifi-{"ab"[n % 2]}"\n' for n, host in enumerate(hosts))
    description = lab.work / "fleet.toml"
    description.write_text(text)
    with Site(lab.work, description) as site:
        site.join(*hosts)
        for host in hosts:
            site.peers(host, len(hosts) - 1)
        began = time.monotonic()
        robots = [Participants(site, host, EACH, HOSTS * EACH, patient) for host in hosts]
        site.wait("all see all fifty", lambda: all(robot.said() for robot in robots), 400)
        figures["graph_complete_s_10hosts_5each"] = round(time.monotonic() - began, 1)
        time.sleep(25)  # Longer than a lease: nobody is lost again.
        check(all(len(robot.said()) == 1 for robot in robots), f"nodes were lost again: {[robot.said() for robot in robots]}")
        dropped = {host: site.drops(host).get("interface-full", 0) for host in hosts}
        for robot in robots:
            robot.kill()
    say(f"     {HOSTS} x {EACH} nodes see each other {figures['graph_complete_s_10hosts_5each']} s after the first process was started; no room: {dropped}")


def patient(*command):
    """As on a robot whose agent is a service: that has precedence over what ROS 2 does (ria.service, Nice=)."""
    return ["nice", "-n", "5", *ros(*command)]


def undamped(lab, figures):
    """damping = false: every repetition is carried, and the graph is the same."""
    config, each, hosts = with_mode(lab, "damping = false"), 3, ["robot-a", "robot-b"]
    with Site(lab.work) as site:
        site.join(*hosts, config=config)
        site.peers("robot-a", 1)
        both = [Participants(site, host, each, 2 * each) for host in hosts]
        site.wait("the graph is complete", lambda: all(p.said() for p in both))
        time.sleep(10)  # The end of what the start stirred up.
        watched = watch(site, hosts, 30)
        figures["undamped_pps_2hosts_3each"] = min(w["in_pps"] for w in watched)
        # Each of three tells each of three every 3 s, and all at once every 3 s.
        check(figures["undamped_pps_2hosts_3each"] > 2, f"repetitions are missing: {watched}")
        check(all(site.drops(host).get("damped", 0) == 0 for host in hosts), "something was damped")
        check(all(len(p.said()) == 1 for p in both), "nodes were lost")
        for participants in both:
            participants.end()
    say(f"     without damping 2 x {each} nodes cost {figures['undamped_pps_2hosts_3each']} packets per second")


def crowd(lab, figures):
    """Two hundred processes on one robot. In one ROS domain Cyclone has room for 32 of them, and the doctor says so; in ten domains all
    have room, the agents stay as they are, the peer hears of each, and a talker among them is heard."""
    host, peer, began = "robot-a", "robot-b", time.monotonic()

    def start(name, domains):
        with open(lab.work / f"{name}.jsonl", "wb") as file:
            command = ["nice", "-n", "5", *cyclone("crowd", str(CROWD), str(domains))]
            return lab.spawn(host, command, name, stdin=subprocess.PIPE, stdout=file)

    def told(name, crowd):
        log = lab.work / f"{name}.jsonl"
        before = len(log.read_text().splitlines())
        crowd.stdin.write(b"\n")
        crowd.stdin.flush()
        lab.wait("the crowd answers", lambda: len(log.read_text().splitlines()) > before, 300)
        return json.loads(log.read_text().splitlines()[-1])

    within = start("within", 1)
    lab.wait("it is seen that not all have room", lambda: told("within", within)["ended"] > 0, 120)
    report = json.loads(lab.run(host, [BIN / "ria", "doctor", "--json"]).stdout)
    crowded = [finding["text"] for finding in report["findings"] if finding["code"] == "crowded"]
    check(crowded, f"the doctor says nothing of the crowd: {report}")
    room = told("within", within)
    within.stdin.close()
    within.wait(60)
    lab.wait("the peer has forgotten them", lambda: lab.seen(peer, host) == 0, 180)
    before = lab.memory(host), lab.memory(peer)
    beyond = start("beyond", 10)
    lab.wait("the peer hears of all", lambda: lab.seen(peer, host) >= CROWD, 300)
    living = told("beyond", beyond)
    check(living["alive"] == CROWD, f"some have ended: {living}, {(lab.work / 'beyond.log').read_text()[-300:]}")
    talker = lab.spawn(host, ros("python3", HERE / "demo/talker.py", host), "talker")
    figures["crowd_heard_s"] = heard(lab, peer, ros("python3", HERE / "demo/listener.py", "120", "10"))
    after, drops = (lab.memory(host), lab.memory(peer)), {name: lab.drops(name) for name in (host, peer)}
    check(max(after) < 64, f"the agents have grown from {before} to {after} MiB")
    figures |= {"crowd_seen_by_peer": lab.seen(peer, host), "crowd_agent_mib": max(after)}
    beyond.stdin.close()
    talker.kill()
    beyond.wait(60)
    say(f"     in one domain {room['alive']} of {CROWD} have room; the doctor: {crowded[0]}")
    say(f"     in ten domains the peer hears of {figures['crowd_seen_by_peer']}, and of a talker beside them after {figures['crowd_heard_s']} s;")
    say(f"     agents {before} MiB before and {after} after, dropped {drops}; {round(time.monotonic() - began)} s in all")
