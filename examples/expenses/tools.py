"""The tool of the expenses agent: it reads the CSV file beside it."""

import csv
from decimal import Decimal
from pathlib import Path
from typing import Literal

Category = Literal["travel", "software", "hardware", "hotels", "insurance", "marketing"]


def total_for(category: Category) -> float:
    """Add up the expenses of one category, in euros."""
    with Path(__file__).with_name("expenses.csv").open(newline="", encoding="utf-8") as file:
        amounts = [Decimal(row["amount"]) for row in csv.DictReader(file) if row["category"] == category]
    return float(sum(amounts, Decimal(0)))
