"""Another account of this machine, which tries to have its code run by Dask's processes.

    python -m tests.stranger tcp://127.0.0.1:8786 ...

Becomes ``nobody`` where root starts it. Prints what came of each way to each address, as JSON.
"""

# ruff: noqa: T201 - prints what happened

import asyncio
import json
import os
import sys

from distributed import Security
from distributed.core import rpc
from distributed.protocol.pickle import dumps

NOBODY = 65534
_LIMIT_S = 5.0


def become_nobody() -> None:
    """Give up root's rights, after all was imported that only root may read."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


async def intrude(address: str) -> dict[str, str]:
    """Ask a process for the account it runs under: in clear text, and by other certificates."""
    where = address.partition("://")[2]
    return {
        "tcp": await _intrude(f"tcp://{where}", Security()),
        "tls": await _intrude(f"tls://{where}", Security.temporary()),
    }


async def _intrude(address: str, security: Security) -> str:
    call = {"function": dumps(os.getuid), "args": dumps(()), "kwargs": dumps({}), "wait": True}
    arguments = security.get_connection_args("client")
    async with rpc(address, connection_args=arguments, timeout=_LIMIT_S) as process:
        try:
            kind = (await process.identity())["type"]
            run = process.run_function if kind == "Scheduler" else process.run
            return f"{kind} ran code: {await asyncio.wait_for(run(**call), _LIMIT_S)}"
        except (OSError, ValueError) as error:  # the latter of one that speaks clear text
            return f"refused: {type(error).__name__}"


def main(addresses: list[str]) -> None:
    """Try all, and print what came of it."""
    become_nobody()
    found = {address: asyncio.run(intrude(address)) for address in addresses}
    print(json.dumps({"account": os.getuid(), "found": found}))


if __name__ == "__main__":
    main(sys.argv[1:])
