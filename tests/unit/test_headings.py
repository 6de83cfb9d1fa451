"""Labels and units of parameters and metrics, as titles of columns."""

from ems_worker.core.documents import headings
from ems_worker.core.language.tracked import TrackedMetric


def test_a_title_is_the_label_with_the_unit() -> None:
    """Or the name, also where a label is not the only one like it."""
    shown = {
        "a.heat": {"label": "water temperature", "unit": "K"},
        "b.heat": {"unit": "°C"},
        "food": {"label": "supply"},
        "fuel": {"label": "supply", "unit": "kg"},
    }
    names = ["a.heat", "b.heat", "food", "fuel", "kind"]
    short = ["a.heat", "heat", "food", "fuel", "kind"]
    expected = ["water temperature [K]", "heat [°C]", "food", "fuel [kg]", "kind"]
    assert headings.titles(names, shown, short) == expected
    assert headings.titles(names, shown)[1] == "b.heat [°C]"


def test_only_some_hundred_are_recorded() -> None:
    """Otherwise the reply to `get` of a plan with very many would be too large for a message."""
    metrics = [TrackedMetric(f"m{number}", unit="K") for number in range(headings.MAX_RECORDED + 1)]
    recorded = headings.of([], [TrackedMetric("plain"), *metrics])
    assert [*recorded["metrics"]] == [metric.name for metric in metrics[:-1]]
    assert recorded["parameters"] == {}


def test_an_extension_keeps_what_earlier_points_have() -> None:
    """The later plan's own labels come first."""
    earlier = {"parameters": {"a": {"unit": "K"}, "b": {"unit": "m"}}}
    later = {"parameters": {"b": {"unit": "km"}}, "metrics": {"m": {"label": "fish"}}}
    assert headings.extended(earlier, later) == {
        "parameters": {"a": {"unit": "K"}, "b": {"unit": "km"}},
        "metrics": {"m": {"label": "fish"}},
    }
