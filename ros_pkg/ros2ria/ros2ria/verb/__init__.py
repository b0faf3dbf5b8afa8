"""The verbs of `ros2 ria`."""

import argparse

from ros2cli.plugin_system import PLUGIN_SYSTEM_VERSION, satisfies_version


class VerbExtension:
    """A verb: `main`, and `add_arguments` where it takes some. `NAME` is that of its entry point."""

    NAME = None
    EXTENSION_POINT_VERSION = "0.1"

    def __init__(self):
        satisfies_version(PLUGIN_SYSTEM_VERSION, "^0.1")

    def add_arguments(self, parser, cli_name):
        """Adds none."""

    def main(self, *, args):
        """Does it, and gives the exit code."""
        raise NotImplementedError


def seconds(text):
    """A positive number of seconds, as an argument."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 3600.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 3600")
    return value


def positive(text):
    """A whole number from 1 to 1000, as an argument."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000")
    return int(text)


def add_patience(parser):
    """How long others are listened to."""
    parser.add_argument("--wait", metavar="SECONDS", type=seconds, default=2.0, help="listen so long (2)")
