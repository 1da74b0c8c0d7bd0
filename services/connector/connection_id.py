"""UUIDv7 of a connection: ordered by the time it was opened, so that rows of one time lie together in indexes."""

from uuid import UUID


def uuid7(now: int, entropy: UUID) -> UUID:
    """Return the version 7 UUID of a time (microseconds) with the random bits of a version 4 UUID."""
    random = entropy.int
    value = ((now // 1000) & (1 << 48) - 1) << 80
    value |= 0x7 << 76
    value |= ((random >> 64) & 0xFFF) << 64
    value |= 0b10 << 62
    value |= random & (1 << 62) - 1
    return UUID(int=value)
