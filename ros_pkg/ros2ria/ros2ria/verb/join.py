"""`ros2 ria join`."""

import sys

from ros2ria import agent
from ros2ria.verb import VerbExtension


class JoinVerb(VerbExtension):
    """Join a network with a key from a file, or with `-` from standard input; then start ROS 2's daemon anew."""

    def add_arguments(self, parser, cli_name):
        """Adds where the key is, and the name."""
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("source", nargs="?", choices=["-"], help="the key comes on standard input")
        source.add_argument("--file", metavar="FILE", help="the key is in FILE")
        parser.add_argument("--name", metavar="NAME", help="name of this machine in the network")

    def main(self, *, args):
        """Has the agent join."""
        given = ["--file", args.file] if args.file else ["-"]
        if args.name:
            given += ["--name", args.name]
        code = agent.run("join", *given)
        if code == 0:
            renew_daemon()
        return code


def renew_daemon():
    """ROS 2's daemon has no socket on an interface that came after it: what it lists would be the robot alone."""
    from ros2cli.node.daemon import shutdown_daemon

    try:
        if shutdown_daemon(args=[], timeout=10.0):
            print("ROS 2's daemon was stopped; the next command starts one that sees the overlay", file=sys.stderr)
    except (OSError, RuntimeError) as error:
        print(f"ROS 2's daemon could not be stopped ({error}); run: ros2 daemon stop", file=sys.stderr)
