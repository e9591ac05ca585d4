"""
Command-line options of the daemons: declared as data, typed, and refused in one line.

``twisted.python.usage`` knows flags without a value and strings.  Operators of OpenYurt also write
``--enable-dummy-if=false``, ``--kubelet-health-grace-period=40s`` and comma lists; :class:`Options` takes those.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, ClassVar, NoReturn
from urllib.parse import urlsplit

from twisted.python import usage

TRUE_WORDS = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE_WORDS = frozenset({"0", "f", "F", "false", "FALSE", "False"})
DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,15})(|k|M|G|Ki|Mi|Gi)")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAMESPACE = re.compile(_LABEL)
_SUBDOMAIN = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")
_HOST = re.compile(r"\w([-\w.]*[\w.])?")
_NUMBERS = re.compile(r"[0-9.]+")
_BASE_PATH = re.compile(r"(?:/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+;=:@-]|%[0-9A-Fa-f]{2})+)*/*")
_VERBOSITY = re.compile(r"--?v=\d{1,3}")
"""klog's flag, which OpenYurt's manifests give to every daemon.  There is nothing here that it would change."""
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")


@dataclass(frozen=True)
class Option:
    """
    One ``--name value``.

    ``default`` is text, as an operator would write it, and shown by ``--help``; ``parse`` turns text into the value and
    raises :exc:`ValueError` saying what is expected.  With ``many`` the option may be given again, its tuples add up.
    """

    name: str
    default: str
    help: str
    parse: Callable[[str], Any] = str
    many: bool = False


class Options(usage.Options):
    """
    A subcommand's options, by name and with their types: ``options["proxy-port"]`` is an int.

    A bad value, an unknown option or a :exc:`usage.UsageError` out of ``postOptions`` ends the program with one line on
    standard error and exit status 1, where twistd would print its whole help first.
    """

    program: ClassVar[str] = ""
    version_text: ClassVar[str] = ""
    declared: ClassVar[Sequence[Option]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for option in cls.__dict__.get("declared", ()):
            setattr(cls, "opt_" + option.name.replace("-", "_"), _taker(option))

    def __init__(self) -> None:
        super().__init__()
        self.given: set[str] = set()
        for option in self.declared:
            self.defaults[option.name] = option.default or None
            self.opts[option.name] = option.parse(option.default)

    def take(self, option: Option, text: str) -> None:
        """
        Set ``option`` from the command line.
        """
        try:
            value = option.parse(text)
        except ValueError as error:
            raise usage.UsageError(f"--{option.name} {presentable(text)!r}: {error}") from None
        if option.many and option.name in self.given:
            value = self.opts[option.name] + value
        self.opts[option.name] = value
        self.given.add(option.name)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse, or leave the program with one line.
        """
        switches = {f"--{option.name}" for option in self.declared if option.parse is boolean}
        words = [word for word in options or () if not _VERBOSITY.fullmatch(word)]
        try:
            super().parseOptions([f"{word}=true" if word in switches else word for word in words])
        except usage.UsageError as error:
            raise SystemExit(f"{self.program}: {error} (see --help)") from None

    def parseArgs(self, *words: str) -> None:
        """
        Refuse what is no option.
        """
        if words:
            raise usage.UsageError(f"unexpected argument {words[0]!r}: options are written --name=value")

    def opt_version(self) -> NoReturn:
        """
        Print the version and exit.
        """
        print(f"{self.program} {self.version_text}")
        raise SystemExit(0)


def _taker(option: Option) -> Callable[[Options, str], None]:
    def take(self: Options, text: str) -> None:
        self.take(option, text)

    take.__doc__ = option.help
    return take


def presentable(text: str) -> str:
    """
    A bad value as it may be shown: what stands before an at sign is, or holds, a password.
    """
    return f"[redacted]{text[text.rindex('@') :]}" if "@" in text else text


def boolean(text: str) -> bool:
    """
    ``true`` or ``false``, in the spellings that Go's flag parser takes.
    """
    if text in TRUE_WORDS:
        return True
    if text in FALSE_WORDS:
        return False
    raise ValueError("write true or false")


def duration(text: str) -> float:
    """
    Seconds of a Go duration: ``40s``, ``1h30m``, ``500ms``, ``0``.
    """
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError("write a number with its unit, such as 40s, 500ms or 1h30m")
    return sum(float(number) * DURATION_UNITS[unit] for number, unit in _DURATION_PART.findall(text))


def duration_from(minimum: float, maximum: float, *, zero: bool = False) -> Callable[[str], float]:
    """
    A parser of durations from ``minimum`` to ``maximum`` seconds, both included; with ``zero`` of 0, too.
    """

    def parse(text: str) -> float:
        seconds = duration(text)
        if not minimum <= seconds <= maximum and not (zero and seconds == 0):
            raise ValueError(f"write a duration from {minimum:g}s to {maximum:g}s{', or 0' if zero else ''}")
        return seconds

    return parse


def size(text: str) -> int:
    """
    Bytes of a quantity as Kubernetes writes it: ``64Mi``, ``1Gi``, ``500k``, ``1048576``.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("write a whole number of bytes with its unit, such as 64Mi or 1Gi")
    return int(match[1]) * SIZE_UNITS[match[2]]


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """
    A parser of whole numbers from ``minimum`` to ``maximum``, both included.
    """

    def parse(text: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,18}", text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"write a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


port = integer(0, 65535)
"""A TCP port; 0 where that means none."""


def choice(*words: str) -> Callable[[str], str]:
    """
    A parser that takes one of ``words``.
    """

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"write one of: {', '.join(words)}")
        return text

    return parse


def _named(pattern: re.Pattern[str], expected: str) -> Callable[[str], str]:
    """
    A parser of names that become part of paths; an empty text stays empty.
    """

    def parse(text: str) -> str:
        if text and not pattern.fullmatch(text):
            raise ValueError(expected)
        return text

    return parse


node_name = _named(
    _SUBDOMAIN, "write the name under which kubelet registers this node: lower-case letters, digits, '-' and '.' between them"
)
object_name = _named(_SUBDOMAIN, "write the name of an object: lower-case letters, digits, '-' and '.' between them")
namespace = _named(_NAMESPACE, "write the name of a namespace: at most 63 lower-case letters, digits, and '-' between them")


def folder(text: str) -> str:
    """
    The absolute path of a folder; one that is relative is one of the folder in which the program is started.  An empty text stays
    empty.
    """
    if text.startswith("~"):
        raise ValueError("'~' is the shell's and did not reach it here: write the whole path")
    if "\0" in text or text != text.strip():
        raise ValueError("write a path without blanks around it")
    return os.path.abspath(text) if text else ""


def comma_list(text: str) -> tuple[str, ...]:
    """
    The parts of ``a,b,c`` without blanks around them; empty parts vanish.
    """
    return tuple(part for part in (part.strip() for part in text.split(",")) if part)


def address(text: str) -> str:
    """
    An IPv4 or IPv6 address in its canonical form; ``[::1]`` is taken for ``::1``, an IPv4 address that is written as one of IPv6
    (``::ffff:127.0.0.1``) for itself, and an empty text stays empty.
    """
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not bare:
        return ""
    try:
        found = ip_address(bare)
        return str(getattr(found, "ipv4_mapped", None) or found)
    except ValueError:
        raise ValueError("write an IP address, such as 127.0.0.1 or ::1") from None


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def host_port(text: str, default_port: int) -> tuple[str, int]:
    """
    Host and port of ``host``, ``host:port``, ``[::1]``, ``[::1]:port`` or a bare IPv6 address.
    """
    match = re.fullmatch(r"\[([0-9A-Fa-f:.%]+)\](?::(\d+))?|([^\[\]:]+)(?::(\d+))?", text)
    if match is not None:
        host, number = match[1] or match[3], match[2] or match[4]
    elif text.count(":") > 1 and "[" not in text:
        host, number = address(text), None
    else:
        raise ValueError("write host, host:port or [IPv6 address]:port")
    return host, default_port if number is None else port(number)


def https_urls(text: str) -> tuple[str, ...]:
    """
    The servers of a comma list as ``https://host:port``, each once, with the base path of one behind a gateway; scheme and port
    may be left out.
    """
    return tuple(dict.fromkeys(_https_url(part) for part in comma_list(text)))


def _https_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "https", text
    parts = urlsplit(f"https://{rest}")
    if scheme.lower() != "https":
        raise ValueError(f"{scheme} is not spoken to the cloud; write https://host:port")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("a server is only https://host:port, without user or query")
    host, number = host_port(parts.netloc, 443)
    if ":" not in host and not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is no host")
    if _NUMBERS.fullmatch(host) and not _is_address(host):
        raise ValueError(f"{host!r} is no IP address, and no name either")
    if not number:
        raise ValueError("no server listens on port 0; leave the port out for 443")
    if not _BASE_PATH.fullmatch(parts.path):
        raise ValueError("a path must have no blanks, nor . and .. in it; escape what is special with %")
    authority = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    return f"https://{authority}{parts.path.rstrip('/')}"
