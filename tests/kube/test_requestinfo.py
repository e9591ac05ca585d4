"""
Tests for :mod:`yurt.kube.requestinfo`.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from yurt.kube.requestinfo import MAX_REMEMBERED_TARGET, is_true, parse_request

# method, target, verb, group, version, namespace, resource, subresource, name: the cases of Kubernetes' own
# requestinfo_test.go, as far as they do not rest on the namespace of a Namespace.
RESOURCE_REQUESTS = [
    ("GET", "/api/v1/namespaces", "list", "", "v1", "", "namespaces", "", ""),
    ("GET", "/api/v1/namespaces/other", "get", "", "v1", "", "namespaces", "", "other"),
    ("GET", "/api/v1/namespaces/other/pods", "list", "", "v1", "other", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("HEAD", "/api/v1/namespaces/other/pods/foo", "get", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("HEAD", "/api/v1/pods", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo/status", "get", "", "v1", "other", "pods", "status", "foo"),
    ("GET", "/api/v1/namespaces/other/status", "get", "", "v1", "", "namespaces", "status", "other"),
    ("PUT", "/api/v1/namespaces/other/finalize", "update", "", "v1", "", "namespaces", "finalize", "other"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/proxy/namespaces/other/pods/foo/sub/path", "proxy", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/watch/pods", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/watch/namespaces/other/pods/foo", "watch", "", "v1", "other", "pods", "", "foo"),
    ("GET", "/api/v1/pods?watch=true", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=1", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch", "watch", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=false", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/pods?watch=0&watch=1", "list", "", "v1", "", "pods", "", ""),
    ("GET", "/api/v1/namespaces/other/pods/foo?watch=true", "get", "", "v1", "other", "pods", "", "foo"),
    ("POST", "/api/v1/namespaces/other/pods", "create", "", "v1", "other", "pods", "", ""),
    ("POST", "/api/v1/watch/pods", "create", "", "v1", "", "pods", "", ""),
    ("POST", "/api/v1/namespaces/a/serviceaccounts/b/token", "create", "", "v1", "a", "serviceaccounts", "token", "b"),
    ("PUT", "/api/v1/namespaces/other/pods/foo", "update", "", "v1", "other", "pods", "", "foo"),
    ("PATCH", "/api/v1/nodes/n1/status", "patch", "", "v1", "", "nodes", "status", "n1"),
    ("DELETE", "/api/v1/namespaces/other/pods/foo", "delete", "", "v1", "other", "pods", "", "foo"),
    ("DELETE", "/api/v1/namespaces/other/pods", "deletecollection", "", "v1", "other", "pods", "", ""),
    ("GET", "/apis/apps/v1/namespaces/other/deployments/d/scale", "get", "apps", "v1", "other", "deployments", "scale", "d"),
    ("GET", "/apis/coordination.k8s.io/v1/leases/", "list", "coordination.k8s.io", "v1", "", "leases", "", ""),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", "get",
     "rbac.authorization.k8s.io", "v1", "", "clusterroles", "", "system:node"),
]  # fmt: skip

PLAIN_PATHS = ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/healthz/etcd", "/a/b/c/d"]


class ResourceRequestTests(SynchronousTestCase):
    """
    Requests are read by Kubernetes' rules.
    """

    def test_kubernetes_cases(self) -> None:
        """
        Verb, group, version, namespace, resource, subresource and name come out as an API server reads them.
        """
        for method, target, *expected in RESOURCE_REQUESTS:
            info = parse_request(method.encode(), target.encode())
            found = [info.verb, info.group, info.version, info.namespace, info.resource, info.subresource, info.name]
            self.assertTrue(info.is_resource, target)
            self.assertEqual(found, expected, target)

    def test_plain_paths(self) -> None:
        """
        What lies outside the resource API, discovery included, is a plain path with the method for its verb.
        """
        for path in PLAIN_PATHS:
            for method in ("GET", "HEAD", "POST"):
                info = parse_request(method.encode(), f"{path}?timeout=32s".encode())
                self.assertFalse(info.is_resource, path)
                self.assertEqual((info.path, info.verb, info.query["timeout"]), (path, method.lower(), "32s"))

    def test_gvr(self) -> None:
        """
        Group, version and resource make one text, with nothing before the first slash for the core group.
        """
        self.assertEqual(parse_request(b"GET", b"/api/v1/pods").gvr, "/v1/pods")
        self.assertEqual(parse_request(b"GET", b"/apis/apps/v1/deployments").gvr, "apps/v1/deployments")

    def test_parts(self) -> None:
        """
        The segments from the resource on are kept, however many there are.
        """
        info = parse_request(b"GET", b"/api/v1/namespaces/a/services/s:80/proxy/x/y?z=1")
        self.assertEqual(info.parts, ("services", "s:80", "proxy", "x", "y"))
        self.assertEqual(info.subresource, "proxy")

    def test_absolute_form(self) -> None:
        """
        A target in absolute form, as proxies get it, is read by its path.
        """
        info = parse_request(b"GET", b"http://127.0.0.1:10261/api/v1/nodes/n?x=http://y/")
        self.assertEqual((info.path, info.resource, info.name), ("/api/v1/nodes/n", "nodes", "n"))


class QueryTests(SynchronousTestCase):
    """
    Query parameters are read as Go reads them.
    """

    def test_first_value_counts(self) -> None:
        """
        Of a parameter given twice an API server takes the first value, and so do we.
        """
        info = parse_request(b"GET", b"/api/v1/pods?labelSelector=a%3Db&labelSelector=c%3Dd")
        self.assertEqual(info.label_selector, "a=b")

    def test_malformed_pairs_are_left_out(self) -> None:
        """
        A bad escape or a semicolon spoils its own pair only.
        """
        info = parse_request(b"GET", b"/x?a=%zz&b=1;c=2&d=%41+b&e&=f")
        self.assertEqual(dict(info.query), {"d": "A b", "e": "", "": "f"})

    def test_selectors_are_canonical(self) -> None:
        """
        Selectors that mean the same make equal requests.
        """
        one = parse_request(b"GET", b"/api/v1/pods?labelSelector=b%3Dc,+a+in+(y,x)&fieldSelector=spec.nodeName%3D%3Dn")
        other = parse_request(b"GET", b"/api/v1/pods?labelSelector=a%20in%20(x%2Cy),b%3D%3Dc&fieldSelector=spec.nodeName=n")
        self.assertEqual(one.label_selector, "a in (x,y),b=c")
        self.assertEqual((one.label_selector, one.field_selector), (other.label_selector, other.field_selector))

    def test_selected_name(self) -> None:
        """
        The one name that a field selector leaves over is known for lists and watches, and is not taken for a name in the path.
        """
        for verb, query in (("list", ""), ("watch", "&watch=true")):
            info = parse_request(b"GET", b"/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Dtok" + query.encode())
            self.assertEqual((info.verb, info.name, info.selected_name), (verb, "", "tok"))
        self.assertEqual(parse_request(b"GET", b"/api/v1/pods?fieldSelector=metadata.name!%3Dx").selected_name, "")
        self.assertEqual(parse_request(b"GET", b"/api/v1/pods?fieldSelector=metadata.name%3D..").selected_name, "")
        self.assertEqual(parse_request(b"GET", b"/api/v1/pods?fieldSelector=metadata.name%3D%5Cx").selected_name, "")
        self.assertEqual(parse_request(b"GET", b"/api/v1/watch/nodes/n").selected_name, "n")

    def test_is_true(self) -> None:
        """
        Booleans are those of Kubernetes: only absence, 0 and false are false.
        """
        values = (None, "0", "false", "False", "", "1", "true", "no")
        self.assertEqual([is_true(value) for value in values], [False] * 4 + [True] * 4)


class RobustnessTests(SynchronousTestCase):
    """
    Any bytes make a request.
    """

    @given(st.binary(max_size=12), st.binary(max_size=2 * MAX_REMEMBERED_TARGET))
    def test_any_bytes(self, method: bytes, target: bytes) -> None:
        """
        Nothing that a client can send raises.
        """
        parse_request(method, target)

    @given(st.lists(st.sampled_from(["api", "apis", "v1", "watch", "proxy", "namespaces", "a", "", "pods", "status"])))
    def test_any_segments(self, segments: list[str]) -> None:
        """
        However the segments are put together, a resource request has a verb, and the same answer comes twice.
        """
        target = ("/" + "/".join(segments)).encode()
        info = parse_request(b"GET", target)
        self.assertIn(info.verb, ("get", "list", "watch", "proxy"))
        self.assertEqual(info, parse_request(b"GET", target))

    def test_long_targets(self) -> None:
        """
        A target too long to be remembered is read all the same.
        """
        target = b"/api/v1/pods?labelSelector=" + b"a%3Db," * MAX_REMEMBERED_TARGET + b"c"
        self.assertEqual(parse_request(b"GET", target).label_selector, "a=b,c")
