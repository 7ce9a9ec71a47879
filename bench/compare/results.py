"""Figures out of the load generator's result, as rows want them."""

from typing import Callable, Optional

Value = Callable[[dict], Optional[float]]


def cpu_s(result: dict) -> float:
    return result["broker"]["user_s"] + result["broker"]["kernel_s"]


def per(part: str, count: str, unit: float) -> Value:
    """The broker's CPU seconds for each `unit` of `count` in the result's `part`."""

    def value(result: dict) -> Optional[float]:
        amount = result[part][count]
        return cpu_s(result) / (amount / unit) if amount else None

    return value


produce_cpu_per_gb = per("produced", "bytes", 1e9)
produce_cpu_per_million_requests = per("produced", "requests", 1e6)
fetch_cpu_per_gb = per("consumed", "bytes", 1e9)
fetch_cpu_per_million = per("consumed", "fetches_with_data", 1e6)


def figure(part: str, name: str, scale: float = 1.0) -> Value:
    return lambda result: result[part][name] * scale


produce_mb_per_s = figure("produced", "mb_per_s")
fetch_mb_per_s = figure("consumed", "mb_per_s")
resident_max_mib = figure("broker", "resident_max_mib")


def ack_ms(share: str) -> Value:
    return figure("ack_latency_us", share, 1e-3)


def end_to_end_ms(share: str) -> Value:
    return figure("end_to_end_us", share, 1e-3)


def disk_bytes_per_byte(result: dict) -> Optional[float]:
    """What went to disk for each byte of record values; None where the kernel does not say."""
    written = result["broker"]["write_bytes"]
    return written / result["produced"]["bytes"] if written is not None and result["produced"]["bytes"] else None


def broker_busy_percent(result: dict) -> float:
    """Of one core."""
    return cpu_s(result) / result["seconds"] * 100
