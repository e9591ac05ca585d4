"""
Tests for ``yurt.hub.filters.nodeportisolation``.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import service, shown
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.nodeportisolation import LISTEN, NODE_PORT_ISOLATION

SHANGHAI = Facts("n1", pool="shanghai")


class NodePortIsolationTests(SynchronousTestCase):
    """
    Tests of where node ports are open.
    """

    def test_values(self) -> None:
        """
        A pool that is listed is served, ``-pool`` is not, ``*`` is all others, and the first mention counts; an empty value is
        nobody.
        """
        cases = [
            ("shanghai", True),
            ("beijing", False),
            ("beijing, shanghai", True),
            ("*", True),
            ("-shanghai,*", False),
            ("*,-shanghai", False),
            ("-beijing,*", True),
            ("shanghai,-shanghai", True),
            ("-shanghai,shanghai", False),
            ("-beijing", False),
            ("", False),
            (" , ", False),
        ]
        for kind in ("NodePort", "LoadBalancer"):
            for value, is_shown in cases:
                document = service(annotations={LISTEN: value}, type=kind)
                self.assertEqual(shown(NODE_PORT_ISOLATION, document, SHANGHAI) is not None, is_shown, (kind, value))

    def test_no_annotation(self) -> None:
        """
        Without the annotation node ports are open everywhere.
        """
        for given in (None, {}, {"other": "x"}):
            self.assertIsNotNone(shown(NODE_PORT_ISOLATION, service(annotations=given, type="NodePort"), SHANGHAI))

    def test_other_types(self) -> None:
        """
        A Service without node ports is not isolated.
        """
        for kind in ("ClusterIP", None, ["NodePort"], {"NodePort": 1}):
            document = service(annotations={LISTEN: "beijing"}, type=kind)
            self.assertEqual(shown(NODE_PORT_ISOLATION, document, SHANGHAI), document)

    def test_no_pool(self) -> None:
        """
        On a node that is in no pool, or of whose pool nothing is known, node ports are open.
        """
        document = service(annotations={LISTEN: "beijing"}, type="NodePort")
        for pool in ("", None):
            self.assertEqual(shown(NODE_PORT_ISOLATION, document, Facts("n1", pool=pool)), document)
