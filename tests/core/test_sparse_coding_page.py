"""The examples of docs/sparse-coding.md run, and do what the page says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "sparse-coding.md"


def test_the_examples_of_the_page():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 4
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["atoms"].shape == (1, 16, 8, 8) and names["curve"][-1] < names["curve"][0]
    assert names["codes"].shape == (1, 16, 96, 96)
    assert (names["trained"] < names["untrained"]).all()
    assert names["bands"].shape == (1, 1, 10, 97, 97)
    assert (names["again"] - names["image"]).abs().max() < 1e-6
    assert (names["after"] < names["before"]).all() and names["loss"] > 0
    A, image, csc_cost = names["A"], names["image"], names["objective"]
    assert csc_cost(A, image, names["codes"], 0.05) < csc_cost(A, image, names["z"], 0.05)
    cost, gap = names["duality_gap"](A, image, names["z"], 0.05, nonnegative=False)
    assert gap <= 0.1 * cost  # where FISTA stopped
