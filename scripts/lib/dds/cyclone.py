"""Cyclone DDS on ROS topics: cyclone.py talk NAME, listen SECONDS COUNT, presence NAME, send HZ, receive, or crowd COUNT DOMAINS

On /chatter, listening prints one JSON line, as the demo's listener does, and talking ends with its standard input. On
/presence it does what presence.py does. `send` and `receive` do what steady.py does, with topics of their own. `crowd` makes as
many processes, each with a participant, in so many ROS domains, and for each line of its standard input tells in a JSON line how
many of them live.
"""

import json
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass

from arrivals import Arrivals, report
from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import uint64
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from presence import Presence

DOMAIN = int(os.environ.get("ROS_DOMAIN_ID", "0"))
QOS = Qos(Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(10))
KEPT = Qos(Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(2000))
BEST_EFFORT = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(10))


@dataclass
class String(IdlStruct, typename="std_msgs.msg.dds_.String_"):
    data: str


@dataclass
class UInt64(IdlStruct, typename="std_msgs.msg.dds_.UInt64_"):
    data: uint64


def steady_topics(participant):
    return [Topic(participant, f"rt/steady_cyclone{kind}", UInt64) for kind in ("", "_best_effort")]


def talk(participant, name):
    writer, number = DataWriter(participant, Topic(participant, "rt/chatter", String), QOS), 0
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        number += 1
        writer.write(String(f"hello from {name} #{number}"))


def listen(participant, limit, wanted):
    began, heard = time.monotonic(), []
    reader = DataReader(participant, Topic(participant, "rt/chatter", String), QOS)
    while len(heard) < wanted and time.monotonic() - began < limit:
        heard += [(time.monotonic(), sample.data) for sample in reader.take(N=100)]
        time.sleep(0.01)
    first = {"first_after_s": round(heard[0][0] - began, 3), "first": heard[0][1]} if heard else {}
    print(json.dumps({"heard": len(heard), **first}), flush=True)
    return 0 if len(heard) >= wanted else 1


def presence(participant, name):
    topic = Topic(participant, "rt/presence", String)
    reader, writer, here = DataReader(participant, topic, QOS), DataWriter(participant, topic, QOS), Presence(name)

    def turn():
        time.sleep(0.02)
        for sample in reader.take(N=100):
            here.hear(sample.data)

    here.run(lambda text: writer.write(String(text)), turn)


def send(participant, hertz):
    writers, number = [DataWriter(participant, topic, qos) for topic, qos in zip(steady_topics(participant), (KEPT, BEST_EFFORT))], 0
    due = time.monotonic()
    while not select.select([sys.stdin], [], [], max(0, due - time.monotonic()))[0]:
        due += 1 / hertz
        for writer in writers:
            writer.write(UInt64(number))
        number += 1
    acknowledged = writers[0].wait_for_acks(duration(seconds=30))
    print(json.dumps({"sent": number, "acknowledged": acknowledged}), flush=True)


def receive(participant):
    both = [Arrivals(), Arrivals()]
    readers = [DataReader(participant, topic, qos) for topic, qos in zip(steady_topics(participant), (KEPT, BEST_EFFORT))]

    def take():
        while True:
            for reader, arrivals in zip(readers, both):
                # The writer's farewell is a sample without data.
                for sample in reader.take(N=100):
                    if isinstance(sample, UInt64):
                        arrivals.handle(sample.data)
            time.sleep(0.002)

    threading.Thread(target=take, daemon=True).start()
    report(*both)


def be_one(domain):
    """In a child of the crowd: a participant that does nothing, or the exit code 1."""
    try:
        participant = DomainParticipant(domain)
        while participant:
            signal.pause()
    except Exception as error:
        print(error, file=sys.stderr, flush=True)
    os._exit(1)


def crowd(count, domains):
    children = set()
    for number in range(count):
        child = os.fork()
        if child == 0:
            be_one(DOMAIN + number % domains)
        children.add(child)
        time.sleep(0.1)
    ended = 0
    for _ in sys.stdin:
        while children and (child := os.waitpid(-1, os.WNOHANG)[0]):
            children.remove(child)
            ended += 1
        print(json.dumps({"alive": len(children), "ended": ended}), flush=True)
    for child in children:
        os.kill(child, signal.SIGTERM)


def main():
    if sys.argv[1] == "crowd":
        return crowd(int(sys.argv[2]), int(sys.argv[3]))
    participant = DomainParticipant(DOMAIN)
    match sys.argv[1]:
        case "talk":
            return talk(participant, sys.argv[2])
        case "listen":
            return listen(participant, float(sys.argv[2]), int(sys.argv[3]))
        case "presence":
            return presence(participant, sys.argv[2])
        case "send":
            return send(participant, float(sys.argv[2]))
        case "receive":
            return receive(participant)
    return 2


if __name__ == "__main__":
    sys.exit(main())
