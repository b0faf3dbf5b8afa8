"""`ros2 ria`, also called `ros2 overlay`."""

from ros2cli.command import CommandExtension, add_subparsers_on_demand


class RiaCommand(CommandExtension):
    """The overlay network between robots: status, peers, ping, join, leave, doctor, watch."""

    def add_arguments(self, parser, cli_name):
        """Adds the verbs."""
        self._subparser = parser
        add_subparsers_on_demand(parser, cli_name, "_verb", "ros2ria.verb", required=False)

    def main(self, *, parser, args):
        """Runs the verb that was chosen."""
        del parser
        if not hasattr(args, "_verb"):
            self._subparser.print_help()
            return 0
        return args._verb.main(args=args)
