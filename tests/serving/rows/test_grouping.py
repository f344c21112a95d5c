"""Rows that come folder by folder are told from rows in any other order."""

import random

import pytest

from diffood.serving.rows import grouping
from diffood.serving.rows.grouping import FolderOrder


def order_of(ids: list[str]) -> FolderOrder:
    order = FolderOrder()
    for identity in ids:
        order.add(identity)
    return order


SORTED = [f"test/{folder}/{number}.png" for folder in ("Bag", "Coat", "Shirt") for number in range(20)]


def test_sorted_rows_are_grouped_and_shuffled_ones_are_not() -> None:
    assert order_of(SORTED).grouped
    assert order_of(SORTED * 2).grouped  # two days, each sorted
    assert order_of(SORTED).folders == ("Bag", "Coat", "Shirt")
    for seed in range(100):
        assert not order_of(random.Random(seed).sample(SORTED, len(SORTED))).grouped, seed


def test_rows_that_could_not_come_otherwise_are_not_grouped() -> None:
    for ids in ([], SORTED[:20], SORTED[10:22], [name.replace("/", "_") for name in SORTED]):
        assert not order_of(ids).grouped, ids[:2]


def test_very_many_folders_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MOST_FOLDERS", 10)
    order = order_of([f"{number}/a.png" for number in range(1000)])
    assert len(order.folders) == 10
    assert not order.grouped
