# A small Debian 12 for tests, made once with debootstrap. Sourced behind common.sh.
# shellcheck shell=bash

# debian12: makes it unless it is there, and says where its archive is.
debian12() {
    # shellcheck disable=SC2154  # set by common.sh
    local archive=$env_dir/debian12.tar made
    if [ ! -s "$archive" ]; then
        step "making a small Debian 12"
        made=$(mktemp -d "$env_dir/debian12.XXXXXX")
        debootstrap --variant=minbase --include=libcap2-bin bookworm "$made" >"$env_dir/debootstrap.log" 2>&1 ||
            fail "debootstrap failed; see $env_dir/debootstrap.log"
        tar -C "$made" -cf "$archive.new" . && mv "$archive.new" "$archive"
        rm -rf "$made"
    fi
    echo "$archive"
}
