"""
Tests of the parameters of lists and watches that every API server refuses.
"""

from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.listoptions import find_fault, read_number


class FaultTests(SynchronousTestCase):
    """
    Tests of find_fault; what it says was compared with a real kube-apiserver.
    """

    def code(self, **query: str) -> int:
        """
        The code of the refusal of a list, or of a watch if it is one; 0 when there is none.
        """
        fault = find_fault(query, watch="watch" in query)
        return 0 if fault is None else fault.code

    def test_numbers(self) -> None:
        """
        Numbers are 64 bits long at most; versions are made of digits.
        """
        for name in ("limit", "timeoutSeconds"):
            for text in ("", "0", "5", "-1", "+7", "007", str((1 << 63) - 1)):
                self.assertEqual(self.code(**{name: text}), 0, text)
            for text in ("abc", "1.5", "1e3", "-", " 1", str(1 << 63), "9" * 5000, "٣"):
                self.assertEqual(self.code(**{name: text}), 400, text)
                self.assertEqual(self.code(watch="true", **{name: text}), 400, text)
        self.assertEqual([self.code(resourceVersion=text) for text in ("", "0", "99999999", "9" * 5000)], [0, 0, 0, 0])
        self.assertEqual([self.code(resourceVersion=text) for text in ("abc", "-1", "1.0", "٣")], [400] * 4)

    def test_match_of_list(self) -> None:
        """
        resourceVersionMatch needs a version, of which 0 is never an exact one, and no continue token.
        """
        self.assertEqual(self.code(resourceVersion="7", resourceVersionMatch="Exact"), 0)
        self.assertEqual(self.code(resourceVersion="0", resourceVersionMatch="NotOlderThan"), 0)
        self.assertEqual(self.code(resourceVersion="0", resourceVersionMatch="Exact"), 422)
        self.assertEqual(self.code(resourceVersion="7", resourceVersionMatch="exact"), 422)
        self.assertEqual(self.code(resourceVersionMatch="NotOlderThan"), 422)
        self.assertEqual(self.code(resourceVersion="7", resourceVersionMatch="Exact", **{"continue": "x"}), 422)
        self.assertEqual((self.code(sendInitialEvents="true"), self.code(sendInitialEvents="")), (422, 0))

    def test_match_of_watch(self) -> None:
        """
        A watch has resourceVersionMatch exactly where it has sendInitialEvents, and only NotOlderThan.
        """
        for initial in ("true", "false"):
            self.assertEqual(self.code(watch="true", sendInitialEvents=initial, resourceVersionMatch="NotOlderThan"), 0)
            self.assertEqual(self.code(watch="true", sendInitialEvents=initial, resourceVersionMatch="Exact"), 422)
            self.assertEqual(self.code(watch="true", sendInitialEvents=initial), 422)
        self.assertEqual(self.code(watch="true", resourceVersionMatch="NotOlderThan"), 422)

    def test_read_number(self) -> None:
        """
        Signs and leading zeros count as in Go.
        """
        self.assertEqual([read_number(text) for text in ("-1", "+7", "007", "x")], [-1, 7, 7, None])
