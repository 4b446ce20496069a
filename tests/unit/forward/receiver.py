"""The receiver that docs/retrain.md shows; a test holds the two against each other."""

import base64
import hashlib
import hmac
import time


def is_genuine(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """Check a call; names of headers are lower case, the body is as it came."""
    call_id, sent = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(sent)) > 300:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{call_id}.{sent}.".encode() + body, hashlib.sha256).digest()
    wanted = b"v1," + base64.b64encode(digest)
    given = headers["webhook-signature"].split(" ")
    return any(hmac.compare_digest(wanted, each.encode()) for each in given)
