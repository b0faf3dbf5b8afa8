"""Cases about what is beside the overlay: other interfaces and their addresses, other multicast, and no settings at all."""

import json
import subprocess
import time

from lab import (
    BIN, HERE, Site, check, cyclone, heard, kilted, plain_ros, ros, say, with_mode,
)

# What leaves for others' addresses beside the overlay, with DDS in it: not to groups, which end at the next access point.
STRAYS = """table inet strays {{ counter rtps {{}}; chain out {{ type filter hook output priority 0;
  oifname != {{ "lo", "ria0" }} ip daddr != 224.0.0.0/4 {where} meta l4proto udp @th,64,32 0x52545053 counter name rtps; }}; }}"""


def count_strays(site, host, where=""):
    site.output(host, ["nft", STRAYS.format(where=where)])


def strays(site, host):
    counter = json.loads(site.output(host, ["nft", "-j", "list", "counter", "inet", "strays", "rtps"]))
    return next(entry["counter"]["packets"] for entry in counter["nftables"] if "counter" in entry)


def without_settings(lab, figures):
    """Fast DDS without any of Ria's settings finds others by the overlay, of its own release and of the other. It tells all addresses
    of its machine; what it sends in one packet comes to peers without those beside the overlay."""
    talker, listener, hosts = HERE / "demo/talker.py", HERE / "demo/listener.py", ("robot-a", "robot-b")

    def between(config):
        with Site(lab.work) as site:
            site.join(*hosts, config=config)
            site.peers("robot-a", 1)
            for host in hosts:
                count_strays(site, host)
            first = site.spawn("robot-a", plain_ros("python3", talker, "robot-a"), "talker")
            took = [heard(site, "robot-b", plain_ros("python3", listener, "60", "20"))]
            took.append(heard(site, "robot-b", kilted(listener, "60", "20", plain=True)))
            first.kill()
            second = site.spawn("robot-a", kilted(talker, "robot-a", plain=True), "kilted-talker")
            took.append(heard(site, "robot-b", plain_ros("python3", listener, "60", "20")))
            took.append(heard(site, "robot-b", kilted(listener, "60", "20", plain=True)))
            second.kill()
            return took, [strays(site, host) for host in hosts]

    took, stray = between(None)
    _, told = between(with_mode(lab, "hide_addresses = false"))
    check(sum(stray) < sum(told), f"as many packets stray, {stray}, as with hide_addresses = false, {told}")
    figures["without_settings_s"], figures["stray_packets"] = max(took), sum(stray)
    say(f"     Jazzy and Kilted without settings are heard after {took} s; strays {stray}, with hide_addresses = false {told}")


def own_network(lab, figures):
    """A device beside the laptop that has ROS 2 and no Ria: the doctor names it, and local_interfaces brings it in, while who is
    on the overlay stays in reach and the device out of everybody else's."""
    with Site(lab.work) as site:
        moved = site.start([BIN / "netlab", "move", site.name, "robot-a", "office"], "netlab-move").wait(20)
        check(moved == 0, "robot-a does not move to the office")
        device = site.spawn("robot-a", plain_ros("python3", HERE / "demo/talker.py", "device"), "talker")
        site.join("laptop", "robot-b")
        site.peers("laptop", 1)
        interface = json.loads(site.output("laptop", ["ip", "-j", "route", "get", "198.51.100.2"]))[0]["dev"]

        def told():
            report = json.loads(site.run("laptop", [BIN / "ria", "doctor", "--json"]).stdout)
            return [f for f in report["findings"] if f["code"] == "local-devices"]

        site.wait("the doctor hears the device", told)
        check(f'local_interfaces = ["{interface}"]' in told()[0]["next"], f"the doctor: {told()}")
        apart = site.run("laptop", ros("python3", HERE / "demo/listener.py", "4", "1"))
        check(apart.returncode == 1, f"heard beside the overlay: {apart.stdout}")
        site.agents["laptop"].terminate()
        site.agents["laptop"].wait(30)
        site.join("laptop", config=with_mode(lab, f'local_interfaces = ["{interface}"]'))
        site.peers("laptop", 1)
        check(not told(), f"the doctor still suggests what is so: {told()}")
        near = heard(site, "laptop", ros("python3", HERE / "demo/listener.py", "60", "10"))
        local = json.loads(site.output("laptop", ["ip", "-j", "-4", "address", "show", interface]))[0]["addr_info"][0]["local"]
        count_strays(site, "robot-b", f"ip daddr {local}")
        own = site.spawn("laptop", ros("python3", HERE / "demo/talker.py", "laptop"), "talker")
        far = site.run("robot-b", ros("python3", HERE / "demo/listener.py", "60", "20"))
        report = json.loads(far.stdout.splitlines()[-1])
        check(report["heard"] >= 20 and "laptop" in report["first"], f"the overlay is out of reach: {report}")
        check(site.seen("robot-b", "laptop") == 1, "robot-b has heard of the device")
        by_kilted = heard(site, "robot-b", kilted(HERE / "demo/listener.py", "60", "20"))
        by_cyclone = [heard(site, "robot-b", cyclone("listen", "60", "20", release=release)) for release in ("lyrical", "jazzy")]
        own.kill()
        own = site.spawn("laptop", cyclone("talk", "laptop"), "cyclone-talker", stdin=subprocess.PIPE)
        by_cyclone.append(heard(site, "robot-b", cyclone("listen", "60", "20")))
        stray = strays(site, "robot-b")
        check(stray == 0, f"robot-b sent {stray} packets to the laptop's address beside the overlay, {local}")
        for child in (device, own):
            child.kill()
    figures["local_device_s"] = near
    say(f"     a device on the laptop's own network is suggested by the doctor, and heard after {near} s once it is listed;")
    say(f"     the laptop's address there is told to no peer: heard by Kilted after {by_kilted} s, Cyclone {by_cyclone} s, {stray} packets to it")




def groups(lab, figures):
    """Other groups are carried where the network, or its policy, says so: multicast DNS is answered, and data arrives."""
    script, hosts, group = HERE / "dds/groups.py", ("robot-a", "robot-b"), "239.7.7.7:5000"

    def asked(site, limit=4):
        return json.loads(site.output("robot-b", ["python3", script, "ask", site.address("robot-b"), "robot-a", limit]))

    def received(site):
        line = site.line("robot-b", ["python3", script, "receive", site.address("robot-b"), group, 6])
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as receiver:
            check(receiver.stderr.readline() == "ready\n", "nobody receives")
            site.output("robot-a", ["python3", script, "send", site.address("robot-a"), group, 20])
            return json.loads(receiver.communicate(timeout=60)[0])["received"]

    with Site(lab.work) as site:
        site.join(*hosts)
        site.peers("robot-a", 1)
        there = site.address("robot-a")
        answer = site.spawn("robot-a", ["python3", script, "answer", there, "robot-a"], "mdns")
        check(asked(site)["address"] is None and site.drops("robot-b").get("multicast-mdns", 0) > 0, "mDNS is carried")
        refused = site.run("coordinator", [BIN / "ria-coordinator", "network", "multicast", "lab", "10.0.0.1:5"])
        check(refused.returncode == 2 and "239.1.2.3:5000" in refused.stderr, f"a group that is none: {refused}")
        site.admin("network", "multicast", "lab", f"mdns,{group}")
        found = asked(site, 30)
        check((found["address"], found["from"]) == (there, there), f"the answer: {found}")
        got = received(site)
        check(got == 20, f"{got} of 20 datagrams to {group} have arrived")
        shown = json.loads(site.admin("network", "show", "lab", "--json"))["multicast"]
        check(shown == f"mdns,{group}", f"shown: {shown}")
        site.admin("network", "multicast", "lab", "none")
        site.wait("it is over", lambda: asked(site, 2)["address"] is None)
        policy = lab.work / "groups.policy"
        policy.write_text(
            '[[rule]]\nfrom = ["*"]\nto = ["*"]\nallow = ["icmp", "multicast/224.0.0.251:5353"]\n'
            f'[[rule]]\nfrom = ["robot-b"]\nto = ["*"]\nallow = ["multicast/{group}"]\n'
        )
        site.admin("policy", "set", "--file", policy)
        site.wait("the policy has mDNS carried", lambda: asked(site, 2)["address"] == there)
        check(received(site) == 0 and site.drops("robot-a").get("filtered-out", 0) > 0, "robot-a may not send to that group")
        answer.kill()
    figures["mdns_answer_s"] = found["after_s"]
    say(f"     mDNS is answered over the overlay after {found['after_s']} s, {got} of 20 datagrams to {group} arrive; a policy carries and limits")


LATE = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="ria0"/></Interfaces><AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex></Discovery></Domain></CycloneDDS>"""


def early_lists_late(lab, figures):
    """By unicast, Cyclone that lists a host on which nothing runs finds what starts there much later, though that lists nobody."""
    hosts, took = ("robot-a", "robot-b"), {}
    with Site(lab.work) as site:
        site.join(*hosts, config=with_mode(lab, 'discovery = "unicast"'))
        site.peers("robot-a", 1)
        kinds = {"jazzy": 7, "lyrical": 8}
        early = [
            site.spawn("robot-a", ["env", f"ROS_DOMAIN_ID={domain}", *cyclone("talk", "early", release=release)], "talker", stdin=subprocess.PIPE)
            for release, domain in kinds.items()
        ]
        time.sleep(40)  # Longer than Cyclone 11 keeps by itself whoever does not answer.
        for release, domain in kinds.items():
            # The variable is given first, so the user's own settings are respected.
            late = ["env", f"ROS_DOMAIN_ID={domain}", f"CYCLONEDDS_URI={LATE}", *cyclone("listen", "60", "10", release=release)]
            took[release] = heard(site, "robot-b", late)
        for child in early:
            child.stdin.close()
    figures["early_lists_late_s"] = max(took.values())
    say(f"     who comes 40 s later and lists nobody is found after {took} s")
