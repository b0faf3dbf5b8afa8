"""`ros2 ria`: the overlay from ROS 2's command line.

What concerns this machine is the program `ria`, called with the same arguments; what concerns others is read from the
topics that their overlay nodes publish. Nothing here keeps state, and nothing starts an agent.
"""
