"""
Packaging of yurt: the packages, the twistd plugin, and the files of etc/ that an init system needs.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """
    The version that yurt/__init__.py states, read without importing it.
    """
    match = re.search(r'^__version__ = "(.+)"$', (HERE / "yurt" / "__init__.py").read_text(), re.MULTILINE)
    if match is None:
        raise SystemExit("yurt/__init__.py states no __version__")
    return match.group(1)


def etc_files() -> list[tuple[str, list[str]]]:
    """
    The files below etc/, to be installed below share/yurt of the prefix.
    """
    folders = sorted(path.name for path in (HERE / "etc").iterdir() if path.is_dir())
    return [
        (f"share/yurt/{folder}", sorted(f"etc/{folder}/{path.name}" for path in (HERE / "etc" / folder).iterdir()))
        for folder in folders
    ]


setup(
    name="yurt",
    version=read_version(),
    description="Kubernetes at the edge as Twisted daemons",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    # Naming the root makes an editable install put the checkout on sys.path, where Twisted looks for plugin folders.
    package_dir={"": "."},
    packages=[*find_packages(include=["yurt", "yurt.*"]), "twisted.plugins"],
    package_data={"yurt": ["py.typed"]},
    data_files=etc_files(),
    zip_safe=False,
    install_requires=[
        "twisted[tls]>=26.10",
        "pyopenssl>=26.0",
        "service-identity>=24.1",
        "cryptography>=46",
        "httptools>=0.7",
        "lmdb>=3.0",
        "msgspec>=0.19",
        "prometheus_client>=0.21",
        "pyjwt>=2.10",
        "pyroute2>=0.9.1",
        "python-iptables>=1.0.1",
        "pyyaml>=6.0.1",
    ],
    extras_require={
        "test": [
            "build>=1.2",
            "hypothesis>=6.100",
            "mypy>=1.18",
            "mypy-zope>=1.0.13",
            "ruff>=0.9,<0.18",  # a later one may want another layout
            "setuptools>=64",
            "treq>=24.9",
            "types-PyYAML",
            "wheel",
        ],
    },
)
