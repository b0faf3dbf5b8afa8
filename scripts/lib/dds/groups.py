"""Multicast beside DDS, on ria0: groups.py answer ADDRESS NAME, ask ADDRESS NAME SECONDS, send ADDRESS GROUP:PORT COUNT, or
receive ADDRESS GROUP:PORT SECONDS

`answer` answers for NAME.local by multicast DNS (RFC 6762) with its own ADDRESS until it is told to stop, and `ask` asks for it
once a second. `send` sends numbered datagrams, ten a second, and `receive` counts them. `ask` and `receive` print one JSON line.
"""

import json
import socket
import struct
import sys
import time

MDNS = ("224.0.0.251", 5353)
RESPONSE, A, IN, FLUSH = 0x8400, 1, 1, 0x8000


def joined(address, group, port):
    """A socket that hears a group on the interface with this address, and speaks to groups there."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
    sock.bind((group, port))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + socket.inet_aton(address))
    return sock


def name(text):
    """A name in DNS's form."""
    return b"".join(bytes([len(label)]) + label.encode() for label in text.split(".")) + b"\0"


def answer(address, host):
    sock, wanted = joined(address, *MDNS), name(f"{host}.local")
    question = wanted + struct.pack("!HH", A, IN)
    record = wanted + struct.pack("!HHIH", A, IN | FLUSH, 120, 4) + socket.inet_aton(address)
    while True:
        packet, _ = sock.recvfrom(2000)
        if packet[2] & 0x80 == 0 and question in packet:
            sock.sendto(struct.pack("!6H", 0, RESPONSE, 0, 1, 0, 0) + record, MDNS)


def ask(address, host, limit):
    sock, wanted = joined(address, *MDNS), name(f"{host}.local")
    query = struct.pack("!6H", 0, 0, 1, 0, 0, 0) + wanted + struct.pack("!HH", A, IN)
    began = time.monotonic()
    while time.monotonic() - began < float(limit):
        sock.sendto(query, MDNS)
        sock.settimeout(1)
        try:
            packet, (sender, _) = sock.recvfrom(2000)
        except TimeoutError:
            continue
        if packet[2] & 0x80 and packet[12:].startswith(wanted):
            found = {"address": socket.inet_ntoa(packet[-4:]), "from": sender, "after_s": round(time.monotonic() - began, 3)}
            print(json.dumps(found))
            return
    print(json.dumps({"address": None}))


def split(group):
    address, port = group.rsplit(":", 1)
    return address, int(port)


def send(address, group, count):
    sock = joined(address, *split(group))
    for number in range(int(count)):
        sock.sendto(b"%d" % number, split(group))
        time.sleep(0.1)


def receive(address, group, limit):
    sock, end, numbers = joined(address, *split(group)), time.monotonic() + float(limit), set()
    print("ready", file=sys.stderr, flush=True)
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            numbers.add(int(sock.recv(100)))
        except TimeoutError:
            break
    print(json.dumps({"received": len(numbers)}))


if __name__ == "__main__":
    {"answer": answer, "ask": ask, "send": send, "receive": receive}[sys.argv[1]](*sys.argv[2:])
