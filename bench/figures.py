"""
What is measured, as lines for people.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """
    One measured number beside what is to be reached: at least ``target``, or at most it.
    """

    name: str
    value: float
    unit: str
    target: float
    at_least: bool
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def __str__(self) -> str:
        bound = ">=" if self.at_least else "<="
        value = f"{self.value:,.2f} {self.unit}" if self.value < 100 else f"{self.value:,.0f} {self.unit}"
        line = f"{'PASS' if self.passed else 'FAIL'}  {self.name}: {value} (to reach: {bound} {self.target:,g} {self.unit})"
        return f"{line}\n      {self.detail}" if self.detail else line


def at_least(name: str, value: float, unit: str, target: float, detail: str = "") -> Figure:
    return Figure(name, value, unit, target, True, detail)


def at_most(name: str, value: float, unit: str, target: float, detail: str = "") -> Figure:
    return Figure(name, value, unit, target, False, detail)


def percentile(values: list[float], part: float) -> float:
    """
    The value below which ``part`` (0 to 1) of them lie.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def median(values: list[float]) -> float:
    return percentile(values, 0.5)
