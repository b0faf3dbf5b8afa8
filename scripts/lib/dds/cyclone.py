"""Cyclone DDS on ROS topics: cyclone.py talk NAME, or cyclone.py listen SECONDS COUNT, or cyclone.py presence NAME

On /chatter, listening prints one JSON line, as the demo's listener does, and talking ends with its standard input. On
/presence it does what presence.py does.
"""

import json
import os
import select
import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration
from presence import Presence

QOS = Qos(Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(10))


@dataclass
class String(IdlStruct, typename="std_msgs.msg.dds_.String_"):
    data: str


def talk(topic, participant, name):
    writer, number = DataWriter(participant, topic, QOS), 0
    while not select.select([sys.stdin], [], [], 0.1)[0]:
        number += 1
        writer.write(String(f"hello from {name} #{number}"))


def listen(topic, participant, limit, wanted):
    began, heard = time.monotonic(), []
    reader = DataReader(participant, topic, QOS)
    while len(heard) < wanted and time.monotonic() - began < limit:
        heard += [(time.monotonic(), sample.data) for sample in reader.take(N=100)]
        time.sleep(0.01)
    first = {"first_after_s": round(heard[0][0] - began, 3), "first": heard[0][1]} if heard else {}
    print(json.dumps({"heard": len(heard), **first}), flush=True)
    return 0 if len(heard) >= wanted else 1


def presence(topic, participant, name):
    reader, writer, here = DataReader(participant, topic, QOS), DataWriter(participant, topic, QOS), Presence(name)

    def turn():
        time.sleep(0.02)
        for sample in reader.take(N=100):
            here.hear(sample.data)

    here.run(lambda text: writer.write(String(text)), turn)


def main():
    participant = DomainParticipant(int(os.environ.get("ROS_DOMAIN_ID", "0")))
    if sys.argv[1] == "presence":
        return presence(Topic(participant, "rt/presence", String), participant, sys.argv[2])
    topic = Topic(participant, "rt/chatter", String)
    if sys.argv[1] == "talk":
        return talk(topic, participant, sys.argv[2])
    return listen(topic, participant, float(sys.argv[2]), int(sys.argv[3]))


if __name__ == "__main__":
    sys.exit(main())
