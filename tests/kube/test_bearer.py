"""
Tests for :mod:`yurt.kube.bearer`.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.bearer import BearerToken


class BearerTests(SynchronousTestCase):
    """
    Tests of tokens.
    """

    def write(self, path: str, text: str) -> None:
        """
        Replace the file, as a kubelet replaces a mounted token.
        """
        with open(path + ".new", "w") as file:
            file.write(text)
        os.rename(path + ".new", path)

    def test_none(self) -> None:
        """
        Without a token there is no field.
        """
        self.assertEqual(BearerToken().headers(), [])

    def test_given(self) -> None:
        """
        A token that is given is shown.
        """
        self.assertEqual(BearerToken("secret").headers(), [(b"Authorization", b"Bearer secret")])

    def test_file(self) -> None:
        """
        One in a file is shown as it is now, without white space around it; a file that vanishes, or is empty for a moment,
        leaves the last one in force.
        """
        path = self.mktemp()
        token = BearerToken(path=path)
        self.assertIs(token.read(), None)
        self.write(path, " one\n")
        self.assertEqual(token.read(), b"one")
        self.write(path, "two\n")
        self.assertEqual(token.read(), b"two")
        self.write(path, "")
        self.assertEqual(token.read(), b"two")
        os.remove(path)
        self.assertEqual(token.read(), b"two")
        self.write(path, "three")
        self.assertEqual(token.read(), b"three")

    def test_no_token(self) -> None:
        """
        What is no token, such as a certificate given by mistake, is never put into a header.
        """
        path = self.mktemp()
        token = BearerToken(path=path)
        self.write(path, "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        self.assertEqual(token.headers(), [])
        self.write(path, "one")
        self.assertEqual(token.read(), b"one")
        self.write(path, "one\nof two")
        self.assertEqual(token.read(), b"one")
