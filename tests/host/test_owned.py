"""
Tests of :mod:`yurt.host.owned`, with this host's own connections and with tables from elsewhere.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from tempfile import mkdtemp

from twisted.trial.unittest import SynchronousTestCase

from yurt.host.owned import without_owner

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ROW = "   0: {local} 00000000:0000 01 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000007fb5bf1\n"


class OwnedTests(SynchronousTestCase):
    """
    Tests of the function.
    """

    def table(self, *rows: tuple[str, int]) -> str:
        """
        The path of a table that holds these rows.
        """
        path = Path(mkdtemp(dir=os.getcwd())) / "tcp"
        path.write_text(HEAD + "".join(ROW.format(local=local, inode=inode) for local, inode in rows))
        return str(path)

    def test_left_to_the_kernel(self) -> None:
        """
        A connection that was closed with bytes that the other side has no room for is without owner; before that it is not.
        """
        for host in ("127.0.0.1", "::1"):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as caller:
                caller.connect(listener.getsockname()[:2])
                end = host, caller.getsockname()[1]
                held, _ = listener.accept()
                self.addCleanup(held.close)
                caller.setblocking(False)
                with self.assertRaises(BlockingIOError):
                    while True:
                        caller.send(bytes(65536))
                self.assertEqual(without_owner({end}), set())
                caller.close()
                self.assertEqual(without_owner({end}), {end})

    def test_tables(self) -> None:
        """
        Addresses are read as the kernel of a little-endian machine prints them; what any process holds is not without owner, and
        nothing is said of what is not there.
        """
        four = self.table(("0100000A:C350", 0), ("0200000A:C350", 0), ("0200000A:C350", 77))
        six = self.table(("000000FD000000000000000001000000:01BB", 0), ("0000000000000000FFFF00000300000A:0050", 0))
        ends = {("10.0.0.1", 50000), ("10.0.0.2", 50000), ("fd00::1", 443), ("10.0.0.3", 80), ("10.0.0.9", 50000)}
        self.assertEqual(without_owner(ends, (four, six)), {("10.0.0.1", 50000), ("fd00::1", 443), ("10.0.0.3", 80)})

    def test_no_tables(self) -> None:
        """
        Where the kernel does not tell, nobody is without owner.
        """
        self.assertEqual(without_owner({("127.0.0.1", 1)}, ("/nowhere", "/nowhere6")), set())
