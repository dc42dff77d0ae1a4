import csv
import importlib.util
from decimal import Decimal
from pathlib import Path
from typing import get_args

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "expenses"


@pytest.fixture(scope="module")
def tools():
    spec = importlib.util.spec_from_file_location("expenses_tools", EXAMPLE / "tools.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows():
    with (EXAMPLE / "expenses.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_tool_knows_exactly_the_categories_of_the_data(tools):
    assert set(get_args(tools.Category)) == {row["category"] for row in rows()}


def test_the_totals_of_the_tool_add_up_to_the_report(tools):
    totals = [Decimal(str(tools.total_for(category))) for category in get_args(tools.Category)]
    assert sum(totals) == sum(Decimal(row["amount"]) for row in rows())


def test_every_total_differs_so_that_a_wrong_category_shows(tools):
    totals = [tools.total_for(category) for category in get_args(tools.Category)]
    assert len(set(totals)) == len(totals)
