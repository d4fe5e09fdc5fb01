"""
Opening a provider's secret, for one address.

A secret is sealed for its name, its team and its host together. Who opens one
takes the host from the address that he is about to speak to, so that a deployment
whose address was changed does not get it: there is no check that could be
forgotten, the envelope does not open.
"""

from collections.abc import Callable

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.provider_secret import SealedSecret, host_of
from pilothouse.kit.seal import SealBroken, bind, disclose
from pilothouse.kit.secret import Secret

WRAP_CONTEXT = bind("provider-secret")
"""What the key of each is wrapped for."""


def place_of(name: str, team: str, host: str) -> bytes:
    """What a secret is sealed for."""
    return bind("provider-secret", 1, name, team, host)


def open_secret(
    sealed: SealedSecret | None, wanted: str, url: str, *, unwrap: Callable[[bytes], bytes]
) -> Secret | None:
    """
    The secret named `wanted`, for speaking to `url`; None where none is wanted.

    Raises:
        OperationFailed: It is not there, or is bound to another host.
    """
    if not wanted:
        return None
    host = host_of(url)
    if sealed is None:
        raise OperationFailed(
            f"there is no secret {wanted!r} for {host}. fix: pilothouse secret set {wanted} --host {host}"
        )
    try:
        value = disclose(sealed.sealed, place_of(sealed.name, sealed.team, host), unwrap)
    except SealBroken as exc:
        raise OperationFailed(
            f"the secret {wanted!r} is bound to {sealed.host} and does not open for {host or 'no host'}. "
            f"fix: pilothouse secret set {wanted} --host {host}"
        ) from exc
    return Secret(value.decode())
