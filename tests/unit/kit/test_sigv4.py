import pytest

from pilothouse.kit.secret import Secret
from pilothouse.kit.sigv4 import SigningKey, encode_path, sign

# The key, request and signature of "Example: GET Object" in the specification's S3 annex.
KEY = SigningKey(
    access_key_id="AKIAIOSFODNN7EXAMPLE",
    secret=Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
    region="us-east-1",
)
NOON = 1369353600.0

# Of the published test suite of the signature, version 4: no service has its own rules there.
SUITE = SigningKey(
    access_key_id="AKIDEXAMPLE",
    secret=Secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    region="us-east-1",
    service="service",
)
FORM = {"content-type": "application/x-www-form-urlencoded"}


def test_the_example_of_the_specification_is_signed_as_it_says() -> None:
    headers = sign(
        "GET", "examplebucket.s3.amazonaws.com", "/test.txt", {"range": "bytes=0-9"}, key=KEY, now=NOON
    )

    assert headers["x-amz-date"] == "20130524T000000Z"
    assert headers["authorization"].endswith(
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


def test_the_example_with_a_query_is_signed_as_the_specification_says() -> None:
    headers = sign("GET", "examplebucket.s3.amazonaws.com", "/?max-keys=2&prefix=J", {}, key=KEY, now=NOON)

    assert headers["authorization"].endswith(
        "Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
    )


@pytest.mark.parametrize(
    ("method", "headers", "body", "signature"),
    [
        ("GET", {}, b"", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", {}, b"", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("POST", FORM, b"Param1=value1", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"),
    ],
    ids=["get-vanilla", "post-vanilla", "post-x-www-form-urlencoded"],
)
def test_the_published_vectors_are_signed_as_published(
    method: str, headers: dict[str, str], body: bytes, signature: str
) -> None:
    signed = sign(method, "example.amazonaws.com", "/", headers, key=SUITE, now=1440938160.0, body=body)

    assert signed["authorization"].endswith(f"Signature={signature}")
    assert "x-amz-content-sha256" not in signed


def test_a_session_token_is_signed_too() -> None:
    key = SigningKey(access_key_id="a", secret=Secret("b"), region="r", session_token=Secret("t"))

    headers = sign("GET", "h", "/", {}, key=key, now=NOON)

    assert headers["x-amz-security-token"] == "t"
    assert "x-amz-security-token" in headers["authorization"]


def test_paths_are_encoded_once() -> None:
    assert encode_path("a b/ü+c.gguf") == "a%20b/%C3%BC%2Bc.gguf"
