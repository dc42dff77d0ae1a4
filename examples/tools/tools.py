"""The tools of the shop agent: plain functions with types and docstrings, over the tables beside them."""

from typing import Literal

Article = Literal["pen", "notebook", "backpack"]
Country = Literal["Austria", "Belgium", "Canada"]

PRICES = {"pen": 1.75, "notebook": 4.2, "backpack": 59.9}
DELIVERY = {"Austria": 2, "Belgium": 3, "Canada": 9}
DISCOUNT_FROM = 10
DISCOUNT = 0.1


def price_of(article: Article, count: int) -> float:
    """Return what some pieces of one article cost together, in euros; ten and more are a tenth cheaper.

    Args:
        article: What is bought.
        count: How many pieces.
    """
    if count < 1:
        raise ValueError(f"count is {count}; at least one piece can be bought")
    total = PRICES[article] * count
    return round(total * (1 - DISCOUNT) if count >= DISCOUNT_FROM else total, 2)


def delivery_days(country: Country) -> int:
    """Return how many working days a parcel takes to a country."""
    return DELIVERY[country]
