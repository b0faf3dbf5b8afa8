"""What `overlay.launch.py` decides: whether there is an agent, and how the node is started."""

import os

from .agent import Agent, AgentError, is_true, seconds


class Plan:
    """How to start the node, and what to tell the person who launched it."""

    def __init__(self):
        self.namespace = ""
        self.parameters = []
        self.messages = []
        self.required = False
        self.environment = {}


def make_plan(arguments, agent=None):
    """Sees to the agent and plans the node. Raises AgentError only where going on makes no sense (`required`)."""
    agent = agent or Agent()
    plan = Plan()
    plan.required = is_true(arguments["required"])
    wait = seconds(arguments["wait"], "wait")
    try:
        see_to_agent(arguments, agent, wait, plan)
    except AgentError as error:
        if plan.required:
            raise
        plan.messages.append(f"{error}. The node starts anyway and shows this on /overlay/status; it takes up its work "
                             "when an agent comes.")
    plan.namespace = arguments["namespace"] or agent.ros_name()
    plan.parameters = node_parameters(arguments)
    try:
        plan.environment = agent.dds_environment(0)
    except AgentError:
        # Not in a network yet, or no agent: the node sees to it itself when that changes.
        pass
    return plan


def see_to_agent(arguments, agent, wait, plan):
    """Makes sure that an agent answers, if it may be started here."""
    start = arguments["start_agent"].strip().lower()
    if start != "auto":
        start = "auto" if is_true(start) else "never"
    if agent.runs():
        return
    if start == "never":
        raise AgentError("no agent runs, and start_agent:=false; start it: sudo systemctl start ria")
    pid = agent.start(wait, arguments["log_level"])
    if pid is not None:
        plan.messages.append(f"started the Ria agent (process {pid}); it runs on when this launch ends")


def node_parameters(arguments):
    """A parameter file and values, in the order in which the node takes them."""
    parameters = []
    if arguments["params_file"]:
        path = os.path.abspath(os.path.expanduser(arguments["params_file"]))
        if not os.path.isfile(path):
            raise AgentError(f"params_file: there is no file {path}")
        parameters.append(path)
    if arguments["join_key_file"]:
        # The node opens it, wherever it was started from.
        parameters.append({"join_key_file": os.path.abspath(os.path.expanduser(arguments["join_key_file"]))})
    if not is_true(arguments["autostart"]):
        # Where it is true, a parameter file may still say otherwise.
        parameters.append({"autostart": False})
    return parameters

