"""Runs a command where nothing can leave the machine, and records what tries to: lookups, connections, datagrams.

The command gets a network namespace of its own. Its only way out is a device of this script, which takes every packet
and answers none; names are looked up at an address behind that device. As a script: REPORT COMMAND...
"""

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

NOT_PERMITTED = 77  # exit code
NEW_USER, NEW_NET, NEW_MOUNTS = 0x10000000, 0x40000000, 0x00020000
BIND, PRIVATE, RECURSIVE = 0x1000, 0x40000, 0x4000
SET_ADDRESS, SET_MASK, SET_FLAGS, GET_INDEX, ADD_ROUTE, MAKE_TUN = 0x8916, 0x891C, 0x8914, 0x8933, 0x890B, 0x400454CA
UP, TUN_WITHOUT_HEADER = 0x1, 0x1001
DEVICE, ADDRESS, NAME_SERVER = b"out", "192.0.2.9", "192.0.2.53"
OF_THE_KERNEL = {0, 1, 2, 58}  # it greets a new device: hop-by-hop options, ICMP, IGMP, ICMPv6
TCP, UDP = 6, 17


def run_offline(
    command: list[str], env: dict[str, str], report: Path
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """How the command ended, and what it tried to reach: "udp 192.0.2.53:53" is a lookup.

    The exit code NOT_PERMITTED says that this system lets nobody watch; standard error says why.
    """
    words = [sys.executable, __file__, str(report), *command]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    return done, json.loads(report.read_text()) if report.exists() else []


def _enter() -> int:
    """Move this process into a namespace; the device of its packets. Raises OSError where that is not permitted."""
    libc, uid, gid = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(NEW_USER | NEW_NET | NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespace of its own")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, MAKE_TUN, struct.pack("16sH22x", DEVICE, TUN_WITHOUT_HEADER))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ipv4, socket.socket(socket.AF_INET6) as ipv6:
        for number, address in ((SET_ADDRESS, ADDRESS), (SET_MASK, "255.255.255.0")):
            packed = struct.pack("16sH2x4s16x", DEVICE, socket.AF_INET, socket.inet_aton(address))
            fcntl.ioctl(ipv4, number, packed)
        for name in (b"lo", DEVICE):
            fcntl.ioctl(ipv4, SET_FLAGS, struct.pack("16sH22x", name, UP))
        device_name = ctypes.create_string_buffer(DEVICE)
        anywhere = struct.pack("H14x", socket.AF_INET)
        fields = (0, anywhere, anywhere, anywhere, UP, 0, 0, 0, 0, ctypes.addressof(device_name), 0, 0, 0)
        route = struct.pack("L16s16s16sHhLPhPLLH", *fields)  # struct rtentry
        fcntl.ioctl(ipv4, ADD_ROUTE, route)
        index = struct.unpack("16si20x", fcntl.ioctl(ipv4, GET_INDEX, struct.pack("16s24x", DEVICE)))[1]
        address = socket.inet_pton(socket.AF_INET6, "2001:db8::9")
        fcntl.ioctl(ipv6, SET_ADDRESS, struct.pack("16sIi", address, 0, index))
    _look_up_outside(libc)
    return device


def _look_up_outside(libc: ctypes.CDLL) -> None:
    """Have names looked up at NAME_SERVER, with one short try."""
    target = os.path.realpath("/etc/resolv.conf").encode()
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as made:
        made.write(f"nameserver {NAME_SERVER}\noptions timeout:1 attempts:1\n")
        made.flush()
        wrong = libc.mount(None, b"/", None, PRIVATE | RECURSIVE, None)
        wrong = wrong or libc.mount(made.name.encode(), target, None, BIND, None)
    if wrong:
        raise OSError(ctypes.get_errno(), "no /etc/resolv.conf of its own")


def _describe(packet: bytes) -> str | None:
    """Protocol, address and port of a packet; None for one of the kernel."""
    if packet[0] >> 4 == 4:
        kind, start = packet[9], 4 * (packet[0] & 15)
        address = socket.inet_ntop(socket.AF_INET, packet[16:20])
    else:
        kind, start = packet[6], 40
        address = f"[{socket.inet_ntop(socket.AF_INET6, packet[24:40])}]"
    if kind in OF_THE_KERNEL:
        return None
    port = struct.unpack_from("!H", packet, start + 2)[0]
    return f"{ {TCP: 'tcp', UDP: 'udp'}.get(kind, kind) } {address}:{port}"


def _taken(device: int) -> list[str]:
    found = []
    while True:
        try:
            packet = os.read(device, 2**16)
        except BlockingIOError:
            return found
        if said := _describe(packet):
            found.append(said)


def main() -> None:
    """Run the command; write what it tried to reach."""
    try:
        device = _enter()
    except OSError as error:
        print(f"not permitted here: {error}", file=sys.stderr)
        raise SystemExit(NOT_PERMITTED) from None
    code = subprocess.run(sys.argv[2:], check=False).returncode
    Path(sys.argv[1]).write_text(json.dumps(_taken(device)))
    raise SystemExit(code)


if __name__ == "__main__":
    main()
