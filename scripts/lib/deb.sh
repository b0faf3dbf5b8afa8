# What all of Ria's Debian packages have in common. Sourced by scripts/package, which sets version, debian_version,
# maintainer, work, output and effort.
# shellcheck shell=bash disable=SC2154

# put TREE SOURCE PLACE [MODE]
put() { install -D -m "${4:-644}" "$2" "$1/$3"; }

# documents TREE NAME: what Debian asks for in /usr/share/doc.
documents() {
    local tree=$1 doc=usr/share/doc/$2
    put "$tree" packaging/debian/copyright "$doc/copyright"
    gzip -9nc CHANGELOG.md >"$tree/$doc/changelog.gz"
    printf 'ria (%s) stable; urgency=medium\n\n  * What is new: changelog.gz beside this.\n\n -- %s  %s\n' \
        "$debian_version" "$maintainer" "$(date -R -u -d "@$SOURCE_DATE_EPOCH")" |
        gzip -9n >"$tree/$doc/changelog.Debian.gz"
}

# shared_libraries NAME FILE... [-- OPTION...]: the packages that these programs and libraries need, as dpkg-shlibdeps finds them.
shared_libraries() {
    local name=$1 files=()
    shift
    while [ $# -gt 0 ] && [ "$1" != -- ]; do files+=("$1") && shift; done
    [ $# -eq 0 ] || shift
    mkdir -p "$work/shlibs/debian"
    printf 'Source: ria\nMaintainer: %s\n\nPackage: %s\nArchitecture: any\n' "$maintainer" "$name" >"$work/shlibs/debian/control"
    (cd "$work/shlibs" && dpkg-shlibdeps "$@" -O "${files[@]}" 2>"$work/shlibs/said") | sed -n 's/^shlibs:Depends=//p'
}

# The description, which has several lines, is the last field.
reorder() {
    local text
    text=$(cat)
    grep -v '^Description:\|^ ' <<<"$text"
    grep '^Description:\|^ ' <<<"$text"
}

# seal TREE NAME ARCH: makes the package; the fields of its own are on standard input.
seal() {
    local tree=$1 name=$2 of=$3
    mkdir -p "$tree/DEBIAN"
    {
        cat
        printf 'Version: %s\nArchitecture: %s\nMaintainer: %s\nInstalled-Size: %s\n' \
            "$debian_version" "$of" "$maintainer" "$(du -sk --exclude=DEBIAN "$tree" | cut -f1)"
    } | reorder >"$tree/DEBIAN/control"
    (cd "$tree" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
    dpkg-deb --root-owner-group -Zxz "-z$effort" --build "$tree" "$output/${name}_${debian_version}_$of.deb" >/dev/null
    good "$output/${name}_${debian_version}_$of.deb"
}
