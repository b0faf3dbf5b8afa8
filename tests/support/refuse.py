"""Takes away what a kernel may be without, by the kernel's own means, so that programs meet the refusal itself.

    refuse.py frames|uso|gso COMMAND...   runs a command to whose TUN devices, or UDP sockets, the kernel says EINVAL:
                                          no offloads at all, none for UDP (before Linux 6.2), no runs (before 4.18)
    refuse.py runs PID                    UDP sockets of a process take no runs from now on, as where a card or a route does
                                          not: the kernel refuses them on sockets that send without checksums
"""

import ctypes
import os
import platform
import socket
import struct
import sys

TUNSETOFFLOAD = 0x4004_54D0
TCP, UDP = 0x07, 0x60  # TUN_F_CSUM, TSO4, TSO6; USO4, USO6
SOL_UDP, UDP_SEGMENT, SO_NO_CHECK = 17, 103, 11
IOCTL, SETSOCKOPT, PIDFD_GETFD = {"x86_64": (16, 54, 438), "aarch64": (29, 208, 438)}[platform.machine()]
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, EINVAL = 0x7FFF_0000, 0x0005_0000 | 22
# The lower halves of a call's number and arguments, where struct seccomp_data has them.
NUMBER, ARGUMENTS = 0, [16 + 8 * n for n in range(6)]
LOAD, RETURN, IF_EQUAL, IF_ANY_BIT = 0x20, 0x06, 0x15, 0x45

libc = ctypes.CDLL(None, use_errno=True)


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def refuse(*conditions):
    """Has the kernel refuse, to this process and what it becomes, the calls for which all conditions hold."""
    code = []
    for n, (place, test, value) in enumerate(conditions):
        to_allow = 2 * (len(conditions) - 1 - n) + 1
        code += [(LOAD, 0, 0, place), (test, 0, to_allow, value)]
    code += [(RETURN, 0, 0, EINVAL), (RETURN, 0, 0, ALLOW)]
    text = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(text)))
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0))


def refuse_runs(pid):
    """Lets the UDP sockets of a process send without checksums; how many it has."""
    process = os.pidfd_open(pid)
    count = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
            with socket.socket(fileno=check(libc.syscall(PIDFD_GETFD, process, int(number), 0))) as one:
                if one.family in (socket.AF_INET, socket.AF_INET6) and one.type == socket.SOCK_DGRAM:
                    one.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
                    count += 1
    return count


what, *rest = sys.argv[1:]
if what == "runs":
    sys.exit(0 if refuse_runs(int(rest[0])) else "no UDP sockets")
if what == "gso":
    refuse((NUMBER, IF_EQUAL, SETSOCKOPT), (ARGUMENTS[1], IF_EQUAL, SOL_UDP), (ARGUMENTS[2], IF_EQUAL, UDP_SEGMENT))
else:
    bits = {"frames": TCP | UDP, "uso": UDP}[what]
    refuse((NUMBER, IF_EQUAL, IOCTL), (ARGUMENTS[1], IF_EQUAL, TUNSETOFFLOAD), (ARGUMENTS[2], IF_ANY_BIT, bits))
os.execvp(rest[0], rest)
