"""`ros2 ria watch`."""

from ros2ria import agent
from ros2ria.verb import VerbExtension, positive


class WatchVerb(VerbExtension):
    """Print what happens on all robots, as it happens; with --here, on this machine alone."""

    def add_arguments(self, parser, cli_name):
        """Adds --network, --json, --count, --here."""
        agent.add_options(parser)
        parser.add_argument("--count", "-c", metavar="N", type=positive, help="end after so many events")
        parser.add_argument("--here", action="store_true", help="of this machine, from its agent")

    def main(self, *, args):
        """Listens to all, or to this machine's agent."""
        if args.here:
            return agent.run("events", *agent.options(args), *(["--count", str(args.count)] if args.count else []))
        from ros2ria import graph

        return graph.watch(args.count, args.json)
