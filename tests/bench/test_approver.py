"""
The bench of the approver asks for what nodes ask for.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.controllers.approver import joining
from tests.controllers.asking import BOOTSTRAPPER, encoded
from yurt.controllers.csrapprover import Case, Site, refusal
from yurt.controllers.signing import read_request


class JoiningTests(SynchronousTestCase):
    """
    Tests of the requests.
    """

    def test_approved(self) -> None:
        """
        Each is for another node, and is one that a bootstrap token may make.
        """
        nodes = set()
        for number in (1, 2):
            document = joining(number)
            document["spec"].update(username=BOOTSTRAPPER[0], groups=list(BOOTSTRAPPER[1]))
            request = read_request(encoded(document))
            assert request is not None
            self.assertIs(refusal(Case(request, None, [], Site(frozenset(), list), 0.0)), None)
            nodes.add(request.node)
        self.assertEqual(nodes, {"edge-1", "edge-2"})
