# Programs that Debian 12 has too old: from Debian 13's packages, unpacked beside the system. Sourced behind common.sh.
# shellcheck shell=bash

# debian13 PACKAGE FILE PLACE: puts one file of a package to its place, from the mirror that this machine already uses.
debian13() {
    local package=$1 file=$2 place=$3 mirror unpack
    mirror=$(apt-get indextargets --format '$(SITE)' | sort -u | sed '/security/d' | sed -n 1p)
    [ -n "$mirror" ] || fail "no Debian mirror in the sources of apt"
    unpack=$(mktemp -d)
    mkdir -p "$unpack/lists/partial" "$unpack/cache/archives/partial"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$unpack/sources.list"
    local apt=(apt-get -qq -o Dir::Etc::sourcelist="$unpack/sources.list" -o Dir::Etc::sourceparts=-
        -o Dir::State::lists="$unpack/lists" -o Dir::Cache="$unpack/cache" -o APT::Sandbox::User=root)
    "${apt[@]}" update || fail "Debian 13's package lists can't be had from $mirror"
    (cd "$unpack" && "${apt[@]}" download "$package") || fail "Debian 13's $package can't be had"
    dpkg-deb -x "$unpack/${package}"_*.deb "$unpack/root"
    install -m 755 "$unpack/root/$file" "$place"
    rm -rf "$unpack"
}
