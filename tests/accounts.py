"""Key files of accounts that never were."""

import json
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


def key_file(folder: Path, token_url: str) -> Path:
    """Of a service account that never was."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    told = {
        "type": "service_account", "project_id": "of-the-key", "private_key_id": "1", "private_key": pem,
        "client_email": "robot@of-the-key.iam.gserviceaccount.com", "client_id": "1", "token_uri": token_url,
    }  # fmt: skip
    path = folder / "key.json"
    path.write_text(json.dumps(told))
    return path
