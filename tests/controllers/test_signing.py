"""
Tests of how requests for certificates and Nodes are read.
"""

from __future__ import annotations

import base64
import contextlib
import warnings
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.controllers.asking import BOOTSTRAPPER, HUB, NODE_USER, NODES, encoded, node, pkcs10, request
from yurt.controllers.signing import Asked, Kind, Node, State, read_node, read_request

GOOD = x509.load_pem_x509_csr(pkcs10("system:node:edge-1", HUB, ["a.example.com", "127.0.0.1"]))
DER = GOOD.public_bytes(Encoding.DER)


def pem_of(der: bytes) -> bytes:
    """
    Any bytes, dressed up as a request.
    """
    body = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


class RequestTests(SynchronousTestCase):
    """
    Tests of requests.
    """

    def test_whole(self) -> None:
        """
        Everything that matters is read, and while the request waits the object itself is kept.
        """
        document = request(
            pkcs10("system:node:edge-1", NODES, ["b.example.com", "2001:DB8::1"]), NODE_USER, serving=True, created=1_700_000_000
        )
        found = read_request(encoded(document))
        assert found is not None
        asked = Asked("system:node:edge-1", NODES, frozenset({"b.example.com"}), frozenset({"2001:db8::1"}))
        self.assertEqual((found.asked, found.asked.names), (asked, {"b.example.com", "2001:db8::1"}))
        self.assertEqual((found.kind, found.state, found.node), (Kind.NODE_SERVING, State.PENDING, "edge-1"))
        self.assertEqual((found.username, found.groups), (NODE_USER[0], set(NODE_USER[1])))
        self.assertEqual((found.created, found.expires, found.body), (1_700_000_000, None, encoded(document)))

    def test_decided(self) -> None:
        """
        Of what is decided no more than the outcome is kept; a condition that is not True is none.
        """
        for conditions, state in ((["Approved"], State.APPROVED), (["Denied"], State.OVER), (["Approved", "Failed"], State.OVER)):
            found = read_request(encoded(request(pkcs10("system:node:edge-1", HUB), BOOTSTRAPPER, conditions=conditions)))
            assert found is not None
            self.assertEqual((found.state, found.body), (state, b""))
        document: dict[str, Any] = request(pkcs10("system:node:edge-1", HUB), BOOTSTRAPPER, conditions=["Approved"])
        document["status"]["conditions"][0]["status"] = "False"
        found = read_request(encoded(document))
        self.assertIs(found and found.state, State.PENDING)

    @given(st.lists(st.tuples(st.integers(0, len(DER) - 1), st.integers(0, 255)), min_size=1, max_size=4))
    @settings(max_examples=500, deadline=None)
    def test_any_bytes(self, changes: list[tuple[int, int]]) -> None:
        """
        Whatever stands in a request, it is read or a ValueError; never anything else, which would stop the informer.
        """
        der = bytearray(DER)
        for place, value in changes:
            der[place] = value
        with contextlib.suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read_request(encoded(request(pem_of(bytes(der)), BOOTSTRAPPER)))
            same = found is None or found.asked.flaw or found.asked.names == {"a.example.com", "127.0.0.1"}
            self.assertTrue(same)

    def test_what_cannot_be(self) -> None:
        """
        A version that there is not, and a certificate that is none, are ValueErrors.
        """
        version = DER.replace(b"\x02\x01\x00", b"\x02\x01\x09", 1)
        self.assertRaises(ValueError, read_request, encoded(request(pem_of(version), BOOTSTRAPPER)))
        signed = request(pkcs10("system:node:edge-1", HUB), BOOTSTRAPPER, conditions=["Approved"], certificate=b"nothing")
        self.assertRaises(ValueError, read_request, encoded(signed))


class NodeTests(SynchronousTestCase):
    """
    Tests of Nodes.
    """

    def test_states(self) -> None:
        """
        A Node lives, Ready or not, or is lost since a time; one without any condition does not, and was never there to be lost.
        """
        for ready, wanted in (
            ("True", Node("n", frozenset(), True, None)),
            ("False", Node("n", frozenset(), True, None)),
            ("Unknown", Node("n", frozenset(), False, 1_700_000_000.0)),
            ("", Node("n", frozenset(), False, None)),
        ):
            self.assertEqual(read_node(encoded(node("n", ready=ready, since=1_700_000_000))), wanted)

    def test_addresses(self) -> None:
        """
        Addresses are told in one form, names as they are; a Node may have no status.
        """
        found = read_node(encoded(node("n", "2001:DB8:0::1", "10.0.0.1", "Name.Example")))
        self.assertEqual(found.addresses, {"2001:db8::1", "10.0.0.1", "Name.Example"})
        self.assertEqual(read_node(b'{"metadata":{"name":"n"}}'), Node("n", frozenset()))
