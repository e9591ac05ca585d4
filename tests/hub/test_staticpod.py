"""
Manifests of static pods: replaced as a whole, by those of the same pod only.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from yurt.hub.staticpod import ManifestError, replace_manifest

OLD = "apiVersion: v1\nkind: Pod\nmetadata: {name: nginx, namespace: edge}\nspec: {containers: [{name: a, image: nginx:1}]}\n"
NEW = OLD.replace("nginx:1", "nginx:2")


class ReplaceTests(SynchronousTestCase):
    """
    Tests of replace_manifest.
    """

    def setUp(self) -> None:
        self.folder, self.backups = Path(self.mktemp()), Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "nginx.yaml"
        self.file.write_text(OLD)

    def replace(self, data: dict[str, str], namespace: str = "edge", name: str = "nginx") -> Path:
        return replace_manifest(self.folder, self.backups, data, namespace, name)

    def refused(self, data: dict[str, str], namespace: str = "edge", name: str = "nginx") -> str:
        """
        The reason of a refusal, after which all is as it was.
        """
        before = {path: path.read_bytes() for path in self.folder.iterdir()}
        message = str(self.assertRaises(ManifestError, self.replace, data, namespace, name))
        self.assertEqual({path: path.read_bytes() for path in self.folder.iterdir()}, before)
        return message

    def test_replaced(self) -> None:
        """
        The manifest takes the place of the one before, which is kept where kubelet does not look; again is no harm.
        """
        for key in ("nginx", "nginx.yaml", "nginx"):
            self.assertEqual(self.replace({key: NEW}), self.file)
            self.assertEqual((self.file.read_text(), os.listdir(self.folder)), (NEW, ["nginx.yaml"]))
            self.assertEqual(self.file.stat().st_mode & 0o777, 0o600)
        self.file.write_text(OLD)
        self.replace({"nginx": NEW})
        self.assertEqual((self.backups / "nginx.yaml.bak").read_text(), OLD)

    def test_other_pod(self) -> None:
        """
        Neither is another pod's manifest replaced, nor one put in the place of this pod's.
        """
        self.assertIn("is pod edge/nginx, not default/nginx", self.refused({"nginx": NEW}, "default"))
        self.assertIn("is pod edge/nginx, not edge/other", self.refused({"nginx": NEW}, "edge", "other"))
        self.assertIn("not edge/nginx", self.refused({"nginx": NEW.replace("namespace: edge", "namespace: kube-system")}))
        self.assertIn("default/nginx", self.refused({"nginx": NEW.replace(", namespace: edge", "")}))

    def test_no_manifest(self) -> None:
        """
        What is no manifest, or has no place on this node, is refused.
        """
        self.assertIn("2 entries", self.refused({"nginx": NEW, "other": NEW}))
        self.assertIn("0 entries", self.refused({}))
        for key in ("../nginx", ".nginx", "/etc/passwd", "", "a b"):
            self.assertIn("no name of a manifest", self.refused({key: NEW}))
        self.assertIn("No such file", self.refused({"absent": NEW}))
        self.assertIn("no YAML", self.refused({"nginx": "{"}))
        for text in ("[]", "kind: Service\nmetadata: {name: nginx}", "kind: Pod", "kind: Pod\nmetadata: []", ""):
            self.assertIn("no Pod", self.refused({"nginx": text}))

    def test_disk(self) -> None:
        """
        A disk that takes nothing leaves the manifest that was there.
        """
        self.backups.write_text("no folder")
        self.assertIn(str(self.backups), self.refused({"nginx": NEW}))
