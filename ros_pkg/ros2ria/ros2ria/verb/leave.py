"""`ros2 ria leave`."""

from ros2ria import agent
from ros2ria.verb import VerbExtension


class LeaveVerb(VerbExtension):
    """Leave a network for good; its keys are erased."""

    def add_arguments(self, parser, cli_name):
        """Adds --network and --yes."""
        agent.add_options(parser, json_too=False)
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def main(self, *, args):
        """Has the agent leave."""
        return agent.run("leave", *agent.options(args), *(["--yes"] if args.yes else []))
