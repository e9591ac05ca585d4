"""
Secrets at rest: what the disk shows, and what a lost key costs.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from unittest.mock import patch

import lmdb
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.hub.cache.fixtures import KUBELET, InlineWriter, item, listed
from yurt.hub.cache import Caller, Found, Store, ViewKey, Views, format
from yurt.hub.cache.folder import CORRUPT_FILE, DATA_FILE, NEW_FILE
from yurt.hub.cache.format import FORMAT_KEY
from yurt.hub.cache.sealing import BadRecord, LockedRecord, Secrets, seal, shorten, unseal
from yurt.hub.cache.store import LOOK_INTERVAL, REOPEN_INTERVAL
from yurt.hub.cache.vault import KEY_FILE, KEY_SIZE, LostKey, Vault

SECRETS = "/v1/secrets"
MAPS = "/v1/configmaps"
PASSWORD = "correct-horse-battery-staple"
LISTED = listed(10, item("a", 1, data={"password": PASSWORD}), item("b", 2, data={"password": PASSWORD * 400}), kind="SecretList")
OPEN = listed(10, item("m", 3, data={"colour": "green-and-open"}))


class VaultCase(SynchronousTestCase):
    """
    A cache and, in a folder apart, the key.
    """

    def setUp(self) -> None:
        self.path, self.own = self.mktemp(), self.mktemp()
        self.clock = Clock()

    def open(self, *, vault: bool = True) -> Store:
        """
        The store as a process finds it; ``views`` are over it.
        """
        key = Vault(self.own) if vault else None
        self.store = Store(self.clock, self.path, writer=InlineWriter(), vault=key)
        self.views = Views(self.store, self.clock, lambda: 1_700_000_000.0)
        self.table = self.store.table("tokens", secret=b"")
        self.store.open()
        self.addCleanup(self.store._leave_disk)
        return self.store

    def fill(self) -> None:
        """
        Two Secrets, a ConfigMap and a token on the disk.
        """
        self.views.store_list(ViewKey(KUBELET, SECRETS), LISTED, requested_version="")
        self.views.store_list(ViewKey(KUBELET, MAPS), OPEN, requested_version="")
        self.table.put(b"one", PASSWORD.encode())
        self.successResultOf(self.store.flush())

    def again(self) -> Store:
        """
        Stop in good order, and start again.
        """
        self.successResultOf(self.store.close())
        return self.open()

    def on_disk(self) -> bytes:
        """
        Every byte of the cache's folder.
        """
        return b"".join(Path(self.path, name).read_bytes() for name in sorted(os.listdir(self.path)))

    def password(self, name: str = "a", gvr: str = SECRETS) -> str | None:
        """
        What kubelet reads.
        """
        found = self.views.read_object(KUBELET, gvr, "", "default", name)
        return found.body.decode() if isinstance(found, Found) else None

    def assert_readable(self) -> None:
        """
        All is there.
        """
        self.assertIn(PASSWORD, self.password() or "")
        self.assertIn(PASSWORD * 400, self.password("b") or "")
        self.assertIn("green-and-open", self.password("m", MAPS) or "")
        self.assertEqual(self.table.get(b"one"), PASSWORD.encode())


class EncryptionTests(VaultCase):
    """
    What lies on the disk.
    """

    def test_nothing_shows(self) -> None:
        """
        Secrets and tokens are read back, by the next process too, and nowhere on the disk; other objects are stored as they are.
        """
        self.open()
        self.fill()
        self.assertNotIn(PASSWORD[:12].encode(), self.on_disk())
        self.assertIn(b"green-and-open", self.on_disk())
        self.again()
        self.assert_readable()
        self.assertEqual((self.store.locked_records, self.store.corrupt_records), (0, 0))

    def test_forms(self) -> None:
        """
        A Secret's Table row is no less of a secret.
        """
        self.open()
        row = b'{"cells":["%b"],"object":{"metadata":{"name":"a","namespace":"default"}}}' % PASSWORD.encode()
        head = b'{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"columnDefinitions":[],'
        self.views.store_object(KUBELET, SECRETS, "Table", head + b'"rows":[%b]}' % row)
        self.successResultOf(self.store.flush())
        self.assertIsInstance(self.views.read_object(KUBELET, SECRETS, "Table", "default", "a"), Found)
        self.assertNotIn(PASSWORD.encode(), self.on_disk())

    def test_key_file(self) -> None:
        """
        The key lies in the hub's own folder, for its owner alone; one that others could read is put right.
        """
        self.open()
        self.fill()
        key = Path(self.own, KEY_FILE)
        self.assertEqual((stat.S_IMODE(key.stat().st_mode), key.stat().st_size), (0o600, KEY_SIZE))
        self.assertNotIn(key.read_bytes(), self.on_disk())
        key.chmod(0o644)
        self.again()
        self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o600)
        self.assert_readable()

    def test_places(self) -> None:
        """
        A record opens in its own place only, and the same value never looks the same.
        """
        vault = Vault(self.own)
        vault.open()
        locked = vault.lock(b"table\0here", b"value")
        self.assertEqual(vault.unlock(b"table\0here", locked), b"value")
        self.assertNotEqual(vault.lock(b"table\0here", b"value"), locked)
        for place, value in (
            (b"table\0there", locked),
            (b"other\0here", locked),
            (b"table\0here", locked[:-1]),
            (b"table\0here", b""),
        ):
            self.assertRaises(LostKey, vault.unlock, place, value)

    def test_long_keys(self) -> None:
        """
        A key that is shortened on the disk is bound whole.
        """
        vault = Vault(self.own)
        secrets = Secrets(vault, (b"t\0",))
        one, other = (b"t\0" + b"x" * 600 + end for end in (b"1", b"2"))
        record = seal(one, shorten(one), b"value", secrets)
        self.assertEqual(unseal(shorten(one), record, secrets), (one, b"value"))
        self.assertNotIn(b"value", record)
        self.assertRaises(LockedRecord, unseal, shorten(one), record, None)
        forged = seal(other, shorten(one), b"", None)[4:608] + record[608:]
        self.assertRaises(BadRecord, unseal, shorten(one), forged, secrets)

    def test_torn_write(self) -> None:
        """
        A process that dies with writes in memory leaves each secret in its old or its new state.
        """
        self.open()
        self.fill()
        self.table.put(b"one", b"newer")
        self.store._leave_disk()
        self.open()
        self.assert_readable()


class LostKeyTests(VaultCase):
    """
    What cannot be read is dropped, and everything else stays.
    """

    def lose(self, key: bytes | None) -> None:
        """
        Start again with another key in the file, or none.
        """
        self.open()
        self.fill()
        self.successResultOf(self.store.close())
        path = Path(self.own, KEY_FILE)
        path.unlink()
        if key is not None:
            path.write_bytes(key)
        self.open()

    def assert_lost(self) -> None:
        """
        Secrets are unknown, as if never seen; others are there; what comes next is kept again.
        """
        self.assertIsNone(self.password())
        self.assertIsNone(self.views.read_list(ViewKey(KUBELET, SECRETS)))
        self.assertIsNone(self.table.get(b"one"))
        self.assertEqual(list(self.table.scan()), [])
        self.assertIn("green-and-open", self.password("m", MAPS) or "")
        self.assertEqual((self.store.locked_records, self.store.corrupt_records), (3, 0))
        self.assertIsNone(self.store.problem)
        self.fill()
        self.again()
        self.assert_readable()
        self.assertEqual(self.store.locked_records, 0)

    def test_gone(self) -> None:
        """
        Without its file there is a new key; what the old one encrypted is dropped and counted.
        """
        self.lose(None)
        self.assert_lost()

    def test_removed_in_use(self) -> None:
        """
        A key that is removed under a running hub is written again within seconds: the next process reads everything.
        """
        self.open()
        self.fill()
        shutil.rmtree(self.own)
        self.clock.pump([LOOK_INTERVAL])
        self.assertEqual(stat.S_IMODE(os.stat(Path(self.own, KEY_FILE)).st_mode), 0o600)
        self.again()
        self.assert_readable()
        self.assertEqual(self.store.locked_records, 0)

    def test_changed(self) -> None:
        """
        The same with another key.
        """
        self.lose(os.urandom(KEY_SIZE))
        self.assert_lost()

    def test_torn(self) -> None:
        """
        A file that holds no key is replaced, and the log says so.
        """
        self.lose(b"half a key")
        self.assert_lost()

    def test_out_of_reach(self) -> None:
        """
        While the key's file cannot be read, the secrets stay on the disk, and readiness says why; when it can be read again, they
        are there.
        """
        self.open()
        self.fill()
        self.successResultOf(self.store.close())
        with patch.object(Vault, "_read", side_effect=PermissionError(13, "Permission denied", "/own/cache.key")):
            self.open()
            self.assertIsNone(self.password())
            assert self.store.vault is not None
            self.assertEqual(self.store.vault.problem, "/own/cache.key: Permission denied")
            self.clock.advance(REOPEN_INTERVAL)
        self.clock.advance(REOPEN_INTERVAL)
        self.assertIsNone(self.store.vault.problem)
        self.assertEqual(self.store.locked_records, 0)
        self.assert_readable()

    def test_no_folder(self) -> None:
        """
        Where the key cannot be kept, secrets are served all the same, never in clear on the disk, and the key is kept as soon as
        that is possible.
        """
        Path(self.own).write_text("no folder")
        self.open()
        self.fill()
        assert self.store.vault is not None
        self.assertIn(self.own, self.store.vault.problem or "")
        self.assert_readable()
        self.assertNotIn(PASSWORD[:12].encode(), self.on_disk())
        os.unlink(self.own)
        self.clock.advance(REOPEN_INTERVAL)
        self.assertIsNone(self.store.vault.problem)
        self.again()
        self.assert_readable()


class OlderFileTests(VaultCase):
    """
    A file of a hub that did not encrypt.
    """

    def setUp(self) -> None:
        super().setUp()
        self.open(vault=False)
        self.fill()
        for number in range(2000):  # More than one step.
            self.store.table("t").put(b"%d" % number, b"x")
        self.store.table("meta")
        self.successResultOf(self.store.close())
        self.write(FORMAT_KEY, seal(FORMAT_KEY, FORMAT_KEY, b"1"))

    def write(self, key: bytes, record: bytes) -> None:
        """
        Put a raw record.
        """
        with lmdb.open(self.path, lock=False, map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
            transaction.put(key, record)

    def format(self) -> bytes:
        """
        What the file says of its format.
        """
        with lmdb.open(self.path, lock=False, readonly=True) as environment, environment.begin() as transaction:
            return unseal(FORMAT_KEY, transaction.get(FORMAT_KEY, b""))[1]

    def test_written_anew(self) -> None:
        """
        Its secrets are encrypted at the first start, and no page of the file shows them any more, nor does a damaged file that
        was set aside.
        """
        Path(self.path, CORRUPT_FILE).write_text(PASSWORD)
        self.assertIn(PASSWORD.encode(), self.on_disk())
        self.open()
        self.assert_readable()
        self.assertNotIn(PASSWORD[:12].encode(), self.on_disk())
        self.assertEqual(len(list(self.store.table("t").scan())), 2000)
        self.assertEqual(os.stat(Path(self.path, DATA_FILE)).st_mode & 0o777, 0o600)
        self.again()
        self.assert_readable()
        self.successResultOf(self.store.close())
        self.assertEqual(self.format(), b"2")

    def test_crash_on_the_way(self) -> None:
        """
        A crash before the new file is whole leaves the old one; the next start begins anew.
        """
        Vault(self.own).open()
        with patch.object(os, "replace", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, self.open)
        self.assertIn(NEW_FILE, os.listdir(self.path))
        self.open()
        self.assert_readable()
        self.assertNotIn(NEW_FILE, os.listdir(self.path))
        self.assertNotIn(PASSWORD[:12].encode(), self.on_disk())

    def test_no_room(self) -> None:
        """
        Where there is no room for the new file the old one stays in use, new secrets are encrypted, and the next start tries
        again.
        """
        with patch.object(format, "_copy_sealed", side_effect=OSError(28, "No space left on device")):
            self.open()
        self.assert_readable()
        self.table.put(b"two", b"another secret")
        self.successResultOf(self.store.flush())
        self.assertNotIn(b"another secret", self.on_disk())
        self.again()
        self.assert_readable()
        self.assertEqual(self.table.get(b"two"), b"another secret")
        self.assertNotIn(PASSWORD[:12].encode(), self.on_disk())

    def test_no_key(self) -> None:
        """
        Nothing is encrypted with a key that cannot be kept: the secrets of the old file outlast the hub.
        """
        Path(self.own).write_text("no folder")
        self.open()
        self.assert_readable()
        self.again()
        self.assert_readable()

    def test_damaged_record(self) -> None:
        """
        A damaged secret is not copied; a damaged record of another kind is, and counted when it is read.
        """
        self.write(b"tokens\0one", b"damaged: " + PASSWORD.encode())
        self.write(b"t\x001", b"damaged")
        self.open()
        self.assertIsNone(self.table.get(b"one"))
        self.assertEqual(self.store.corrupt_records, 0)
        self.assertEqual(len(list(self.store.table("t").scan())), 1999)
        self.assertEqual(self.store.corrupt_records, 1)
        self.assertNotIn(PASSWORD[:12].encode(), self.on_disk())


class OtherCallers(VaultCase):
    """
    Encryption changes nothing about who reads what.
    """

    def test_apart(self) -> None:
        """
        A caller that was not given a Secret does not find it.
        """
        self.open()
        self.fill()
        self.assertIsNone(self.views.read_object(Caller("someone", "kubelet"), SECRETS, "", "default", "a"))
