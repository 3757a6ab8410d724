"""Certificates for tests, made by openssl."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA in a folder of its own."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def issue(self, name: str, *, days: int = 10, purpose: str = "server") -> tuple[Path, Path]:
        """A certificate for localhost and its key."""
        stem = f"{name}-{days}-{purpose}"
        certificate, key, request = (self.folder / f"{stem}.{ending}" for ending in ("pem", "key", "csr"))
        extensions = self.folder / f"{stem}.ext"
        extensions.write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={purpose}Auth\n")
        _openssl("req", *_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}")
        _openssl(
            *("x509", "-req", "-in", str(request), "-out", str(certificate), "-extfile", str(extensions)),
            *("-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key"), "-CAcreateserial"),
            *("-days", str(days)),
        )
        return certificate, key


_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def authority(folder: Path, name: str = "test ca", days: int = 30) -> Authority:
    """A new CA."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Authority(folder)
    key, request, extensions = (str(folder / part) for part in ("ca.key", "ca.csr", "ca.ext"))
    Path(extensions).write_text("basicConstraints=critical,CA:TRUE\n")
    _openssl("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    _openssl(
        *("x509", "-req", "-in", request, "-signkey", key, "-out", str(made.certificate)),
        *("-days", str(days), "-extfile", extensions),
    )
    return made
