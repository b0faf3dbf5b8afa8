# What a robot with ROS 2 goes through with the packages for /opt/ros. Sourced by packages-test, whose functions these use.
# shellcheck shell=bash disable=SC2154

ros_names=(ros-jazzy-ria-msgs ros-jazzy-ria-node ros-jazzy-ria-bringup ros-jazzy-ros2ria)

# ros_itself: stands for the packages of ROS 2, which are in no public package index: it provides, by their names, all that
# scripts/lib/ros-env has put together, and is the /opt/ros/jazzy/setup.bash that leads there.
ros_itself() {
    local tree=$work/ros-itself package provides=
    mkdir -p "$tree/DEBIAN" "$tree/opt/ros/jazzy"
    for package in "$env_dir"/ros/jazzy/share/ament_index/resource_index/packages/*; do
        package=${package##*/}
        provides+="ros-jazzy-${package//_/-}, "
    done
    # These cannot be had: launch files and commands are looked at, not run.
    provides+="ros-jazzy-launch, ros-jazzy-launch-ros, ros-jazzy-ros2cli, ros-jazzy-ros2doctor"
    cat >"$tree/opt/ros/jazzy/setup.bash" <<'SETUP'
export ROS_DISTRO=jazzy ROS_VERSION=2 RMW_IMPLEMENTATION=rmw_fastrtps_cpp AMENT_PREFIX_PATH=/srv/ros PATH=/srv/ros/bin:$PATH
export LD_LIBRARY_PATH=/srv/ros/lib$(printf ':%s' /srv/ros/lib/python3.*/site-packages/ros_*.libs)
for setup in /opt/ros/jazzy/share/*/local_setup.bash; do [ ! -e "$setup" ] || . "$setup"; done
SETUP
    printf 'Package: ros-jazzy-itself\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: ROS 2\nProvides: %s\n' \
        "$provides" >"$tree/DEBIAN/control"
    dpkg-deb --root-owner-group -Znone --build "$tree" "$work/roots/robot-a/packages/ros-itself.deb" >/dev/null
    on robot-a mkdir -p "$work/roots/robot-a/srv/ros"
    on robot-a mount --bind "$env_dir/ros/jazzy" "$work/roots/robot-a/srv/ros"
    on robot-a mount -o remount,bind,ro "$work/roots/robot-a/srv/ros"
    # This machine's shared memory is others'.
    on robot-a mount -t tmpfs none "$work/roots/robot-a/dev/shm"
    dpkg_in robot-a -i /packages/ros-itself.deb
}

# in_ros COMMAND...: on robot-a, as somebody does who has sourced ROS 2.
in_ros() {
    in_root robot-a env HOME=/root ROS_LOG_DIR=/var/log/ros \
        bash -c '. /opt/ros/jazzy/setup.bash && eval "$(ria env)" && exec "$@"' ros "$@"
}

# install_ros VERSION
install_ros() {
    local place=$work/roots/robot-a name files=()
    for name in "${ros_names[@]}"; do files+=("$(cd "$place" && ls -d packages/"${name}_$1"-1_*.deb)"); done
    dpkg_in robot-a -i "${files[@]/#//}"
}

start_node() {
    in_ros /opt/ros/jazzy/lib/ria_node/ria_node --ros-args -r __ns:=/robot_a >>"$work/node.log" 2>&1 &
    children+=($!)
}

# A subscriber that is started now sees what `ros2 topic echo /overlay/peers` shows.
peers_are_heard() {
    in_ros python3 -B /packages/peers.py 60 1 robot-a >"$work/peers.log" 2>&1 ||
        { tail -n 20 "$work/peers.log" "$work/node.log" >&2; fail "/overlay/peers does not tell of robot-b"; }
}

libraries_resolve() {
    local missing
    # shellcheck disable=SC2016
    missing=$(in_ros bash -c 'find /opt/ros/jazzy \( -name "*.so" -o -path "*/lib/ria_node/*" \) -type f | while read -r file; do
        ldd "$file" | sed -n "s|^.*not found|$file:&|p"; done')
    [ -z "$missing" ] || fail "libraries are not found: $missing"
}

live_with_ros() {
    local place=$work/roots/robot-a pid left
    cp "$root/scripts/lib/packages/ros_seen.py" "$root/scripts/lib/demo/peers.py" "$place/packages/"
    ros_itself
    install_ros 0.1.0
    in_root robot-a dpkg -V "${ros_names[@]}" || fail "files of the ROS packages are not as they were packed"
    libraries_resolve
    # Without -B, so that there is something to clean up.
    in_ros python3 /packages/ros_seen.py >"$work/seen.log" 2>&1 || { cat "$work/seen.log" >&2; fail "the ROS packages are not seen"; }
    start_node
    peers_are_heard
    good "ROS packages installed: $(cat "$work/seen.log"); the node tells /overlay/peers"
    pid=$(process robot-a ria_node)
    install_ros 0.1.1
    [ -n "$pid" ] || fail "the node's process is not found"
    [ "$(process robot-a ria_node)" = "$pid" ] || fail "the upgrade ended the node"
    peers_are_heard
    end robot-a ria_node
    start_node
    peers_are_heard
    install_ros 0.1.0
    end robot-a ria_node
    dpkg_in robot-a -r "${ros_names[@]}"
    in_root robot-a ria ping robot-b >/dev/null || fail "without its node the robot is out of the overlay"
    left=$(find "$place/opt" "$place/usr" -xdev \( -name '*ria_*' -o -name '*ros2ria*' -o -name 'ros-jazzy-ria*' \) -print)
    left+=$(find "$place/opt/ros" -xdev -type f ! -path "$place/opt/ros/jazzy/setup.bash" -print)
    [ -z "$left" ] || fail "removing the ROS packages left: $left"
    dpkg_in robot-a -r ros-jazzy-itself
    good "upgraded and downgraded beside a running node, removed: nothing is left, the overlay carries on"
}
