"""`ros2 ria peers`."""

from ros2ria import agent
from ros2ria.verb import VerbExtension, add_patience


class PeersVerb(VerbExtension):
    """Print the other members and the links to them; with --of, as another robot sees them."""

    def add_arguments(self, parser, cli_name):
        """Adds --network, --json, --of, --wait."""
        agent.add_options(parser)
        parser.add_argument("--of", metavar="ROBOT", help="as this robot publishes them on /overlay/peers")
        add_patience(parser)

    def main(self, *, args):
        """Asks this machine's agent, or listens."""
        if not args.of:
            return agent.run("peers", *agent.options(args))
        from ros2ria import graph

        return graph.show_peers(args.of, args.wait, args.json)
