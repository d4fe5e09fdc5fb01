"""Where an outbound connection may go: a table of ways around the policy, and that each is closed."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kit.egress import (
    EgressRefused,
    NameNotFound,
    Pinned,
    check_address,
    parse_url,
    resolve,
    resolve_async,
)

PUBLIC = "93.184.216.34"

BYPASSES = [
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "//example.com/",
    "example.com/model.gguf",
    "https:///model.gguf",
    "https://127.0.0.1/",
    "https://127.0.0.1./",
    "https://127.1/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://127.0.0.0x1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.169.254./",
    "https://2852039166/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[::ffff:93.184.216.34]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::169.254.169.254]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fc00::1]/",
    "https://localhost/",
    "https://LOCALHOST./",
    "https://a.localhost/",
    "https://ⓛocalhost/",
    "https://１２７.０.０.１/",
    "https://127。0。0。1/",
    "https://metadata.google.internal/",
    "https://metadata/",
    "https://printer.local/",
    "https://api.default.svc.cluster.local/",
    "https://user:secret@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com:secret@[::1]/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com\t/",
    "https://exa\nmple.com/",
    "https://example.com/a b",
    "https://example.com/\x00",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:80x/",
    "https://exam_ple..com/",
    "https://%6cocalhost/",
    "https://-/",
    "https://" + "a" * 64 + ".com/",
    "https://example.com/" + "a" * 9000,
]


@pytest.mark.parametrize("url", BYPASSES)
def test_a_way_around_the_policy_is_closed(url: str) -> None:
    with pytest.raises(EgressRefused):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "host", "port", "target"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("HTTPS://Example.COM./a/b?c=%20d#e", "example.com", 443, "/a/b?c=%20d"),
        ("https://example.com:8443/", "example.com", 8443, "/"),
        ("https://bücher.example/", "xn--bcher-kva.example", 443, "/"),
        (f"https://{PUBLIC}/", PUBLIC, 443, "/"),
        ("https://[2606:2800:220:1::1]/", "2606:2800:220:1::1", 443, "/"),
        ("https://[64:ff9b::5db8:d822]/", "64:ff9b::5db8:d822", 443, "/"),
    ],
)
def test_an_honest_address_is_read(url: str, host: str, port: int, target: str) -> None:
    address = parse_url(url)

    assert (address.host, address.port, address.target) == (host, port, target)


@pytest.mark.parametrize(
    "url",
    ["https://127.0.0.1/", "https://[::1]/", "https://10.1.2.3/", "https://localhost/", "https://nas.local/"],
)
def test_private_networks_are_reached_only_where_they_are_allowed(url: str) -> None:
    assert parse_url(url, allow_private=True).host

    with pytest.raises(EgressRefused):
        parse_url(url)


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
        "fe80::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "::a9fe:a9fe",
    ],
)
def test_metadata_and_nowhere_are_refused_even_where_private_is_allowed(ip: str) -> None:
    with pytest.raises(EgressRefused):
        check_address(ip, allow_private=True)


@pytest.mark.parametrize("host", ["metadata.google.internal", "metadata", "instance-data"])
def test_metadata_names_are_refused_even_where_private_is_allowed(host: str) -> None:
    with pytest.raises(EgressRefused, match="metadata"):
        parse_url(f"https://{host}/", allow_private=True)


def test_a_mapped_address_is_unwrapped_where_private_is_allowed() -> None:
    assert str(check_address("::ffff:127.0.0.1", allow_private=True)) == "127.0.0.1"


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        [PUBLIC, "127.0.0.1"],
        ["10.0.0.1", PUBLIC],
        ["2606:2800:220:1::1", "::1"],
        [PUBLIC, "::ffff:10.0.0.1"],
        ["fe80::1%eth0"],
        ["not an address"],
    ],
)
def test_one_bad_answer_of_the_name_server_refuses_all(answers: list[str]) -> None:
    with pytest.raises(EgressRefused, match="example"):
        resolve("example.com", 443, allow_private=False, lookup=lambda _host, _port: answers)


def test_a_name_is_resolved_once_and_pinned() -> None:
    answers = iter([[PUBLIC, PUBLIC], ["127.0.0.1"]])  # a rebinding name server: public first, then inside

    pinned = resolve("rebind.example", 443, allow_private=False, lookup=lambda _host, _port: next(answers))

    assert pinned == (Pinned(PUBLIC, 443),)


def test_a_name_without_an_address_is_not_found() -> None:
    def silent(_host: str, _port: int) -> Iterable[str]:
        raise OSError("no such name")

    with pytest.raises(NameNotFound, match=r"gone\.example"):
        resolve("gone.example", 443, allow_private=False, lookup=silent)
    with pytest.raises(NameNotFound):
        resolve("gone.example", 443, allow_private=False, lookup=lambda _host, _port: [])


async def test_the_asynchronous_form_holds_the_same_policy() -> None:
    pinned = await resolve_async(
        "example.com", 443, allow_private=False, timeout_s=5, lookup=lambda _host, _port: [PUBLIC]
    )
    assert pinned == (Pinned(PUBLIC, 443),)

    with pytest.raises(EgressRefused):
        await resolve_async(
            "example.com", 443, allow_private=False, timeout_s=5, lookup=lambda _h, _p: ["::1"]
        )


async def test_a_name_server_that_never_answers_is_given_up() -> None:
    answered = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stuck(_host: str, _port: int) -> Iterable[str]:
        asyncio.run_coroutine_threadsafe(answered.wait(), loop).result(timeout=5)
        return [PUBLIC]

    with pytest.raises(NameNotFound, match="did not answer"):
        await resolve_async("slow.example", 443, allow_private=False, timeout_s=0.01, lookup=stuck)

    answered.set()


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for url in (text, f"https://{text}"):
        try:
            address = parse_url(url)
        except EgressRefused:
            continue
        assert address.host.isascii()
        assert parse_url(address.url) == address


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1))
def test_an_ipv4_address_is_judged_the_same_in_every_disguise(number: int) -> None:
    def allowed(ip: str) -> bool:
        try:
            check_address(ip, allow_private=False)
        except EgressRefused:
            return False
        return True

    plain = f"{number >> 24}.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"

    assert allowed(f"64:ff9b::{plain}") == allowed(plain)
    assert not allowed(f"::ffff:{plain}")
    assert not allowed(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::")
