"""
Tests for ``yurt.hub.filters.serviceenvupdater``.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.hub.filters.fixtures import HERE, is_untouched, shown
from yurt.hub.filters.facts import Facts
from yurt.hub.filters.serviceenvupdater import HOST, PORT, SERVICE_ENV_UPDATER


def pod(*env: Any, init: Any = None) -> Any:
    """
    A Pod whose only container has these variables, and whose init container has those of ``init``.
    """
    spec: dict[str, Any] = {"containers": [{"name": "main", "env": list(env)}, {"name": "bare"}]}
    if init is not None:
        spec["initContainers"] = [{"name": "init", "env": init}]
    return {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}


class ServiceEnvTests(SynchronousTestCase):
    """
    Tests of variables that containers set themselves.
    """

    def test_values(self) -> None:
        """
        Host and port become the hub's; other variables and containers stay, and their order too.
        """
        before = pod({"name": "A", "value": "1"}, {"name": HOST, "value": "10.0.0.1"}, {"name": PORT, "value": "443"})
        containers = shown(SERVICE_ENV_UPDATER, before, HERE)["spec"]["containers"]
        self.assertEqual(
            containers[0]["env"],
            [{"name": "A", "value": "1"}, {"name": HOST, "value": "169.254.2.1"}, {"name": PORT, "value": "10268"}],
        )
        self.assertEqual(containers[1], {"name": "bare"})

    def test_value_from(self) -> None:
        """
        A value taken from elsewhere is replaced, for a variable cannot have both.
        """
        before = pod({"name": HOST, "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}})
        env = shown(SERVICE_ENV_UPDATER, before, HERE)["spec"]["containers"][0]["env"]
        self.assertEqual(env, [{"name": HOST, "value": "169.254.2.1"}])

    def test_nothing_is_added(self) -> None:
        """
        Containers that name no address get none, and init containers keep theirs.
        """
        self.assertTrue(is_untouched(SERVICE_ENV_UPDATER, pod({"name": "A", "value": "1"}), HERE))
        self.assertTrue(is_untouched(SERVICE_ENV_UPDATER, pod(init=[{"name": HOST, "value": "10.0.0.1"}]), HERE))

    def test_odd_pods(self) -> None:
        """
        Pods without containers, or with what cannot be a variable, are shown as they are.
        """
        for odd in ({"metadata": {"name": HOST}}, pod({"name": [HOST]}), pod(HOST), pod({"value": PORT})):
            self.assertTrue(is_untouched(SERVICE_ENV_UPDATER, odd, HERE))

    def test_no_address(self) -> None:
        """
        While pods cannot reach the hub nothing is changed.
        """
        self.assertTrue(is_untouched(SERVICE_ENV_UPDATER, pod({"name": HOST, "value": "x"}), Facts("n1")))
