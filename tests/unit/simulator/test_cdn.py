"""The cache in front of market reads: how old an answer may be, and that the seed decides it."""

from services.simulator.answers import NOT_FOUND, Answer
from services.simulator.cdn import Cdn

T0 = 1_795_000_000_000_000
SECOND = 1_000_000
AGE = 15 * SECOND


def body(number: int) -> Answer:
    return Answer(200, f'{{"number":{number}}}'.encode())


def read(cdn: Cdn, url: str, now: int) -> Answer:
    """Read through the cache; a fresh answer says when it was made."""
    return cdn.find(url, now) or cdn.fill(url, body(now), now)


def made_at(answer: Answer) -> int:
    return int(answer.body.removeprefix(b'{"number":').removesuffix(b"}"))


def test_no_answer_is_older_than_the_maximum_and_some_nearly_are() -> None:
    """kalshi-api 1.3: a market read can be up to about 15 s old."""
    cdn = Cdn(seed=1, age_max=AGE)
    ages = [now - made_at(read(cdn, "/markets", now)) for now in range(T0, T0 + 2_000 * SECOND, SECOND)]  # fmt: skip
    assert max(ages) < AGE
    assert max(ages) > 12 * SECOND
    assert min(ages) == 0
    assert 2 * SECOND < sum(ages) / len(ages) < 8 * SECOND


def test_headers_say_that_it_is_a_cache() -> None:
    """kalshi-api 1.3: cache-control and x-kalshi-cache-hits are on fresh and kept answers alike."""
    cdn = Cdn(seed=1, age_max=AGE)
    cached = [dict(read(cdn, "/markets?limit=5", T0 + n).headers) for n in range(3)]
    assert {headers["cache-control"] for headers in cached} == {"public, max-age=15"}
    assert [headers["x-kalshi-cache-hits"] for headers in cached] == ["0", "1", "2"]


def test_the_same_seed_gives_the_same_ages() -> None:
    """The same reads at the same times: the same answers; another seed keeps them for other times."""

    def made(seed: int) -> list[int]:
        cdn = Cdn(seed, AGE)
        return [made_at(read(cdn, f"/m{n % 3}", T0 + n * SECOND // 2)) for n in range(200)]

    assert made(3) == made(3)
    assert made(3) != made(4)


def test_addresses_are_kept_apart() -> None:
    """The query is part of the address."""
    cdn = Cdn(seed=1, age_max=AGE)
    read(cdn, "/markets?limit=1", T0)
    assert cdn.find("/markets?limit=2", T0 + 1) is None


def test_without_an_age_nothing_is_kept() -> None:
    """A test that needs fresh answers gets them, with the exchange's headers."""
    cdn = Cdn(seed=1, age_max=0)
    answer = cdn.fill("/markets", body(1), T0)
    assert cdn.find("/markets", T0) is None
    assert dict(answer.headers)["x-kalshi-cache-hits"] == "0"


def test_failures_are_not_kept() -> None:
    """A 404 is not remembered: a new market appears when it appears."""
    cdn = Cdn(seed=1, age_max=AGE)
    assert cdn.fill("/markets/NEW", NOT_FOUND, T0) == NOT_FOUND
    assert cdn.find("/markets/NEW", T0) is None


def test_memory_is_bounded_oldest_first() -> None:
    """Bodies beyond the bound push out the oldest; one that is larger than all of it is not kept."""
    cdn = Cdn(seed=1, age_max=1_000 * AGE, bytes_max=250)
    for number in range(3):
        cdn.fill(f"/{number}", Answer(200, b"x" * 100), T0)
    assert cdn.find("/0", T0) is None
    assert cdn.find("/1", T0) is not None
    assert cdn.find("/2", T0) is not None
    cdn.fill("/large", Answer(200, b"x" * 251), T0)
    assert cdn.find("/large", T0) is None
    assert cdn.find("/2", T0) is not None
