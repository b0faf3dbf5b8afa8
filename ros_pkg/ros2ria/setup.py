"""Installs the extension; colcon and bloom call it."""

from setuptools import find_packages, setup

NAME = "ros2ria"
VERBS = {
    "status": "StatusVerb",
    "peers": "PeersVerb",
    "ping": "PingVerb",
    "join": "JoinVerb",
    "leave": "LeaveVerb",
    "doctor": "DoctorVerb",
    "watch": "WatchVerb",
}

setup(
    name=NAME,
    version="0.1.0",
    packages=find_packages(exclude=["test"]),
    data_files=[
        (f"share/{NAME}", ["package.xml"]),
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="Ria maintainers",
    maintainer_email="maintainers@ria-overlay.invalid",
    description="The commands ros2 ria and ros2 overlay, and the overlay's checks and report of ros2 doctor.",
    license="Apache-2.0",
    entry_points={
        "ros2cli.command": [
            "ria = ros2ria.command.ria:RiaCommand",
            "overlay = ros2ria.command.ria:RiaCommand",
        ],
        "ros2cli.extension_point": ["ros2ria.verb = ros2ria.verb:VerbExtension"],
        "ros2ria.verb": [f"{name} = ros2ria.verb.{name}:{verb}" for name, verb in VERBS.items()],
        "ros2doctor.checks": ["OverlayCheck = ros2ria.checks:OverlayCheck"],
        "ros2doctor.report": ["OverlayReport = ros2ria.checks:OverlayReport"],
    },
)
