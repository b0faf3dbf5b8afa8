"""The other end of tests/ice_interop.rs: aioice, an ICE agent that has nothing to do with Ria's.

Reads one line of JSON (what the other end announces), writes one (what this one does), connects, and says how it went.
"""

import asyncio
import json
import sys

import aioice


def say(**words):
    print(json.dumps(words), flush=True)


async def main():
    told = json.loads(sys.stdin.readline())
    connection = aioice.Connection(ice_controlling=told["controlling"], use_ipv6=told["ipv6"], use_ipv4=not told["ipv6"])
    await connection.gather_candidates()
    say(
        ufrag=connection.local_username,
        password=connection.local_password,
        candidates=[candidate.to_sdp() for candidate in connection.local_candidates],
    )
    connection.remote_username = told["ufrag"]
    connection.remote_password = told["password"]
    for line in told["candidates"]:
        await connection.add_remote_candidate(aioice.Candidate.from_sdp(line))
    if told["candidates"]:
        await connection.add_remote_candidate(None)
    await connection.connect()
    received = await connection.recvfrom()
    await connection.sendto(b"to Ria", received[1])
    say(controlling=connection.ice_controlling, received=received[0].decode())
    # Until the other end has what was sent.
    sys.stdin.readline()
    await connection.close()


asyncio.run(asyncio.wait_for(main(), 30))
