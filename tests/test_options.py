"""
Tests of the command-line options.
"""

import contextlib
import io
from collections.abc import Sequence
from typing import ClassVar

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from yurt.options import (
    Option,
    Options,
    address,
    boolean,
    choice,
    comma_list,
    duration,
    host_port,
    https_urls,
    integer,
    port,
    size,
)


class SampleOptions(Options):
    """
    A subcommand with one option of each kind.
    """

    program = "sample"
    version_text = "1.2.3"
    declared: ClassVar[Sequence[Option]] = (
        Option("node-name", "", "name of the node"),
        Option("proxy-port", "10261", "port of the proxy", port),
        Option("enable-link", "true", "make the link", boolean),
        Option("grace", "40s", "patience", duration),
        Option("agents", "kubelet,coredns", "who is cached", comma_list, many=True),
    )

    def postOptions(self) -> None:
        if not self["node-name"]:
            raise usage.UsageError("--node-name is missing: give the node's name")


def parse(*words: str) -> SampleOptions:
    """
    The options of a command line that is complete but for ``words``.
    """
    options = SampleOptions()
    options.parseOptions(["--node-name=n1", *words])
    return options


class OptionsTests(SynchronousTestCase):
    """
    Tests of Options.
    """

    def test_defaults(self) -> None:
        """
        Without words each option has its default, with its type.
        """
        options = parse()
        self.assertEqual(
            (options["proxy-port"], options["enable-link"], options["grace"], options["agents"]),
            (10261, True, 40.0, ("kubelet", "coredns")),
        )

    def test_values(self) -> None:
        """
        Values come with an equals sign or as the next word.
        """
        options = parse("--proxy-port", "1", "--grace=1m30s")
        self.assertEqual((options["proxy-port"], options["grace"]), (1, 90.0))

    def test_booleans(self) -> None:
        """
        A switch takes =true and =false, and means true without value, as in Go.
        """
        self.assertIs(parse("--enable-link=false")["enable-link"], False)
        self.assertIs(parse("--enable-link=0", "--enable-link")["enable-link"], True)
        self.assertEqual(parse("--enable-link", "--proxy-port=7")["proxy-port"], 7)

    def test_verbosity(self) -> None:
        """
        The verbosity that OpenYurt's manifests set is taken; it is no abbreviation of --version.
        """
        for word in ("--v=2", "-v=4"):
            self.assertEqual(parse(word).given, {"node-name"})

    def test_lists_add_up(self) -> None:
        """
        The first list replaces the default, further ones add to it.
        """
        self.assertEqual(parse("--agents=a,b", "--agents=c")["agents"], ("a", "b", "c"))
        self.assertEqual(parse("--agents=")["agents"], ())

    def fails(self, *words: str) -> str:
        """
        What the program says on its way out.
        """
        with self.assertRaises(SystemExit) as caught:
            SampleOptions().parseOptions(words)
        message = caught.exception.code
        assert isinstance(message, str)
        return message

    def test_one_line(self) -> None:
        """
        Every refusal is one line that names the program, the option, the value and the remedy.
        """
        for words, parts in (
            (["--node-name=n", "--proxy-port=x"], ["--proxy-port", "'x'", "whole number"]),
            (["--node-name=n", "--proxy-port=65536"], ["--proxy-port", "65535"]),
            (["--node-name=n", "--enable-link=yes"], ["--enable-link", "'yes'", "true or false"]),
            (["--node-name=n", "--grace=40"], ["--grace", "40s"]),
            (["--node-name=n", "stray"], ["'stray'"]),
            (["--nonsense=1"], ["nonsense"]),
            ([], ["--node-name", "give"]),
        ):
            message = self.fails(*words)
            self.assertNotIn("\n", message)
            for part in ["sample: ", *parts]:
                self.assertIn(part, message)

    def test_help(self) -> None:
        """
        The help shows each option with its default as an operator writes it.
        """
        text = SampleOptions().getUsage(width=200)
        for part in ("--grace=", "[default: 40s]", "[default: true]", "[default: kubelet,coredns]"):
            self.assertIn(part, text)

    def test_version(self) -> None:
        """
        --version prints the program's own version.
        """
        out = io.StringIO()
        with contextlib.redirect_stdout(out), self.assertRaises(SystemExit) as caught:
            SampleOptions().parseOptions(["--version"])
        self.assertEqual((out.getvalue(), caught.exception.code), ("sample 1.2.3\n", 0))


class ParserTests(SynchronousTestCase):
    """
    Tests of the parsers of single values.
    """

    def test_sizes(self) -> None:
        """
        Sizes are Kubernetes' quantities of bytes.
        """
        for text, value in (("64Mi", 64 << 20), ("1Gi", 1 << 30), ("2Ki", 2048), ("500k", 500_000), ("3M", 3_000_000), ("7", 7)):
            self.assertEqual(size(text), value)
        for text in ("", "Mi", "1.5Gi", "-1", "1 Mi", "1mi", "1Ti"):
            self.assertRaises(ValueError, size, text)

    def test_durations(self) -> None:
        """
        Go's durations are seconds; a bare number other than 0 has no unit and is refused.
        """
        self.assertEqual([duration(text) for text in ("0", "500ms", "1.5s", "2h1m")], [0.0, 0.5, 1.5, 7260.0])
        for text in ("", "5", "s", "5 s", "-1s", "1d", "1s2"):
            self.assertRaises(ValueError, duration, text)

    def test_integers(self) -> None:
        """
        Both limits are included; anything but decimal digits is refused.
        """
        small = integer(1, 9)
        self.assertEqual([small("1"), small("9")], [1, 9])
        for text in ("", "0", "10", "1.0", "0x1", "١", " 1", "9" * 5000):
            self.assertRaises(ValueError, small, text)

    def test_choice(self) -> None:
        """
        A word that is not offered is refused with those that are.
        """
        self.assertEqual(choice("rr", "priority")("rr"), "rr")
        self.assertIn("rr, priority", str(self.assertRaises(ValueError, choice("rr", "priority"), "random")))

    def test_addresses(self) -> None:
        """
        IPv4 and IPv6 in canonical form, brackets allowed; no names, no networks.
        """
        texts = ("127.0.0.1", "::1", "[fd00::2:1]", "FD00:0::1", "::ffff:127.0.0.1", "")
        self.assertEqual([address(text) for text in texts], ["127.0.0.1", "::1", "fd00::2:1", "fd00::1", "127.0.0.1", ""])
        for text in ("localhost", "10.0.0.0/8", "1.2.3", "01.2.3.4"):
            self.assertRaises(ValueError, address, text)

    def test_host_port(self) -> None:
        """
        A port is optional, and an IPv6 address with a port stands in brackets.
        """
        texts = ("a.example", "a:1", "[::1]", "[::1]:2", "::1")
        expected = [("a.example", 443), ("a", 1), ("::1", 443), ("::1", 2), ("::1", 443)]
        self.assertEqual([host_port(text, 443) for text in texts], expected)
        for text in ("", ":1", "a:", "a:x", "a:99999", "[::1", "[::1]x", "a]:1"):
            self.assertRaises(ValueError, host_port, text, 443)

    def test_servers(self) -> None:
        """
        The scheme is https whether written or not, and the port is 443 unless written.
        """
        expected = ("https://a:6443", "https://b:443", "https://[fd00::1]:6443")
        self.assertEqual(https_urls("https://a:6443/, b ,https://[fd00::1]:6443"), expected)
        self.assertEqual(https_urls("a/k8s/clusters/c1/"), ("https://a:443/k8s/clusters/c1",))
        self.assertEqual(https_urls(""), ())
        for text in ("http://a", "https://u:p@a", "https://a?q", "https://a#f", "https://", "https://a:b"):
            self.assertRaises(ValueError, https_urls, text)
