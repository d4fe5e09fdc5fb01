"""The name in a TLS certificate, for a curl line that works. Loaded only where TLS is on."""

from pathlib import Path

from cryptography import x509


def name_in(path: Path) -> str:
    """The first plain DNS name that the certificate is for; "" when it has none or cannot be read."""
    try:
        certificate = x509.load_pem_x509_certificates(path.read_bytes())[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return ""
    found: list[str] = names.get_values_for_type(x509.DNSName)
    return next((name for name in found if "*" not in name), "")
