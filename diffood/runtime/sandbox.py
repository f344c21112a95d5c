"""Takes from this process, for good, what decoding does not need: files, network, programs, most system calls.

Linux alone has the means, each of which may be missing: no_new_privs, Landlock, seccomp. Whatever there is is used.
Called once all is imported, since a module cannot be loaded afterwards. Nothing here ever fails.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable

# linux/prctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h, linux/landlock.h, linux/sched.h
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC = 1, 1
KILL_PROCESS, ERRNO, ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
NUMBER_AT, ARCHITECTURE_AT, FIRST_ARGUMENT_AT = 0, 4, 16  # in seccomp_data; the low word, on little-endian machines
CLONE_THREAD = 0x00010000
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446  # on every architecture
LANDLOCK_VERSION_FLAG = 1
FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Bits of LANDLOCK_ACCESS_FS by the first version of the interface that knows so many."""
TCP_SINCE, SCOPES_SINCE = 4, 6  # two bits each: bind and connect; abstract sockets and signals

# Per machine, from asm/unistd.h: its number in linux/audit.h, seccomp, clone3, clone, kill and tgkill, then what is
# allowed: reading and writing what is open, memory, threads' locks, clocks, signals to itself, the end.
_X86_64 = (
    *(0, 1, 19, 20, 17, 8, 3, 5),  # read, write, readv, writev, pread64, lseek, close, fstat
    *(7, 271, 270, 23),  # poll, ppoll, pselect6, select
    *(9, 11, 25, 10, 28, 12),  # mmap, munmap, mremap, mprotect, madvise, brk
    *(13, 14, 15, 131, 219),  # rt_sigaction, rt_sigprocmask, rt_sigreturn, sigaltstack, restart_syscall
    *(202, 24, 204, 309, 273, 334, 324, 218),  # futex, sched_yield and _getaffinity, getcpu, robust list, rseq, ...
    *(35, 230, 228, 229, 96, 38, 36),  # nanosleep, clock_nanosleep, _gettime, _getres, gettimeofday, set-, getitimer
    *(39, 186, 98, 99, 318, 60, 231),  # getpid, gettid, getrusage, sysinfo, getrandom, exit, exit_group
)
_AARCH64 = (
    *(63, 64, 65, 66, 67, 62, 57, 80),
    *(73, 72),
    *(222, 215, 216, 226, 233, 214),
    *(134, 135, 139, 132, 128),
    *(98, 124, 123, 168, 99, 293, 283, 96),
    *(101, 115, 113, 114, 169, 103, 102),
    *(172, 178, 165, 179, 278, 93, 94),
)
MACHINES = {
    "x86_64": (0xC000003E, 317, 435, 56, (62, 234), _X86_64),
    "aarch64": (0xC00000B7, 277, 435, 220, (129, 131), _AARCH64),
}


def confine_process() -> tuple[str, ...]:
    """Give up all but what is open already and memory, for good; returns the names of what now holds."""
    if sys.platform != "linux":
        return ()
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        prctl, syscall = libc.prctl, libc.syscall
    except (OSError, AttributeError):
        return ()
    syscall.restype = ctypes.c_long
    if prctl(PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))) != 0:
        return ()  # neither of the others can be had without it
    held = ("no new privileges", _landlock(syscall), _seccomp(syscall))
    return tuple(name for name in held if name)


def main() -> None:
    """Confine this process and print what holds, for `diffood doctor`."""
    print(", ".join(confine_process()))  # noqa: T201 - read by `diffood doctor`


def _landlock(syscall: Callable[..., int]) -> str:
    """No file by its path, and where the kernel knows how, no TCP and no signal to others; "" without Landlock."""
    version = syscall(*map(ctypes.c_long, (LANDLOCK_CREATE_RULESET, 0, 0, LANDLOCK_VERSION_FLAG)))
    if version < 1:
        return ""
    files = (1 << max(bits for since, bits in FILE_RIGHTS.items() if version >= since)) - 1
    rules = struct.pack("QQQ", files, 3 * (version >= TCP_SINCE), 3 * (version >= SCOPES_SINCE))
    ruleset = syscall(ctypes.c_long(LANDLOCK_CREATE_RULESET), rules, *map(ctypes.c_long, (len(rules), 0)))
    if ruleset < 0:
        return ""
    failed = syscall(*map(ctypes.c_long, (LANDLOCK_RESTRICT_SELF, ruleset, 0)))
    os.close(ruleset)
    return "" if failed else f"Landlock {version}"


def _seccomp(syscall: Callable[..., int]) -> str:
    """No system call but those listed, in every thread; "" where the kernel or the machine has no filter."""
    machine = MACHINES.get(platform.machine())
    if machine is None or sys.byteorder != "little" or sys.maxsize < 2**32:
        return ""
    program = filter_program(os.getpid(), *machine)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    numbers = map(ctypes.c_long, (machine[1], SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC))
    return "" if syscall(*numbers, header) else "seccomp"


def filter_program(
    pid: int, audit: int, _seccomp: int, clone3: int, clone: int, kills: tuple[int, ...], allowed: tuple[int, ...]
) -> bytes:
    """The filter as instructions of classic BPF: what is not allowed fails with EPERM.

    Threads may be started, processes not; clone3, whose flags a filter cannot see, seems not to exist, so that the C
    library takes clone. Signals reach this process alone.
    """
    denied, missing = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
    lines = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_AT),
        (JUMP_IF_EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL_PROCESS),  # calls of another architecture have other numbers
        (LOAD_WORD, 0, 0, NUMBER_AT),
        (JUMP_IF_EQUAL, 0, 1, clone3),
        (RETURN, 0, 0, missing),
        *_if_argument(clone, JUMP_IF_BIT, CLONE_THREAD, denied),
        *(line for number in kills for line in _if_argument(number, JUMP_IF_EQUAL, pid, denied)),
        *(line for number in allowed for line in ((JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ALLOW))),
        (RETURN, 0, 0, denied),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _if_argument(number: int, test: int, value: int, denied: int) -> list[tuple[int, int, int, int]]:
    """Allow system call `number` where its first argument passes a test."""
    return [
        (JUMP_IF_EQUAL, 0, 4, number),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT_AT),
        (test, 0, 1, value),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, denied),
    ]
