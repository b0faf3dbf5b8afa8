"""Puts this robot on the overlay network and starts the overlay node.

Starts the agent when none runs and this user may; joins with join_key_file when one is given. The agent outlives the
launch: ending this launch leaves tunnel and membership as they are.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, Shutdown
from launch_ros.actions import Node
from ria_bringup.overlay import make_plan

ARGUMENTS = {
    "namespace": ("", "Namespace of the node; empty: the robot's ROS name, such as robot_7."),
    "params_file": ("", "Parameter file of the node; an example is in ria_bringup/config."),
    "join_key_file": ("", "File with a join key; needed on a robot that never joined."),
    "start_agent": ("auto", "auto: start the agent when none runs and this user may; false: never."),
    "wait": ("10", "Seconds to wait for an agent that was started here."),
    "required": ("false", "true: this launch ends when there is no agent, or when the node ends."),
    "autostart": ("true", "false: the node publishes nothing until a manager of its lifecycle has activated it."),
    "log_level": ("", "Log level of the node, and of an agent started here: debug, info, warn, error."),
}


def start(context):
    """Looks at the machine at launch time, not when the description is read."""
    arguments = {name: context.launch_configurations[name] for name in ARGUMENTS}
    # An error ends the launch, with its text.
    plan = make_plan(arguments)
    level = ["--log-level", arguments["log_level"]] if arguments["log_level"] else []
    node = Node(
        package="ria_node",
        executable="ria_node",
        name="overlay",
        namespace=plan.namespace,
        parameters=plan.parameters,
        ros_arguments=level,
        additional_env=plan.environment,
        output="screen",
        on_exit=Shutdown(reason="the overlay node ended") if plan.required else None,
    )
    return [*(LogInfo(msg=f"overlay: {text}") for text in plan.messages), node]


def generate_launch_description():
    """The arguments, and what is done with them."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start)])
