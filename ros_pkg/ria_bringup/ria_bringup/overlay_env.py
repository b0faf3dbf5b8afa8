"""What `overlay_env.launch.py` decides: the variables for DDS, or a warning."""

from .agent import Agent, AgentError, is_true, seconds


def find_variables(arguments, agent=None):
    """Variables to set, and warnings. Without an overlay ROS still works on this machine, so only `required` fails."""
    agent = agent or Agent()
    required = is_true(arguments["required"])
    try:
        return agent.dds_environment(seconds(arguments["wait"], "wait")), []
    except AgentError as error:
        if required:
            raise
        kept = agent.kept_environment()
        reach = "this machine only" if kept else "this machine and network only"
        return kept, [
            f"the DDS environment of the overlay is not set, because {error}. What this launch starts reaches nodes on "
            f"{reach}; launch it again when `ria status` shows that the overlay works"
        ]
