"""The documents say what the code does: keys, defaults, options, codes, statuses, links and figures."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic.fields import FieldInfo

from equipoise import errors
from equipoise.cli.main import app
from equipoise.config import RunConfig, Section
from equipoise.config.cost import CostConfig
from equipoise.costs.capacity import flat_capacity
from equipoise.costs.lifecycle import price_candidate
from equipoise.costs.price_book import load_prices
from equipoise.costs.serving_plan import plan_serving
from equipoise.runs import CostTerms

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("benchmarks/*.md")]
)
NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]


def read(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def table_rows(text: str) -> list[list[str]]:
    """Cells of every table row, header and rule included."""
    return [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


# Run config


def config_keys(kind: type[Section] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from config_keys(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def documented_keys() -> dict[str, list[str]]:
    rows = [row for row in table_rows(read("docs/run-config.md")) if row[0].startswith("`")]
    assert len({row[0] for row in rows}) == len(rows), "a key has two rows"
    return {row[0].strip("`"): row[1:] for row in rows}


def test_the_run_config_page_has_every_key_and_no_other() -> None:
    known, documented = dict(config_keys()), documented_keys()
    missing = "\n".join(
        f"| `{key}` | {default_cell(known[key])} | … |" for key in known.keys() - documented.keys()
    )
    assert not missing, f"add to docs/run-config.md:\n{missing}"
    assert documented.keys() == known.keys()


@pytest.mark.parametrize(("key", "field"), [pytest.param(k, f, id=k) for k, f in config_keys()])
def test_the_run_config_page_states_the_default_and_a_meaning(key: str, field: FieldInfo) -> None:
    default, meaning = documented_keys()[key]
    assert default == default_cell(field)
    assert len(meaning) > 10


def default_cell(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    plain = list(value) if isinstance(value, tuple) else value
    written = yaml.safe_dump(plain, default_flow_style=True, width=10_000)
    return f"`{written.removesuffix(chr(10)).removesuffix('...').strip()}`"


# Commands


def command_options() -> dict[str, set[str]]:
    """Options of each command, `""` being `equipoise` itself."""
    group: Any = typer.main.get_command(app)
    commands = {"": group, **group.commands}

    def options(command: Any) -> set[str]:
        own = {option for parameter in command.params for option in parameter.opts}
        # A group's own subcommands count as its own; `equipoise` itself has none here.
        nested = command.commands.values() if command is not group and hasattr(command, "commands") else ()
        return {"--help"} | own.union(*map(options, nested))

    return {name: options(command) for name, command in commands.items()}


def without_other_tools(text: str) -> str:
    """A page without the command lines of helm, kubectl and docker, in which `equipoise` is only a name."""
    text = re.sub(r"^ +(?:helm|kubectl|docker) .*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`(?:helm|kubectl|docker) [^`]*`", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_every_command_line_in_the_documents_exists(name: str) -> None:
    known = command_options()
    for command, rest in re.findall(
        r"(?<![\w/])equipoise ([a-z-]+)([^`\n#|]*)", without_other_tools(read(name))
    ):
        owner, words = ("", command + rest) if command.startswith("-") else (command, rest)
        assert owner in known, f"{name}: no command {owner!r}"
        options = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", words))
        assert options <= known[owner], f"{name}: equipoise {owner} has no {options - known[owner]}"


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("README", "docs"))])
def test_every_option_named_by_itself_belongs_to_a_command(name: str) -> None:
    every = set().union(*command_options().values())
    assert set(re.findall(r"`(--[a-z-]+)[`= ]", read(name))) <= every


def test_the_readme_lists_every_exit_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    statuses = {kind.exit_status for kind in kinds if issubclass(kind, errors.EquipoiseError)}
    listed = {int(row[0]) for row in table_rows(read("README.md")) if row[0].isdigit()}
    assert listed == statuses | {0}


# Serving


def error_codes() -> set[str]:
    """Codes in `RequestError(status, code, …)` and `bad_request(message, code)` of the serving package."""
    found = {"invalid_request"}
    for file in (REPOSITORY / "serving" / "equipoise_serving").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
                code = node.args[2] if node.func.id == "_refuse" and len(node.args) > 2 else node.args[1]
                named = node.func.id in ("RequestError", "bad_request") or code is not node.args[1]
                if named and isinstance(code, ast.Constant):
                    found.add(str(code.value))
    return found


def test_the_serving_page_lists_every_error_code_and_no_other() -> None:
    rows = [row for row in table_rows(read("docs/serving.md")) if row[0] in map(str, range(400, 600))]
    listed = {code for row in rows for code in re.findall(r"`(\w+)`", row[1])}
    assert listed == error_codes()
    assert len(listed) > 10


# Links


def anchors(text: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_every_link_within_the_repository_leads_somewhere(name: str) -> None:
    page = REPOSITORY / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{name}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{name}: {target}"


# Cost model


def example() -> tuple[dict[str, CostTerms], dict[str, dict[str, str]]]:
    """The worked example: recomputed terms, and the results that the page prints, by candidate."""
    text = read("docs/cost-model.md").partition("## A worked example")[2].partition("\n## ")[0]
    inputs: dict[str, Any] = {}
    for block in re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL):
        inputs |= yaml.safe_load(block)
    cost = CostConfig.model_validate(inputs.pop("cost"))
    book = load_prices(cost)
    terms = {name: price_candidate(cost=cost, book=book, **measured) for name, measured in inputs.items()}
    _, *tables = text.split("| term | calculation | result |")
    printed = {
        name: {row[0].strip("`"): row[2] for row in table_rows(table) if row[0].startswith("`")}
        for name, table in zip(terms, tables, strict=True)
    }
    return terms, printed


def as_printed(value: float, printed: str) -> str:
    """A value in the form and with the decimals of a printed one."""
    decimals = len(printed.partition(".")[2])
    return f"{'$' if printed.startswith('$') else ''}{value:,.{decimals}f}"


def test_the_worked_example_is_what_the_code_computes() -> None:
    terms, printed = example()
    assert set(terms) == {"choice", "teacher"}
    for name, rows in printed.items():
        assert {term: as_printed(getattr(terms[name], term), text) for term, text in rows.items()} == rows
    traffic = {"rps", "horizon_months", "profile", "p99_ms", "mean_replicas"}
    every = {"total_usd"} | CostTerms.model_fields.keys() - traffic
    assert printed["choice"].keys() == every


CALCULATION = re.compile(r"(?<![\d.])\(?\d[\d,.]*(?: [×/+−] \(?\d[\d,.]*\)?)+")
"""Numbers with signs between them, as a person would type them into a calculator."""


def calculate(text: str) -> float:
    """What a pocket calculator shows for a calculation as it is printed."""
    plain = text.replace(",", "").replace("×", "*").replace("−", "-")
    assert re.fullmatch(r"[\d.+*/() -]+", plain), plain
    return float(eval(plain))  # noqa: S307 - digits and signs alone


def test_a_pocket_calculator_shows_what_the_worked_example_prints() -> None:
    text = read("docs/cost-model.md").partition("## A worked example")[2].partition("\n## ")[0]
    checked = 0
    for row in (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")):
        term, calculation, result = (cell.strip() for cell in row)
        found = CALCULATION.search(calculation)
        if found is None:
            assert calculation in ("the six terms", "its six terms", "not needed"), calculation
            continue
        value, printed = calculate(found[0]), float(result.strip("$").replace(",", ""))
        if "rounded up" in calculation:
            assert math.ceil(value) == printed, term
        else:
            # Factors are printed rounded: to seven digits a hundred-thousandth is their share.
            assert value == pytest.approx(printed, rel=2e-4), term
        checked += 1
    assert checked == 16
    # In running text, and in the table of office hours: a calculation, an equals sign, its result.
    sums = re.findall(rf"({CALCULATION.pattern}) =\s+\**\$?([\d.,]*\d)", " ".join(text.split()))
    for calculation, printed in sums:
        wanted = float(printed.replace(",", ""))
        decimals = len(printed.partition(".")[2])
        assert calculate(calculation) == pytest.approx(wanted, rel=2e-4, abs=0.5 * 10**-decimals), calculation
    assert len(sums) >= 9


def test_the_worked_example_compares_its_two_sides_rightly() -> None:
    terms, _ = example()
    choice, teacher = terms["choice"], terms["teacher"]
    page = read("docs/cost-model.md")
    ratio = choice.serving_usd_per_1k / teacher.serving_usd_per_1k
    assert f"**{ratio:.4f}**, or 1 to {1 / ratio:.1f}" in page
    assert f"**${teacher.total_usd - choice.total_usd:,.2f}**" in page


def test_the_office_hours_of_the_worked_example() -> None:
    text = read("docs/cost-model.md").partition("## A worked example")[2].partition("\n## ")[0]
    values = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0])["cost"]
    cost = CostConfig.model_validate({**values, "profile": "office-hours"})
    plan = plan_serving(cost, load_prices(cost), flat_capacity(520 * cost.target_utilization))
    assert plan.peak_replicas == 16
    assert f"= {plan.mean_replicas:.4f} replicas" in text
    assert f"**${plan.usd_month:.2f}** a month" in text


def test_the_prices_that_the_page_quotes_are_those_of_the_book() -> None:
    cost = CostConfig(node="aws/c7a.xlarge")
    book = load_prices(cost)
    node = book.node(cost.node)
    page = " ".join(read("docs/cost-model.md").split())
    assert (
        f"an `{cost.node}` has {node.vcpus:g} cores and {node.memory_gib:g} GiB "
        f"at ${node.usd_per_hour} an hour; "
        f"storage is ${book.storage_usd_per_gb_month} per GB-month, a label ${book.label.usd_per_label:.2f}, "
        f"an engineer ${book.engineer.usd_per_hour:g} an hour"
    ) in page


def test_the_example_price_book_can_be_laid_over_the_shipped_one(tmp_path: Path) -> None:
    text = read("docs/cost-model.md").partition("## The price book")[2]
    own = tmp_path / "prices.yaml"
    own.write_text(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0], encoding="utf-8")
    book = load_prices(CostConfig(prices=str(own)))
    assert book.node("mine/big-box").source == str(own)
    bought = re.findall(r"= \$([\d.]+) an hour", text)
    assert [f"{book.node('mine/gpu-box').usd_per_hour:.2f}"] == bought
    assert "aws/c7a.xlarge" in book.nodes
