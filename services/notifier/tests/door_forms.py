"""The forms in which an address can be written, and what becomes of each: read by the tests, and published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

CALLED: Final = "called"
INVALID: Final = "invalid"


@dataclass(frozen=True, slots=True)
class Form:
    """``becomes`` is ``called``, ``invalid`` (refused as it is written), or the kind of address that is refused, with
    settings that allow nothing of their own. ``means`` is the host as it is read; of a name, ``resolves`` are the
    addresses that DNS gives, and ``dialled`` those that are called."""

    form: str
    url: str
    means: str
    becomes: str
    resolves: tuple[str, ...] = ()
    dialled: tuple[str, ...] = ()


FORMS: Final[Sequence[Form]] = (
    Form("a public address", "https://8.8.8.8/", "8.8.8.8", CALLED),
    Form("loopback", "https://127.0.0.1/", "127.0.0.1", "loopback"),
    Form("loopback, another of its addresses", "https://127.8.9.10/", "127.8.9.10", "loopback"),
    Form("a dot at the end", "https://127.0.0.1./", "127.0.0.1", "loopback"),
    Form("one decimal number", "https://2130706433/", "127.0.0.1", "loopback"),
    Form("one decimal number, public", "https://134744072/", "8.8.8.8", CALLED),
    Form("one hexadecimal number", "https://0x7f000001/", "127.0.0.1", "loopback"),
    Form("hexadecimal, in capitals", "https://0X7F.0X0.0X0.0X1/", "127.0.0.1", "loopback"),
    Form("one octal number", "https://017700000001/", "127.0.0.1", "loopback"),
    Form("octal parts", "https://0177.0.0.01/", "127.0.0.1", "loopback"),
    Form("octal that looks decimal", "https://010.8.8.8/", "8.8.8.8", CALLED),
    Form("two parts", "https://127.1/", "127.0.0.1", "loopback"),
    Form("three parts", "https://10.0.258/", "10.0.1.2", "private"),
    Form("parts of different kinds", "https://0x7f.0.1/", "127.0.0.1", "loopback"),
    Form("zero", "https://0/", "0.0.0.0", "unspecified"),  # noqa: S104  # nothing is bound
    Form("a hexadecimal mark without digits", "https://0x/", "0.0.0.0", "unspecified"),  # noqa: S104  # nothing is bound
    Form("full-width digits and dots", "https://１２７。０．０｡１/", "127.0.0.1", "loopback"),  # noqa: RUF001  # what it is about
    Form("digits in circles", "https://①②⑦.⓪.⓪.①/", "127.0.0.1", "loopback"),
    Form("a part that is too large", "https://127.0.0.256/", "", INVALID),
    Form("a number that is too large", "https://4294967296/", "", INVALID),
    Form("five parts", "https://1.127.0.0.1/", "", INVALID),
    Form("an octal number with a nine", "https://127.0.0.09/", "", INVALID),
    Form("an empty part", "https://127..1/", "", INVALID),
    Form("two dots at the end", "https://127.0.0.1../", "", INVALID),
    Form("percent-encoded", "https://%31%32%37.0.0.1/", "", INVALID),
    Form("a name and a password in front", "https://example.com@127.0.0.1/", "", INVALID),
    Form("a backslash", "https://example.com\\@127.0.0.1/", "", INVALID),
    Form("a tab within", "https://127.0.\t0.1/", "", INVALID),
    Form("a line break", "https://example.com/\r\nHost:127.0.0.1", "", INVALID),
    Form("several colons", "https://127.0.0.1:80:443/", "", INVALID),
    Form("port 0", "https://8.8.8.8:0/", "", INVALID),
    Form("another scheme", "ftp://8.8.8.8/", "", INVALID),
    Form("a scheme of files", "file:///etc/passwd", "", INVALID),
    Form("no scheme", "//127.0.0.1/", "", INVALID),
    Form("private", "https://10.1.2.3/", "10.1.2.3", "private"),
    Form("private", "https://172.31.255.255/", "172.31.255.255", "private"),
    Form("private", "https://192.168.0.1/", "192.168.0.1", "private"),
    Form("beside the private ones", "https://172.32.0.1/", "172.32.0.1", CALLED),
    Form("shared by customers of a provider (CGNAT)", "https://100.64.0.1/", "100.64.0.1", "shared (CGNAT)"),
    Form("link-local", "https://169.254.1.1/", "169.254.1.1", "link-local"),
    Form("cloud metadata", "https://169.254.169.254/latest/meta-data/", "169.254.169.254", "metadata"),
    Form("cloud metadata as a number", "https://2852039166/", "169.254.169.254", "metadata"),
    Form("cloud metadata, Alibaba", "https://100.100.100.200/", "100.100.100.200", "metadata"),
    Form("cloud metadata, Azure", "https://168.63.129.16/", "168.63.129.16", "metadata"),
    Form("cloud metadata, Oracle", "https://192.0.0.192/", "192.0.0.192", "metadata"),
    Form("documentation", "https://192.0.2.1/", "192.0.2.1", "documentation"),
    Form("documentation", "https://198.51.100.1/", "198.51.100.1", "documentation"),
    Form("documentation", "https://203.0.113.1/", "203.0.113.1", "documentation"),
    Form("benchmark", "https://198.19.0.1/", "198.19.0.1", "benchmark"),
    Form("assigned to protocols", "https://192.0.0.8/", "192.0.0.8", "reserved"),
    Form("6to4 relay", "https://192.88.99.1/", "192.88.99.1", "6to4 relay"),
    Form("multicast", "https://224.0.0.1/", "224.0.0.1", "multicast"),
    Form("reserved", "https://250.0.0.1/", "250.0.0.1", "reserved"),
    Form("broadcast", "https://255.255.255.255/", "255.255.255.255", "reserved"),
    Form("a public IPv6 address", "https://[2606:4700::1111]/", "2606:4700::1111", CALLED),
    Form("IPv6 loopback", "https://[::1]/", "::1", "loopback"),
    Form("IPv6 loopback, written out", "https://[0:0:0:0:0:0:0:1]/", "::1", "loopback"),
    Form("IPv6 unspecified", "https://[::]/", "::", "unspecified"),
    Form("mapped IPv4", "https://[::ffff:127.0.0.1]/", "127.0.0.1", "loopback"),
    Form("mapped IPv4, hexadecimal", "https://[::ffff:7f00:1]/", "127.0.0.1", "loopback"),
    Form("mapped IPv4, metadata", "https://[::ffff:a9fe:a9fe]/", "169.254.169.254", "metadata"),
    Form("mapped IPv4, public", "https://[::ffff:8.8.8.8]/", "8.8.8.8", CALLED),
    Form("IPv4-compatible", "https://[::127.0.0.1]/", "::7f00:1", "IPv4-compatible"),
    Form("IPv4-translated", "https://[::ffff:0:127.0.0.1]/", "::ffff:0:7f00:1", "IPv4-translated"),
    Form("NAT64 to a private address", "https://[64:ff9b::10.0.0.1]/", "64:ff9b::a00:1", "private"),
    Form("NAT64 to cloud metadata", "https://[64:ff9b::a9fe:a9fe]/", "64:ff9b::a9fe:a9fe", "metadata"),
    Form("NAT64 to a public address", "https://[64:ff9b::8.8.8.8]/", "64:ff9b::808:808", CALLED),
    Form("NAT64 of a network's own", "https://[64:ff9b:1::8.8.8.8]/", "64:ff9b:1::808:808", "local NAT64"),
    Form("6to4", "https://[2002:7f00:1::]/", "2002:7f00:1::", "6to4"),
    Form("Teredo", "https://[2001:0:5ef5:79fb::1]/", "2001:0:5ef5:79fb::1", "Teredo"),
    Form("IPv6 assigned to protocols", "https://[2001:10::1]/", "2001:10::1", "reserved"),
    Form("IPv6 benchmark", "https://[2001:2::1]/", "2001:2::1", "benchmark"),
    Form("IPv6 documentation", "https://[2001:db8::1]/", "2001:db8::1", "documentation"),
    Form("IPv6 documentation", "https://[3fff::1]/", "3fff::1", "documentation"),
    Form("IPv6 private", "https://[fd12:3456::1]/", "fd12:3456::1", "private"),
    Form("IPv6 cloud metadata", "https://[fd00:ec2::254]/", "fd00:ec2::254", "metadata"),
    Form("IPv6 link-local", "https://[fe80::1]/", "fe80::1", "link-local"),
    Form("IPv6 with a zone", "https://[fe80::1%25eth0]/", "", INVALID),
    Form("IPv6 site-local", "https://[fec0::1]/", "fec0::1", "site-local"),
    Form("IPv6 multicast", "https://[ff02::1]/", "ff02::1", "multicast"),
    Form("IPv6 to be discarded", "https://[100::1]/", "100::1", "reserved"),
    Form("IPv6 that nobody was given", "https://[4000::1]/", "4000::1", "reserved"),
    Form("IPv6 without brackets", "https://::1/", "", INVALID),
    Form("an IPv4 address in brackets", "https://[127.0.0.1]/", "", INVALID),
    Form("brackets that are not closed", "https://[::1/", "", INVALID),
    Form("a name of this machine", "https://localhost/", "localhost", "loopback", ("::1", "127.0.0.1")),
    Form(
        "a name of cloud metadata", "https://metadata.google.internal/", "metadata.google.internal", "metadata",
        ("169.254.169.254",),
    ),
    Form("a public name of a private address", "https://Rebound.Example/", "rebound.example", "private", ("10.0.0.1",)),
    Form(
        "a name of public and private addresses", "https://mixed.example/", "mixed.example", CALLED,
        ("10.0.0.1", "8.8.8.8", "::1"), ("8.8.8.8",),
    ),
    Form(
        "a name of a mapped address", "https://mapped.example/", "mapped.example", "loopback", ("::ffff:127.0.0.1",)
    ),
    Form(
        "an internationalised name", "https://BÜCHER.example/", "xn--bcher-kva.example", CALLED,
        ("8.8.8.8",), ("8.8.8.8",),
    ),
    Form("a name with a dot at the end", "https://a.example./", "a.example", CALLED, ("8.8.8.8",), ("8.8.8.8",)),
    Form("a name without an address", "https://nowhere.example/", "nowhere.example", "unknown"),
)  # fmt: skip


def table() -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield "| form | for example | read as | becomes |"
    yield "|---|---|---|---|"
    for one in FORMS:
        read = f"`{one.means}`" if one.means else ""
        if one.resolves:
            read += ", which is " + ", ".join(f"`{address}`" for address in one.resolves)
        match one.becomes:
            case "called":
                becomes = CALLED + (f" at `{one.dialled[0]}`" if one.dialled else "")
            case "invalid":
                becomes = "refused as it is written"
            case "unknown":
                becomes = "fails: no address"
            case kind:
                becomes = f"refused: {kind}"
        shown = one.url.replace("\t", "⇥").replace("\r", "␍").replace("\n", "␊")
        yield f"| {one.form} | `{shown}` | {read} | {becomes} |"
