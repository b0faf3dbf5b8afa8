"""Sets the DDS environment of the overlay for what the including launch file starts afterwards.

Waits a bounded time for the overlay, then goes on without it and says so (unless required:=true).
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, SetEnvironmentVariable
from ria_bringup.overlay_env import find_variables

ARGUMENTS = {
    "wait": ("10", "Seconds to wait for the overlay to be up."),
    "required": ("false", "true: this launch ends when the overlay does not come up in time."),
}


def set_environment(context):
    """Asks the agent at launch time."""
    arguments = {name: context.launch_configurations[name] for name in ARGUMENTS}
    # An error ends the launch, with its text.
    variables, warnings = find_variables(arguments)
    return [
        *(LogInfo(msg=f"overlay: WARNING: {text}") for text in warnings),
        *(SetEnvironmentVariable(name, value) for name, value in sorted(variables.items())),
    ]


def generate_launch_description():
    """The arguments, and what is done with them."""
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=text)
        for name, (default, text) in ARGUMENTS.items()
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=set_environment)])
