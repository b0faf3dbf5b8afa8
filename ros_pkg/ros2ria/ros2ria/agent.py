"""The agent on this machine, by its command line `ria`."""

import json
import os
import shutil
import subprocess
import sys

NO_AGENT = 3
INTERRUPTED = 130

INSTALL = 'install Ria on this machine (its README, "Install"), or give the path in the environment variable RIA_BINARY'


def program():
    """Path of `ria`, or None."""
    return os.environ.get("RIA_BINARY") or shutil.which("ria")


def run(verb, *arguments):
    """Runs a verb of `ria` on this terminal; its exit code."""
    found = program()
    if not found:
        print(f"the program ria was not found; {INSTALL}", file=sys.stderr)
        return NO_AGENT
    try:
        with subprocess.Popen([found, verb, *arguments]) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # It has heard of the Ctrl-C itself.
                process.wait()
                return INTERRUPTED
    except OSError as error:
        print(f"{found} can't be started: {error.strerror}; {INSTALL}", file=sys.stderr)
        return NO_AGENT


def ask(verb, *arguments, timeout=30.0):
    """What a verb tells as JSON, and its exit code; None and a text where it tells nothing."""
    found = program()
    if not found:
        return None, f"the program ria was not found; {INSTALL}"
    try:
        done = subprocess.run(
            [found, "--json", verb, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return json.loads(done.stdout), done.returncode
    except subprocess.TimeoutExpired:
        return None, f"`ria {verb}` did not answer within {timeout:g} s; restart the agent"
    except OSError as error:
        return None, f"{found} can't be started: {error.strerror}; {INSTALL}"
    except ValueError:
        return None, done.stderr.strip() or f"`ria {verb}` told nothing; is it of another version?"


def add_options(parser, json_too=True):
    """The options that most verbs of `ria` have."""
    parser.add_argument("--network", metavar="NAME", help="the network by name or id, where this machine is in several")
    if json_too:
        parser.add_argument("--json", action="store_true", help="one JSON object on standard output")


def options(args):
    """The same, as `ria` takes them."""
    given = ["--json"] if getattr(args, "json", False) else []
    if args.network:
        given += ["--network", args.network]
    return given
