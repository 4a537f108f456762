"""What a request to a model costs, by the tables of `genai-prices`, where that is installed. One for all frameworks."""

from importlib.util import find_spec


def price(model: str, asked: int, answered: int, *, read: int | None = None, written: int | None = None) -> float:
    """Return the price of a request in dollars, by its tokens; 0 for a model whose price is not known.

    `read` and `written` are those of the `asked` tokens that came from the service's cache, or went there.
    """
    if find_spec("genai_prices") is None:
        return 0.0
    from genai_prices import Usage, calc_price

    usage = Usage(input_tokens=asked, output_tokens=answered, cache_read_tokens=read, cache_write_tokens=written)
    try:
        return float(calc_price(usage, model_ref=model).total_price)
    except (LookupError, ValueError):  # no such model, or tokens that do not add up
        return 0.0
