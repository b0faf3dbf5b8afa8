# Debian packages of the ROS packages, as /opt/ros has them: ros-DISTRO-ria-msgs and so on, of what scripts/lib/ros-env has
# built. Sourced by scripts/package behind deb.sh, which sets ros, profile, arch, work and stripper.
# shellcheck shell=bash disable=SC2154

# ros_packages: all four.
ros_packages() {
    local variant package
    RIA_ROS_PROFILE=$profile "$root/scripts/lib/ros-env"
    variant=$([ "$profile" = dev ] || echo "-$profile")
    # Where they were built, and where they will be.
    ros_built=$env_dir/ros/build$variant ros_prefix=$env_dir/ros/install$variant ros_place=opt/ros/$ros
    set +u
    # shellcheck disable=SC1090
    source "$env_dir/ros/setup$variant.sh"
    set -u
    [ "$ROS_DISTRO" = "$ros" ] ||
        fail "--ros $ros: the ROS 2 here is $ROS_DISTRO; packages can be made for that one alone"
    ros_python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for package in ria_msgs ria_node ria_bringup ros2ria; do ros_package "$package"; done
}

# ros_name PACKAGE: what Debian packages of ROS packages are called.
ros_name() { echo "ros-$ros-${1//_/-}"; }

ros_package() {
    local package=$1 name tree elf=() of=all depends
    name=$(ros_name "$package")
    tree=$work/$name
    if [ -f "ros_pkg/$package/setup.py" ]; then install_python "$package" "$tree"; else
        DESTDIR=$tree cmake --install "$ros_built/$package" --prefix "/$ros_place" >"$work/install.log" ||
            fail "cmake does not install $package: $(tail -n 5 "$work/install.log")"
    fi
    relocate "$tree"
    mapfile -t elf < <(find "$tree/$ros_place" -type f -exec sh -c 'head -c 4 "$1" | grep -q ELF' sh {} \; -print)
    if [ ${#elf[@]} -gt 0 ]; then
        "$stripper" --strip-unneeded --remove-section=.comment --remove-section=.note "${elf[@]}"
        of=$arch
    fi
    documents "$tree" "$name"
    mkdir -p "$tree/usr/share/lintian/overrides" "$tree/DEBIAN"
    sed "s/@NAME@/$name/" packaging/debian/ros/lintian-overrides >"$tree/usr/share/lintian/overrides/$name"
    if [ -d "$tree/$ros_place/lib/python$ros_python" ]; then
        sed "s|@NAME@|$name|" packaging/debian/ros/prerm >"$tree/DEBIAN/prerm"
        chmod 755 "$tree/DEBIAN/prerm"
    fi
    depends=$(ros_depends "$package" "$tree" "${elf[@]}")
    sed "s/@NAME@/$name/; s/@DEPENDS@/$depends/" "packaging/debian/ros/$package" | seal "$tree" "$name" "$of"
}

# A package without CMake; these options say what Debian's Python would choose otherwise.
install_python() {
    local package=$1 tree=$2
    mkdir -p "$work/egg"
    (cd "ros_pkg/$package" && python3 -B setup.py -q egg_info --egg-base "$work/egg" build --build-base "$work/built-$package" \
        install --root "$tree" --prefix "/$ros_place" --install-data "/$ros_place" \
        --install-lib "/$ros_place/lib/python$ros_python/site-packages" --no-compile) >"$work/install.log" 2>&1 ||
        fail "setup.py does not install $package: $(tail -n 5 "$work/install.log")"
}

# relocate TREE: files that name places of this machine name those of /opt/ros instead.
relocate() {
    local tree=$1 place=/$ros_place modules=lib/python$ros_python/site-packages file
    # Debian's ament has a place of its own for Python code.
    if [ -d "$tree$place/lib/python3/dist-packages" ]; then
        mkdir -p "$tree$place/lib/python$ros_python"
        mv "$tree$place/lib/python3/dist-packages" "$tree$place/$modules"
        rmdir "$tree$place/lib/python3"
    fi
    find "$tree" -type d -name __pycache__ -prune -exec rm -rf {} +
    { grep -rIlZ -e "$ros_prefix" -e lib/python3/dist-packages "$tree" || true; } | while IFS= read -r -d '' file; do
        sed -i "s|$ros_prefix|$place|g; s|lib/python3/dist-packages|$modules|g" "$file"
    done
    for file in "$tree$place"/share/ament_index/resource_index/parent_prefix_path/*; do
        [ ! -e "$file" ] || printf '%s' "$place" >"$file"
    done
    find "$tree" -type d -exec chmod 755 {} +
    if file=$(grep -rIl -e "$root" -e "$env_dir" "$tree"); then fail "these name places of this machine: $file"; fi
}

# ros_depends PACKAGE TREE ELF...: what package.xml names, and the libraries of the system.
ros_depends() {
    local package=$1 tree=$2 depends search=() directory
    shift 2
    depends=$(python3 - "ros_pkg/$package/package.xml" "$debian_version" <<'PYTHON'
import os
import sys
import xml.etree.ElementTree as xml

described, version = sys.argv[1:]
distro = os.environ["ROS_DISTRO"]
# Messages are compiled in: all of Ria's packages are of one version.
ours = os.listdir("ros_pkg")
names = {node.text for kind in ("depend", "exec_depend") for node in xml.parse(described).getroot().iter(kind)}
print(", ".join(f"ros-{distro}-{name.replace('_', '-')}" + (f" (= {version})" if name in ours else "") for name in sorted(names)))
PYTHON
    )
    if [ -d "$tree/$ros_place/lib/python$ros_python" ]; then
        depends+=", python3 (>= $ros_python), python3 (<< ${ros_python%.*}.$((${ros_python#*.} + 1)))"
    fi
    if [ $# -gt 0 ]; then
        # Libraries of ROS have packages, but don't say in which version they can be used: package.xml names them.
        while read -r directory; do search+=("-l$directory"); done < <(tr : '\n' <<<"$LD_LIBRARY_PATH" | sed '/^$/d')
        local libraries
        libraries=$(shared_libraries "$(ros_name "$package")" "$@" -- --ignore-missing-info "-l$tree/$ros_place/lib" "${search[@]}") || true
        [ -n "$libraries" ] || fail "dpkg-shlibdeps did not tell which libraries $package needs: $(tail -n 3 "$work/shlibs/said")"
        depends+=", $libraries"
    fi
    echo "$depends"
}
