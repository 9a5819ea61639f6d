"""nftables: a table of lamina's own, changed in one transaction, never doubled.

The chain ``admin`` is the administrator's: it is looked through first for everything that is forwarded to or from containers, and lamina
never writes to it.
"""

from __future__ import annotations

import shutil
from ipaddress import IPv4Network

from lamina.linux import processes
from lamina.network.errors import BridgeUnavailable

_TABLE = """
add table inet {table}
add chain inet {table} admin
add chain inet {table} forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet {table} postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain inet {table} forward
flush chain inet {table} postrouting
add rule inet {table} forward iifname "{bridge}" jump admin
add rule inet {table} forward oifname "{bridge}" jump admin
add rule inet {table} forward oifname "{bridge}" ct state established,related accept
add rule inet {table} forward iifname "{bridge}" accept
add rule inet {table} postrouting ip saddr {subnet} oifname != "{bridge}" masquerade
"""


async def install(table: str, bridge: str, subnet: IPv4Network) -> None:
    """Make the rules of the bridge network what they are to be, whatever was there. Raises BridgeUnavailable."""
    await _run(_TABLE.format(table=table, bridge=bridge, subnet=subnet))


async def remove(table: str) -> None:
    """Remove the table with everything in it; gone already is no error."""
    await _run(f"add table inet {table}\ndelete table inet {table}\n")


async def _run(script: str) -> None:
    if shutil.which("nft") is None:
        raise BridgeUnavailable("nft is not installed (apt-get install nftables)")
    done = await processes.run(["nft", "-f", "-"], input=script.encode())
    if done.returncode != 0:
        raise BridgeUnavailable(f"nft: {done.stderr.decode(errors='replace').strip()}")
