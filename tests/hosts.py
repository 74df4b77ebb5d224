"""Hosts that share this machine's disk: network namespaces, each with one cable to a switch.

They need root, Linux and ``ip``. Nothing of them is seen outside: the switch is a namespace too, so
that this machine gets no interface, no address and no route.
"""

import ipaddress
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

REPOSITORY = Path(__file__).parents[1]

_SWITCH = "switch"
_SUBNET = "10.77.0"
"""Two networks may use it at once: neither sees the other."""

_GONE_S = 10.0
"""How long what was killed may take to be gone."""

_COUNT = itertools.count()


def why_not() -> str | None:
    """Return why this machine can have no such hosts, or None."""
    if shutil.which("ip") is None or shutil.which("taskset") is None:
        return "ip (iproute2) and taskset (util-linux) are not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network("trial"):
            return None
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted here ({error.stderr.strip()})"


class Network:
    """Hosts by their names, from the start of a block to its end; then none of it is left."""

    def __init__(self, *hosts: str) -> None:
        self.addresses = {host: f"{_SUBNET}.{i}" for i, host in enumerate(hosts, 1)}
        self.prefix = f"allcnn-{os.getpid()}-{next(_COUNT)}-"
        """Of the namespaces' names; two networks differ in it."""
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        try:
            self._build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _build(self) -> None:
        for name in (_SWITCH, *self.addresses):
            _ip("netns", "add", self.prefix + name)
            self._in(name, "link", "set", "lo", "up")
        self._in(_SWITCH, "link", "add", "bridge", "type", "bridge")
        self._in(_SWITCH, "link", "set", "bridge", "up")
        for host, address in self.addresses.items():
            self._plug_in(host, address)

    def _plug_in(self, host: str, address: str) -> None:
        far = ("peer", "name", "eth0", "netns", self.prefix + host)
        self._in(_SWITCH, "link", "add", host, "type", "veth", *far)
        self._in(_SWITCH, "link", "set", host, "master", "bridge", "up")
        self._in(host, "address", "add", f"{address}/24", "dev", "eth0")
        self._in(host, "link", "set", "eth0", "up")

    def _in(self, name: str, *words: str) -> None:
        _ip("-n", self.prefix + name, *words)

    def cut(self, host: str) -> None:
        """Pull a host's cable out of the switch; what the host runs goes on."""
        self._in(_SWITCH, "link", "set", host, "down")

    def mend(self, host: str) -> None:
        """Put the cable back."""
        self._in(_SWITCH, "link", "set", host, "up")

    def start(
        self, host: str, command: Sequence[str], log: IO[str], **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start a command of this repository on a host, in a process group of its own."""
        started = subprocess.Popen(
            ["ip", "netns", "exec", self.prefix + host, *command],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # A signal from the keyboard is for whoever started the hosts, who then ends them all.
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        )
        self._started.append(started)
        return started

    def listening(self, host: str) -> set[str]:
        """Return the addresses on which something listens on a host."""
        pids = _pids(self.prefix + host)
        tables = [Path(f"/proc/{pid}/net/{table}") for pid in pids[:1] for table in ("tcp", "tcp6")]
        return {address for table in tables for address in _listening(table)}

    def remove(self) -> None:
        """End whatever runs on the hosts, and take them away; a second time does nothing."""
        for started in self._started:
            # One that has only just been started may be on no host yet.
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        mine = [name for name in namespaces() if name.startswith(self.prefix)]
        for name in mine:
            _end_all(name)
            # The cables and the bridge go with the namespaces.
            _ip("netns", "delete", name)


def namespaces() -> list[str]:
    """Return the names of this machine's network namespaces."""
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line]


def _listening(table: Path) -> set[str]:
    rows = [line.split() for line in table.read_text(encoding="ascii").splitlines()[1:]]
    return {_address(row[1].partition(":")[0]) for row in rows if row[3] == "0A"}


def _address(number: str) -> str:
    # Words of four bytes, each in the order of this machine, which is taken to be the usual one.
    words = [bytes.fromhex(number[i : i + 8])[::-1] for i in range(0, len(number), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def _end_all(name: str) -> None:
    """Kill what runs in a namespace, whoever its parent is, and wait until it is gone."""
    deadline = time.monotonic() + _GONE_S
    while (pids := _pids(name)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _pids(name: str) -> list[int]:
    # A name that was only just made, as a signal came, has no namespace yet.
    return [int(pid) for pid in _ip("netns", "pids", name, check=False).split()]


def _ip(*words: str, check: bool = True) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=check).stdout
