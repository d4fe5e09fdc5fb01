"""What an engine is spoken to with: a secret that was set, or the token of one that runs here."""

from functools import partial
from pathlib import Path

from pilothouse.domain.errors import OperationFailed
from pilothouse.domain.provider_secret import SealedSecret
from pilothouse.domain.secret_opening import WRAP_CONTEXT, open_secret
from pilothouse.kit.secret import Secret
from pilothouse.ports.keys import Keys


class Credentials:
    """Opened where they are needed, in workers and in the controller's probes, and nowhere else."""

    def __init__(self, keys: Keys) -> None:
        self._unwrap = partial(keys.unwrap, context=WRAP_CONTEXT)

    def of(self, wanted: str, sealed: SealedSecret | None, url: str, token_file: str) -> Secret | None:
        """
        Args:
            wanted: Name of the secret that the deployment names; "" is none.
            url: Where it will be sent.
            token_file: Of an engine that was started here.

        Raises:
            OperationFailed: It is not there, is bound to another host, or cannot be read.
        """
        if not token_file:
            return open_secret(sealed, wanted, url, unwrap=self._unwrap)
        try:
            return Secret(Path(token_file).read_text().strip())
        except (OSError, UnicodeDecodeError) as exc:
            raise OperationFailed(f"the token of the engine cannot be read: {exc}") from exc
