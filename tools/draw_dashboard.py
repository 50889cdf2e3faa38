"""Draws the main panels of deploy/grafana's dashboard as a PNG without Grafana, from a Prometheus server.

usage: python -m tools.draw_dashboard PROMETHEUS_URL LAST_MINUTES OUT.png
"""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

DASHBOARD: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "ai-enrichment-light.json"
# The panels by their titles, and the height of each row in inches. At 100 pixels an inch, 9 points are 12.5 pixels.
ROWS: Final = {
    ("Scrape", "Models", "Errors (5xx)", "p95, slowest route"): 1.1,
    ("Requests by route", "Latency p95 by route"): 2.8,
    ("Model states", "Runner memory"): 2.6,
}
WIDTH: Final = 9  # inches
DPI: Final = 200  # twice the pixels of a README's width, for sharp screens
TEXT, TITLE, VALUE = 9, 10, 18  # points
RATE_INTERVAL: Final = "1m"  # Grafana's value of $__rate_interval for a scrape interval of 15 s
STEPS: Final = 240  # intervals between the points of a line
COLOURS: Final = {"green": "#37872d", "yellow": "#f2cc0c", "orange": "#e0752d", "red": "#e02f44", "text": "#24292e"}
PALETTE: Final = ("#1f78c1", "#e0752d", "#629e51", "#ba43a9", "#967302", "#0a9ab0", "#705da0", "#bf1b00", "#447ebc")
UNITS: Final = {"reqps": (1, " req/s"), "percentunit": (100, " %"), "decgbytes": (1, " GB"), "s": (1, " s")}

Tree = Mapping[str, Any]
Floats = NDArray[np.float64]
Line = tuple[str, Floats]


def substituted(text: str, variables: Mapping[str, str]) -> str:
    """Replace Grafana's variables in a query, or the labels in a legend."""
    return re.sub(r"\$(\w+)|{{(\w+)}}", lambda found: variables[found[1] or found[2]], text)


def ask(client: httpx.Client, kind: str, **parameters: str | float) -> list[dict[str, Any]]:
    """Prometheus' result of a `query` or `query_range`."""
    answer = client.get(f"/api/v1/{kind}", params=parameters).raise_for_status().json()
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def lines(client: httpx.Client, panel: Tree, variables: Mapping[str, str], times: Floats) -> Iterator[Line]:
    """The legend and the values of each line of a panel. An instant query has only the last value."""
    span = {"start": times[0], "end": times[-1], "step": times[1] - times[0]}
    for target in panel["targets"]:
        kind, when = ("query", {"time": times[-1]}) if target["instant"] else ("query_range", span)
        for each in ask(client, kind, query=substituted(target["expr"], variables), **when):
            values = np.full(times.shape, np.nan)
            for moment, value in each.get("values") or [each["value"]]:
                values[np.abs(times - moment).argmin()] = float(value)
            yield substituted(target["legendFormat"], each["metric"]), values


def field(panel: Tree, name: str) -> dict[str, Any]:
    """The options of the line of that name: the panel's defaults with the matching overrides."""
    found = {"custom": {}, **panel["fieldConfig"]["defaults"]}
    found.setdefault("decimals", 0 if found["unit"] == "none" else 2)
    for override in panel["fieldConfig"]["overrides"]:
        if re.search(override["matcher"]["options"].strip("/"), name):
            found |= {each["id"]: each["value"] for each in override["properties"]}
    return found


def shown(value: float, of: Tree) -> tuple[str, str]:
    """A value's text with unit and its colour, by the panel's mappings and thresholds."""
    steps = of.get("thresholds", {}).get("steps", [])
    colour = ["text", *(step["color"] for step in steps if step["value"] is None or value >= step["value"])][-1]
    factor, unit = UNITS.get(of["unit"], (1, ""))
    text = f"{value * factor:.{of['decimals']}f}{unit}"
    if unit in (" s", " GB") and 0 < value < 1:
        text = f"{value * 1000:.0f} {'ms' if unit == ' s' else 'MB'}"
    for mapping in of.get("mappings", []):
        options = {"nan": mapping["options"].get("result"), **mapping["options"]}
        if found := options.get(f"{value:g}"):
            text, colour = found["text"], found.get("color", colour).removeprefix("dark-")
    return text, COLOURS.get(colour, colour)


def draw_stat(figure: SubFigure, panel: Tree, drawn: Sequence[Line]) -> None:
    for place, (name, values) in enumerate(drawn, 1):
        text, colour = shown(values[-1], field(panel, name))
        figure.text((place - 0.5) / len(drawn), 0.45, text, size=VALUE, weight="bold", ha="center", color=colour)
        if panel["options"]["textMode"] == "value_and_name":
            figure.text((place - 0.5) / len(drawn), 0.36, name, size=TEXT, ha="center", va="top")


def draw_states(axes: Axes, panel: Tree, drawn: Sequence[Line], times: Floats) -> list[Artist]:
    """Draw a coloured bar for each line. Returns the legend's entries."""
    keys: dict[str, Artist] = {}
    for row, (name, values) in enumerate(drawn):
        for begin, end in pairwise([0, *np.flatnonzero(np.diff(np.nan_to_num(values))) + 1, len(values)]):
            text, colour = shown(values[begin], field(panel, name))
            if not np.isnan(values[begin]):
                axes.broken_barh(
                    [(times[begin], (end - begin) * (times[1] - times[0]))], (row - 0.4, 0.8), color=colour
                )
                keys[text] = Patch(color=colour, label=text)
    axes.set_yticks(range(len(drawn)), [name for name, _ in drawn])
    axes.invert_yaxis()
    return list(keys.values())


def draw_graph(axes: Axes, panel: Tree, drawn: Sequence[Line], times: Floats) -> list[Artist]:
    """Draw a curve for each line. Returns the legend's entries."""
    keys: list[Artist] = []
    names = sorted(name for name, _ in drawn)
    for name, values in sorted(drawn, key=lambda line: -np.nanmax(line[1])):
        of, known = field(panel, name), values[~np.isnan(values)]
        colour = PALETTE[names.index(name) % len(PALETTE)]  # by name: a route has the same colour in all panels
        keys += axes.plot(times, values, color=colour, linewidth=1.5, label=f"{name}  {shown(known[-1], of)[0]}")
    of = field(panel, "")
    axes.set_yscale(of["custom"].get("scaleDistribution", {}).get("type", "linear"))
    axes.yaxis.set_major_formatter(lambda value, _: shown(value, of)[0])
    axes.grid(color="#eceeef")
    if "thresholdsStyle" in of["custom"]:
        axes.axhline(of["thresholds"]["steps"][-1]["value"], color=COLOURS["red"], linestyle=":", linewidth=1)
    if "min" in of:
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="y", nbins=6, integer=of["decimals"] == 0)
    return keys


def draw(figure: SubFigure, panel: Tree, drawn: Sequence[Line], times: Floats) -> None:
    """Draw one panel with its title."""
    width, height = figure.bbox.width / DPI, figure.bbox.height / DPI
    figure.text(0.12 / width, 1 - 0.28 / height, panel["title"], size=TITLE, weight="bold")
    if panel["type"] == "stat":
        draw_stat(figure, panel, drawn)
        return
    drawn = [line for line in drawn if np.nansum(line[1]) > 0]  # not the routes that nobody asked
    states = panel["type"] == "state-timeline"
    columns = 2 if max(len(name) for name, _ in drawn) < 19 else 1
    legend = 1 if states else -(-len(drawn) // columns)  # its lines
    left, bottom = (1.3 if states else 0.85) / width, (0.45 + 0.19 * legend) / height
    axes = figure.add_axes((left, bottom, 1 - 0.15 / width - left, 1 - 0.45 / height - bottom))
    keys = (draw_states if states else draw_graph)(axes, panel, drawn, times)
    axes.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0.1 / width, 0.08 / height), borderaxespad=0, labelspacing=0.3,
        bbox_transform=figure.transSubfigure, ncols=-(-len(keys) // legend),
        fontsize=TEXT, frameon=False, handlelength=1,
    )  # fmt: skip
    apart = 120 * (1 + (times[-1] - times[0]) // 1200)
    marks = np.arange(times[0] // apart + 1, times[-1] / apart) * apart
    axes.set_xticks(marks, [time.strftime("%H:%M", time.localtime(mark)) for mark in marks])
    axes.set_xlim(times[0], times[-1])
    axes.tick_params(labelsize=TEXT)
    axes.spines[["top", "right"]].set_visible(False)


def main(url: str, minutes: str, out: str) -> None:
    """Query the Prometheus server at `url`, and write the PNG."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = {panel["title"]: panel for panel in dashboard["panels"] if panel["type"] != "row"}
    times = time.time() - float(minutes) * 60 * np.linspace(1, 0, STEPS + 1)
    job = next(each["current"]["value"] for each in dashboard["templating"]["list"] if each["name"] == "job")
    whole = Figure((WIDTH, sum(ROWS.values())), dpi=DPI)
    rows = whole.subfigures(len(ROWS), squeeze=False, height_ratios=list(ROWS.values()), hspace=0).flat
    with httpx.Client(base_url=url, timeout=30) as client:
        (target,) = ask(client, "query", query=f'up{{job="{job}"}}')
        variables = {"job": job, "instance": target["metric"]["instance"], "__rate_interval": RATE_INTERVAL}
        for row, titles in zip(rows, ROWS, strict=True):
            stats = all(panels[title]["type"] == "stat" for title in titles)
            ratios = [max(len(panels[title]["targets"]), 1.5) if stats else 1 for title in titles]
            figures = row.subfigures(1, len(titles), squeeze=False, width_ratios=ratios, wspace=0).flat
            for figure, title in zip(figures, titles, strict=True):
                figure.set(facecolor="white", edgecolor="#f4f5f5", linewidth=5)
                draw(figure, panels[title], list(lines(client, panels[title], variables, times)), times)
    picture = io.BytesIO()
    whole.savefig(picture)
    Image.open(picture).convert("RGB").quantize(256).save(out, optimize=True)  # fewer colours make a smaller file


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
