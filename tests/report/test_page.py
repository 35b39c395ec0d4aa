"""The page shows what the run folder holds, and nothing a model wrote becomes markup."""

import html.parser
import json

import pytest

from rstar_jax.report import curves, metrics, report
from rstar_jax.search import storage

from . import run_folder

PICTURES = ["accuracy", "levels", "losses", "seconds"]
VOID = {"meta", "link", "img", "source", "br"}


class Reader(html.parser.HTMLParser):
    """Reads tables as lists of rows of text, the tags, and whether they close in order."""

    def __init__(self, page: str):
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if any(tag in ("th", "td") for tag in self.open):
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = run_folder.make(tmp_path_factory.mktemp("report"))
    report(run)
    return run


@pytest.fixture(scope="module")
def page(run) -> Reader:
    return Reader((run / "report" / "index.html").read_text(encoding="utf-8"))


def test_table_of_rounds_holds_the_metrics(page):
    heads, *rows = page.tables[1]
    parts = ("level", "step", "kind", "phase", "trajectories")
    means = {(m["name"], m["round"]): m["value"] for m in run_folder.metrics() if not any(part in m for part in parts)}
    names = {
        "greedy": "greedy_accuracy",
        "majority@8": "majority_accuracy",
        "best of 8": "best_of_n_accuracy",
        "search": "search_accuracy",
        "majority, equal tokens": "equal_tokens_majority_accuracy",
        "pass@8": "pass_at_8",
        "PPM pairs": "ppm_pair_accuracy",
        "false positives": "false_positive_share",
        "solved": "solved_share",
    }
    assert [row[0] for row in rows] == ["0 (bootstrap)", "1", "2", "control, round 2"]
    for round, row in enumerate(rows[:3]):
        for title, name in names.items():
            value = means.get((name, round))
            expected = "–" if value is None else f"{100 * value:.1f} %"
            assert row[heads.index(title)] == expected, (round, title)
    assert rows[1][heads.index("trajectories")] == f"{means['trajectories', 1]:,}"
    assert rows[2][heads.index("pairs")] == f"{means['preference_pairs', 2]:,}"
    seconds = sum(m["value"] for m in run_folder.metrics() if m["name"] == "phase_seconds" and m["round"] == 2)
    assert rows[2][heads.index("seconds")] == f"{seconds:,.0f}"
    assert rows[3][1] == f"{100 * means['control_greedy_accuracy', 2]:.1f} %"


def test_coverage_by_level_and_round_comes_first(page):
    heads, *rows = page.tables[0]
    solved = {
        (m["round"], m["level"]): m["value"]
        for m in run_folder.metrics()
        if m["name"] == "solved_share" and "level" in m
    }
    assert heads == ["round", *(f"level {level}" for level in run_folder.LEVELS)]
    assert rows == [[str(n), *(f"{100 * solved[n, level]:.1f} %" for level in run_folder.LEVELS)] for n in (1, 2)]


def test_table_of_levels_holds_the_metrics(page):
    heads, *rows = page.tables[3]
    levels = {(m["name"], m["round"], m["level"]): m["value"] for m in run_folder.metrics() if "level" in m}
    assert [row[0] for row in rows] == [str(level) for level in run_folder.LEVELS]
    for row, level in zip(rows, run_folder.LEVELS, strict=True):
        assert row[heads.index("greedy, round 1")] == f"{100 * levels['greedy_accuracy', 1, level]:.1f} %"
        assert row[heads.index("search, round 2")] == f"{100 * levels['search_accuracy', 2, level]:.1f} %"


def test_table_of_trajectories_holds_the_metrics(page):
    assert page.tables[2] == [
        ["trajectories", "1", "2", "4"],
        ["best", "56.2 %", "62.5 %", "75.0 %"],
        ["top majority", "53.1 %", "56.2 %", "62.5 %"],
    ]


def test_headline_says_before_and_after(page):
    assert "12.5 % → 50.0 %" in page.text


def test_what_models_write_is_never_markup(run, page):
    assert "script" not in page.tags
    assert run_folder.HOSTILE in page.text
    assert "<b>bold</b>" in page.text  # config.gin
    assert "3 < 4 apples & buys" in page.text
    assert "<script" not in (run / "report" / "index.html").read_text(encoding="utf-8")


def test_page_needs_no_network_and_finds_its_pictures(run):
    content = (run / "report" / "index.html").read_text(encoding="utf-8")
    assert "http://" not in content and "https://" not in content
    for name in PICTURES:
        for file in (f"{name}.png", f"{name}-dark.png"):
            assert f'"{file}"' in content
            assert (run / "report" / file).read_bytes().startswith(b"\x89PNG")


def test_nothing_temporary_stays(run):
    files = sorted(path.name for path in (run / "report").iterdir())
    assert files == sorted(["index.html", *(f"{name}{theme}.png" for name in PICTURES for theme in ("", "-dark"))])


def test_same_folder_same_bytes(run):
    before = {path.name: path.read_bytes() for path in (run / "report").iterdir()}
    report(run)
    assert {path.name: path.read_bytes() for path in (run / "report").iterdir()} == before


def test_each_round_shows_a_solved_tree_with_its_chosen_path_open(page):
    assert page.text.count("the correct trajectory with the highest mean Q") == 2
    assert page.text.count("✓ answer 7\n") == 2
    assert "answer 5" in page.text and "NameError: three" in page.text


@pytest.fixture
def quick(monkeypatch):
    """One small picture of each kind."""
    monkeypatch.setattr(curves, "THEMES", (curves.LIGHT,))
    monkeypatch.setattr(curves, "_DPI", 40)


@pytest.mark.parametrize("count", [0, 1, 30, 60])
def test_partial_runs_render(tmp_path, quick, count):
    run = run_folder.make(tmp_path, lines=run_folder.metrics()[:count], rounds=1)
    text = report(run).read_text(encoding="utf-8")
    assert Reader(text).text and ("No accuracy has been measured" in text) == (count <= 1)


@pytest.mark.parametrize("name", sorted({line["name"] for line in run_folder.metrics()}))
def test_any_name_may_stand_alone(tmp_path, quick, name):
    lines = [line for line in run_folder.metrics() if line["name"] == name]
    text = report(run_folder.make(tmp_path, lines=lines, rounds=1)).read_text(encoding="utf-8")
    assert Reader(text).text
    if name.endswith("_accuracy") and "pair" not in name and "whole" not in name and "batch" not in name:
        assert f"{lines[0]['value']:.3f}" in text or f"{100 * lines[0]['value']:.1f}" in text


def test_empty_folder_renders(tmp_path):
    assert "No accuracy has been measured" in report(tmp_path).read_text(encoding="utf-8")


def test_the_last_measurement_counts(tmp_path):
    line = {"round": 0, "name": "greedy_accuracy", "value": 0.1, "split": "heldout"}
    run = run_folder.make(tmp_path, lines=[line, line | {"value": 0.75}], rounds=1)
    text = report(run).read_text(encoding="utf-8")
    assert "75.0 %" in text and "10.0 %" not in text


def test_a_headline_stands_for_all_with_its_error_and_its_tokens(tmp_path):
    every = {"round": 2, "name": "search_accuracy", "value": 0.6, "split": "heldout", "n": 240, "error": 0.03}
    headline = {**every, "value": 0.5, "n": 160, "error": 0.0395, "tokens": 1234.4, "levels": "3, 4"}
    gain = {**headline, "name": "search - equal_tokens_majority", "value": -0.025, "error": 0.02}
    page = Reader(report(run_folder.make(tmp_path, lines=[every, headline, gain], rounds=1)).read_text("utf-8"))
    rounds, gains = page.tables[0], page.tables[1]
    assert "50.0 ± 4.0 %, 1,234 tokens" in rounds[1] and "60.0" not in page.text
    assert gains[1] == ["search - equal tokens majority", "-2.5 ± 2.0 %", "160"]
    assert "Means over levels 3, 4 ± standard errors" in page.text


def test_accuracy_on_training_problems_never_stands_for_held_out(tmp_path):
    line = {"round": 0, "name": "greedy_accuracy", "value": 0.987, "split": "train"}
    assert "98.7" not in report(run_folder.make(tmp_path, lines=[line], rounds=1)).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line, wrong",
    [
        ("[1]", "JSON object"),
        ('{"round": 1, "name": "greedy_accuracy"}', "'value' is missing"),
        ('{"round": "1", "name": "greedy_accuracy", "value": 1}', "'round' must be int"),
        ('{"round": 1, "name": "greedy_accuracy", "value": true}', "'value' must be float"),
        ('{"round": 1, "name": "greedy_accuracy", "value": 0.5, "level": 3}', "'level' must be str"),
    ],
)
def test_malformed_row_is_named(tmp_path, line, wrong):
    good = json.dumps({"round": 0, "name": "greedy_accuracy", "value": 0.5, "split": "heldout"})
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "0_base.json").write_text(f'{{"rows": [{good}, {line}]}}', encoding="utf-8")
    with pytest.raises(ValueError, match=rf"0_base\.json, row 2: .*{wrong}"):
        report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_missing_folder_is_one_clear_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run folder at .*nowhere") as error:
        report(tmp_path / "nowhere")
    assert "\n" not in str(error.value)


def test_trees_of_unfinished_shards_are_not_shown(tmp_path):
    folder = tmp_path / "round_1" / "trees_1"
    path = storage.write_shard(folder, 0, 1, [run_folder.tree()])
    path.with_suffix(".done").unlink()
    assert "Searched trees" not in report(tmp_path).read_text(encoding="utf-8")


def test_pictures_show_standard_errors():
    """A bar from value - error to value + error at each point whose error is known."""
    lines = [
        {"round": round, "name": "greedy_accuracy", "value": value, "split": "heldout", "level": level} | error
        for level in (None, "3")
        for round, value, error in ((0, 0.25, {"error": 0.0625}), (1, 0.5, {}), (2, 0.625, {"error": 0.125}))
    ]
    numbers = metrics.Metrics(metrics.Metric(**line) for line in lines)
    for draw in (curves.draw_accuracy, curves.draw_levels):
        axes = draw(numbers, curves.LIGHT).axes[0]
        (bars,) = axes.containers
        spans = [segment[:, 1].tolist() for segment in bars[2][0].get_segments() if len(segment)]
        assert spans == [[0.1875, 0.3125], [0.5, 0.75]]
        assert axes.get_lines()[0].get_ydata().tolist() == [0.25, 0.5, 0.625]
