"""`ros2 ria ping`."""

from ros2ria import agent
from ros2ria.verb import VerbExtension, positive, seconds


class PingVerb(VerbExtension):
    """Probe a peer through the tunnel; with --from, between two other robots."""

    def add_arguments(self, parser, cli_name):
        """Adds the peer and how it is probed."""
        parser.add_argument("peer", help="name, ROS name, host name, id or overlay address")
        agent.add_options(parser)
        parser.add_argument("--count", "-c", metavar="N", type=positive, help="so many probes")
        parser.add_argument("--interval", "-i", metavar="SECONDS", type=seconds, help="from one to the next")
        parser.add_argument("--timeout", metavar="SECONDS", type=seconds, help="for each answer")
        parser.add_argument("--from", metavar="ROBOT", dest="origin", help="from this robot, by its service ~/ping")

    def main(self, *, args):
        """Has this machine's agent ping, or another robot's node."""
        if args.origin:
            from ria_msgs.srv import Ping

            from ros2ria import graph

            request = Ping.Request(
                peer=args.peer,
                network=args.network or "",
                count=args.count or 3,
                interval=args.interval or 0.2,
                timeout=args.timeout or 1.0,
            )
            return graph.ping_from(args.origin, request, patience=5.0)
        given = agent.options(args)
        for name in ("count", "interval", "timeout"):
            value = getattr(args, name)
            if value is not None:
                given += [f"--{name}", str(value)]
        return agent.run("ping", *given, "--", args.peer)
