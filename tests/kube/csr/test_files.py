"""
Tests for :mod:`yurt.kube.csr.files`.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.certs import issue, make_ca
from yurt.kube.csr.files import CertificateFiles
from yurt.kube.csr.pem import PEMError, new_key, read_held

CA = make_ca()
NODE = issue(CA, "system:node:n1", ["system:nodes"])
WHOLE = NODE.cert_pem + NODE.key_pem


class FilesTests(SynchronousTestCase):
    """
    Tests of what is kept on disk.
    """

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.files = CertificateFiles(str(self.folder), "yurthub")

    def mode(self, path: Path) -> int:
        return path.stat().st_mode & 0o777

    def test_nothing(self) -> None:
        """
        Without a file there is no certificate, and nothing is wrong.
        """
        self.assertEqual((self.files.load(), self.files.problem, self.files.pending()), (None, None, b""))

    def test_save(self) -> None:
        """
        What was saved is read again, is readable by its owner alone, and leaves no other file.
        """
        self.files.save_pending(new_key())
        self.assertEqual(self.mode(self.files.pending_path), 0o600)
        self.files.save(WHOLE)
        held = self.files.load()
        self.assertEqual(held and held.pem, WHOLE)
        self.assertEqual([(one.name, self.mode(one)) for one in self.folder.iterdir()], [("yurthub-current.pem", 0o600)])
        self.assertEqual(self.mode(self.folder), 0o700)

    def test_issued_when_written(self) -> None:
        """
        The life of a certificate begins when it came, not when its signer dates it back to.
        """
        held = self.files.save(WHOLE)
        self.assertGreater(held.not_before, read_held(WHOLE).not_before)
        again = self.files.load()
        assert again is not None
        self.assertTrue(abs(again.not_before - held.not_before) < 60)

    def test_torn(self) -> None:
        """
        A torn, foreign or unreadable file is no certificate, and what is wrong names the file.
        """
        other = issue(CA, "system:node:n1", ["system:nodes"])
        self.folder.mkdir()
        for content in (WHOLE[:300], WHOLE[:-100], b"\0" * 100, NODE.cert_pem + other.key_pem):
            self.files.path.write_bytes(content)
            self.assertIsNone(self.files.load())
            self.assertIn(str(self.files.path), self.files.problem or "")
        self.files.path.unlink()
        self.files.path.mkdir()
        self.assertIsNone(self.files.load())
        self.assertIn("directory", self.files.problem or "")

    def test_link(self) -> None:
        """
        A link as client-go makes it is read, and replaced by a file; what it led to is left alone.
        """
        self.folder.mkdir()
        dated = self.folder / "yurthub-2023-11-14-22-13-20.pem"
        dated.write_bytes(WHOLE)
        self.files.path.symlink_to(dated.resolve())
        self.assertIsNotNone(self.files.load())
        other = issue(CA, "system:node:n1", ["system:nodes"])
        self.files.save(other.cert_pem + other.key_pem)
        self.assertFalse(self.files.path.is_symlink())
        self.assertEqual(dated.read_bytes(), WHOLE)

    def test_not_a_pair(self) -> None:
        """
        What is no pair is not written over what is there.
        """
        self.files.save(WHOLE)
        self.assertRaises(PEMError, self.files.save, WHOLE[:200])
        self.assertEqual(self.files.path.read_bytes(), WHOLE)
