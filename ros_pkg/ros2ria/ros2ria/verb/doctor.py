"""`ros2 ria doctor`."""

from ros2ria import agent
from ros2ria.verb import VerbExtension


class DoctorVerb(VerbExtension):
    """Tell why ROS 2 nodes do not find each other, and the one thing to do next."""

    def add_arguments(self, parser, cli_name):
        """Adds --json and --fix."""
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
        parser.add_argument("--fix", action="store_true", help="raise kernel settings that are too low (as root)")

    def main(self, *, args):
        """Has the doctor look."""
        return agent.run("doctor", *(["--json"] if args.json else []), *(["--fix"] if args.fix else []))
