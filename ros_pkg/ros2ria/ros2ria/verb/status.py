"""`ros2 ria status`."""

from ros2ria import agent
from ros2ria.verb import VerbExtension, add_patience


class StatusVerb(VerbExtension):
    """Print whether the overlay works, and what to do if not; with --all, what each robot says of itself."""

    def add_arguments(self, parser, cli_name):
        """Adds --network, --json, --all, --wait."""
        agent.add_options(parser)
        parser.add_argument("--all", action="store_true", help="of all robots, as they publish it on /overlay/status")
        add_patience(parser)

    def main(self, *, args):
        """Asks this machine's agent, or listens."""
        if not args.all:
            return agent.run("status", *agent.options(args))
        from ros2ria import graph

        return graph.show_statuses(args.wait, args.json)
