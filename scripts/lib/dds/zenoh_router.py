"""Zenoh with a router's configuration file, as rmw_zenohd runs it: zenoh.py FILE SECONDS COUNT

Opens a session with FILE, says its address on ria/test ten times a second and listens; ends when it has heard COUNT messages
of others and has been there for 5 s more, and prints one JSON line.
"""

import json
import sys
import time

import zenoh


def main():
    file, limit, wanted = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    session, heard, began = zenoh.open(zenoh.Config.from_file(file)), [], time.monotonic()
    me = str(session.info.zid())
    session.declare_subscriber("ria/test", lambda sample: heard.append((time.monotonic(), sample.payload.to_string())))
    publisher, end = session.declare_publisher("ria/test"), began + limit
    while time.monotonic() < end:
        publisher.put(me)
        time.sleep(0.1)
        others = [at for at, said in heard if said != me]
        if len(others) >= wanted:
            end = min(end, others[wanted - 1] + 5)
    others = [at for at, said in heard if said != me]
    first = {"first_after_s": round(others[0] - began, 3)} if others else {}
    print(json.dumps({"heard": len(others), **first}), flush=True)
    session.close()
    return 0 if len(others) >= wanted else 1


if __name__ == "__main__":
    sys.exit(main())
