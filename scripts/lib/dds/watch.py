"""Counts what leaves and enters a host for some seconds: watch.py SECONDS

Prints one JSON line: packets on ria0 in each direction as the kernel counts them (`in` is what came through the tunnel),
RTPS packets in clear on every other interface but lo (`leaked`), and IP fragments on ria0 (`fragments`).
"""

import json
import select
import socket
import sys
import time

IPV4 = 0x0800


def counter(name):
    with open(f"/sys/class/net/ria0/statistics/{name}") as file:
        return int(file.read())


def main():
    seconds = float(sys.argv[1])
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    before, began = (counter("rx_packets"), counter("tx_packets")), time.monotonic()
    leaked = fragments = 0
    while (left := began + seconds - time.monotonic()) > 0:
        if not select.select([tap], [], [], left)[0]:
            continue
        packet, (interface, protocol, *_) = tap.recvfrom(2048)
        if protocol != IPV4 or interface == "lo":
            continue
        header = (packet[0] & 15) * 4
        if interface == "ria0":
            fragments += int.from_bytes(packet[6:8], "big") & 0x3FFF != 0
        elif packet[9] == 17 and packet[header + 8 : header + 12] == b"RTPS":
            leaked += 1
    after, took = (counter("rx_packets"), counter("tx_packets")), time.monotonic() - began
    print(
        json.dumps(
            {
                "in_pps": round((after[0] - before[0]) / took, 2),
                "out_pps": round((after[1] - before[1]) / took, 2),
                "leaked": leaked,
                "fragments": fragments,
            }
        )
    )


if __name__ == "__main__":
    main()
