# Building for 64-bit ARM elsewhere, and running what was built. Sourced, after common.sh.
# shellcheck shell=bash

target=aarch64-unknown-linux-gnu
need_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
need_rust
if command -v rustup >/dev/null; then
    rustup target list --installed | grep -qx "$target" || rustup target add "$target" >&2 ||
        fail "the standard library for $target can't be had; see 'rustup target list'"
elif ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    fail "this toolchain has no standard library for $target; install it (with rustup: rustup target add $target)"
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
# With the loader and libc of the cross compiler.
aarch64_runner=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="${aarch64_runner[*]}"
