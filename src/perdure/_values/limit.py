"""How large an encoded value may be, and what is said of one that is larger: everywhere the same."""

from perdure.errors import PayloadError


def check_size(raw: bytes, limit: int, what: str, owner: str) -> None:
    """Refuse what is larger than the engine's `payload_limit`.

    Args:
        raw: The value, encoded.
        limit: The largest one in bytes.
        what: What it is, at the beginning of a sentence.
        owner: Whose it is.

    Raises:
        PayloadError: It is larger.
    """
    if len(raw) > limit:
        raise too_large(raw, limit, what, owner)


def too_large(raw: bytes, limit: int, what: str, owner: str) -> PayloadError:
    """Say that something is larger than the engine's `payload_limit`."""
    return PayloadError(
        f"{what} has {len(raw):,} bytes; the limit is {limit:,}. Store it elsewhere and hand on where it is, or open the "
        "engine with a larger payload_limit=.",
        owner=owner,
    )
