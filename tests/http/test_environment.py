"""
Which proxy the environment asks for.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from yurt.http.environment import proxy_for


class ProxyTests(SynchronousTestCase):
    """
    HTTPS_PROXY and NO_PROXY, as curl and Go read them.
    """

    def check(self, url: str, no_proxy: str, proxied: bool) -> None:
        environ = {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": no_proxy}
        self.assertEqual(proxy_for(url, environ), "http://p:3128" if proxied else None, (url, no_proxy))

    def test_scheme(self) -> None:
        """
        The variable of the URL's scheme counts, in lower case first; without one there is no proxy.
        """
        self.assertIsNone(proxy_for("https://a", {}))
        self.assertIsNone(proxy_for("https://a", {"HTTP_PROXY": "http://p"}))
        self.assertEqual(proxy_for("http://a", {"HTTP_PROXY": "http://p"}), "http://p")
        self.assertEqual(proxy_for("https://a", {"HTTPS_PROXY": "http://p", "https_proxy": "http://q"}), "http://q")
        self.assertEqual(proxy_for("https://a", {"HTTPS_PROXY": "p:3128"}), "http://p:3128")

    def test_names(self) -> None:
        """
        A name stands for itself and its subdomains, one with a leading dot for these alone.
        """
        self.check("https://api.example.org", "example.org", False)
        self.check("https://example.org", "Example.org", False)
        self.check("https://badexample.org", "example.org", True)
        self.check("https://api.example.org", ".example.org", False)
        self.check("https://example.org", ".example.org", True)
        self.check("https://api.example.org", "*.example.org", False)
        self.check("https://api.example.org.", "example.org", False)
        self.check("https://other.org", "a.org, b.org ,", True)
        self.check("https://b.org", "a.org, b.org ,", False)

    def test_addresses(self) -> None:
        """
        Addresses and networks, of both families.
        """
        self.check("https://10.1.2.3:6443", "10.1.2.3", False)
        self.check("https://10.1.2.3:6443", "10.0.0.0/8", False)
        self.check("https://11.1.2.3:6443", "10.0.0.0/8", True)
        self.check("https://[fd00::1]:6443", "fd00::/8", False)
        self.check("https://[fd00::1]:6443", "[fd00::1]:6443", False)
        self.check("https://10.1.2.3", "nonsense/8", True)

    def test_ports(self) -> None:
        """
        An entry with a port covers that port only.
        """
        self.check("https://a.org:6443", "a.org:6443", False)
        self.check("https://a.org:443", "a.org:6443", True)
        self.check("https://a.org", "a.org:443", False)
        self.check("https://10.0.0.1:6443", "10.0.0.1:6443", False)
        self.check("https://10.0.0.1:6443", "10.0.0.1:1", True)

    def test_everything(self) -> None:
        """
        A star turns the proxy off; loopback is never proxied.
        """
        self.check("https://a", "*", False)
        self.check("https://127.0.0.1:6443", "", False)
        self.check("https://localhost", "", False)
        self.check("https://[::1]", "", False)
