"""What the account may do and what capturing would take of it: reads a second, connections. Pure."""

from libs.exchange.rest import BOOKS_PER_REQUEST_MAX
from libs.exchange.rest_wire import AccountLimits, Json
from libs.runtime.sections import SlotSettings, account_faults
from services.doctor.findings import Finding, fail, ok, warn
from services.doctor.settings import Plan

BUDGET, CONNECTIONS = "read budget", "connections"
READ_COST = 10.0
"""Tokens of one read, unless the exchange says otherwise."""
MARKETS_ASSUMED = 100_000
"""Open markets of the real exchange, combos excluded."""
BOOKS_PATH = "/markets/orderbooks"


def cost_of_books(costs: Json | None) -> float:
    """Return the tokens one read of many books costs, by the exchange's list of costs; None: the usual."""
    if not costs:
        return READ_COST
    default = _number(costs.get("default_cost"), READ_COST)
    named = costs.get("endpoint_costs")
    for entry in named if isinstance(named, list) else ():
        if isinstance(entry, dict) and str(entry.get("path", "")).endswith(BOOKS_PATH):
            return _number(entry.get("cost"), default)
    return default


def judge_budget(
    limits: AccountLimits, cost: float, configured: float, plan: Plan, markets: int | None
) -> Finding:
    """Judge the read budget; configured: reads a second of the settings; markets: open ones, None when not counted."""
    read = limits.read
    if read.refill_rate <= 0:
        return fail(
            BUDGET, f"{read.refill_rate:g} tokens/s: no reads at all", "ask the exchange for reads"
        )
    allowed = read.refill_rate / cost
    rate = min(allowed, configured)
    number = MARKETS_ASSUMED if markets is None else markets
    reads = -(-number // BOOKS_PER_REQUEST_MAX)
    round_s = reads / (rate * plan.poller_share)
    found = (
        f"tier {limits.usage_tier or 'unnamed'}: {read.refill_rate:g} tokens/s = {allowed:g} reads/s"
        f" (bucket {read.bucket_capacity:g}, {read.bucket_capacity / read.refill_rate:.1f} s);"
        f" registry {rate * plan.registry_share:.1f}/s, poller {rate * plan.poller_share:.1f}/s;"
        f" books of {'about ' if markets is None else ''}{number:,} open markets:"
        f" {reads:,} reads, {_duration(round_s)} a round"
    )
    if round_s > plan.period_s:
        return warn(
            BUDGET,
            found,
            f"a round takes longer than poller.period_s ({plan.period_s:g} s): raise it, set poller.markets_max,"
            " or get a higher tier",
        )
    if configured > allowed * 1.001:
        return warn(
            BUDGET,
            f"{found}; exchange.reads_per_s asks for {configured:g}",
            f"set exchange.reads_per_s to {allowed:g}; until then the services slow down by themselves",
        )
    return ok(BUDGET, found)


def judge_connections(account: str, slots: SlotSettings) -> Finding:
    """Judge the number of connections; the exchange has no way to ask how many are open now."""
    needed = slots.total + 1
    found = (
        f"{slots.total} slots + 1 to move = {needed} of {slots.connections_max} this zone may hold of account {account}"
        " (200 documented for an account, more with the tier); the exchange does not tell how many are open now"
    )
    if account_faults([("this zone", account, slots)]):
        return fail(
            CONNECTIONS, found, "lower slots.orderbook, or raise slots.connections_max if it is so"
        )
    room = slots.connections_max // needed
    zones = "one zone" if room == 1 else f"{room} such zones"
    return ok(CONNECTIONS, f"{found}; room for {zones} in it")


def _number(value: object, default: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value > 0 else default  # type: ignore[arg-type, operator]


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
