"""What a request to a model costs, by the tables of `genai-prices`, where that is installed."""

from importlib.util import find_spec


def price(model: str, asked: int, answered: int) -> float:
    """Return the price of a request in dollars, by its tokens; 0 of a model whose price is not known."""
    if find_spec("genai_prices") is None:
        return 0.0
    from genai_prices import Usage, calc_price

    try:
        return float(calc_price(Usage(input_tokens=asked, output_tokens=answered), model_ref=model).total_price)
    except LookupError:
        return 0.0
