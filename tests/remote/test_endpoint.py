from __future__ import annotations

import pytest

from remote.endpoint import BadAddress, Endpoint, is_loopback


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://example.org", "https://example.org"),
        ("https://example.org:8427/drive/", "https://example.org:8427/drive"),
        ("example.org", "https://example.org"),
        (" example.org/ ", "https://example.org"),
        ("http://127.0.0.1:8427", "http://127.0.0.1:8427"),
        ("http://[::1]:8427/", "http://[::1]:8427"),
        ("http://localhost", "http://localhost"),
    ],
)
def test_addresses(text, url):
    assert Endpoint.parse(text).url == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://example.org", "not encrypted"),
        ("http://127.0.0.1.example.org", "not encrypted"),
        ("http://localhost.example.org", "not encrypted"),
        ("http://192.168.1.2:8427", "not encrypted"),
        ("ftp://example.org", "scheme"),
        ("https://", "no host"),
        ("https://me:secret@example.org", "password"),
        ("https://example.org/?a=b", "query"),
        ("https://example.org/#a", "fragment"),
        ("https://[::1", "not an address"),
        ("https://example.org:port", "not an address"),
    ],
)
def test_addresses_that_are_refused(text, why):
    with pytest.raises(BadAddress, match=why) as caught:
        Endpoint.parse(text)
    assert "secret" not in str(caught.value)


def test_insecure_allows_plain_http():
    endpoint = Endpoint.parse("http://192.168.1.2:8427", insecure=True)
    endpoint.check_link("http://192.168.1.2:9000/object?signature=x")


def test_a_missing_authority(tmp_path):
    with pytest.raises(BadAddress, match="no certificate file"):
        Endpoint.parse("https://example.org", ca=tmp_path / "ca.pem")
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(BadAddress, match="PEM"):
        _ = Endpoint.parse("https://example.org", ca=tmp_path / "ca.pem").tls


def test_links():
    endpoint = Endpoint.parse("https://example.org")
    endpoint.check_link("https://store.example.com/bucket/key?signature=x")
    for url in ("http://example.org/o?signature=x", "file:///etc/passwd", "https://a:b@example.org/o"):
        with pytest.raises(BadAddress) as caught:
            endpoint.check_link(url)
        assert "signature" not in str(caught.value)


@pytest.mark.parametrize(("host", "loopback"), [("127.8.9.1", True), ("::1", True), ("LOCALHOST", True), ("10.0.0.1", False)])
def test_loopback(host, loopback):
    assert is_loopback(host) is loopback
