# A small Debian 12 for tests, made once with debootstrap, with what they need in it. Sourced behind common.sh.
# shellcheck shell=bash

# debian12: makes it unless it is there, and says where its archive is.
debian12() {
    # Python and numpy: what messages of ROS 2 are made of.
    # shellcheck disable=SC2154  # set by common.sh
    local archive=$env_dir/debian12.tar include=libcap2-bin,python3-numpy,python3-yaml made
    if [ ! -s "$archive" ] || [ "$(cat "$archive.packages" 2>/dev/null)" != "$include" ]; then
        step "making a small Debian 12"
        made=$(mktemp -d "$env_dir/debian12.XXXXXX")
        debootstrap --variant=minbase --include="$include" bookworm "$made" >"$env_dir/debootstrap.log" 2>&1 ||
            fail "debootstrap failed; see $env_dir/debootstrap.log"
        # Downloaded packages are not needed again.
        rm -f "$made"/var/cache/apt/archives/*.deb
        tar -C "$made" -cf "$archive.new" . && mv "$archive.new" "$archive"
        rm -rf "$made"
        echo "$include" >"$archive.packages"
    fi
    echo "$archive"
}
