"""Documents: what is generated is current, links lead somewhere, and what is written by hand names what there is."""

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from driverctr.errors import Code
from driverctr.parser import make_parser
from driverctr.settings import SETTINGS
from harness import share, standin
from harness.commands import demo, stories
from harness.docs import PAGES, REPOSITORY, Page
from harness.pages import architecture, blocks, completion

DOCS = REPOSITORY / "docs"
WRITTEN = sorted([REPOSITORY / "README.md", *DOCS.glob("*.md")])
README = (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_what_is_generated_is_current(page: Page) -> None:
    assert (REPOSITORY / page.path).read_text() == page.text(), "run ./dev docs"


def test_no_terminal_changes_what_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert all(page.is_current() for page in PAGES)


def test_every_setting_is_documented() -> None:
    page = (DOCS / "configuration.md").read_text()
    assert not [row.variable for row in SETTINGS if f"| `{row.variable}` |" not in page]


def test_every_code_is_documented_with_its_exit_status() -> None:
    page = (DOCS / "failures.md").read_text()
    assert not [code for code in Code if f"| {code.exit_status} | `{code.value}` |" not in page]


def verbs(parser: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every verb with the flags of its own."""
    flags = [flag for action in parser._actions for flag in action.option_strings if flag not in ("-h", "--help")]
    yield words, flags
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, verb in action.choices.items():
                yield from verbs(verb, (*words, name))


def test_the_manual_and_the_completions_have_every_verb_and_flag() -> None:
    manual = (DOCS / "nvidia-driver.8").read_text().replace("\\-", "-")
    texts = [manual, *((REPOSITORY / page.path).read_text() for page in PAGES if page.path.startswith("completions/"))]
    named = {word for words, flags in verbs(make_parser()) for word in (*words, *flags)}
    for text in texts:
        # fish has a flag's dashes apart.
        assert not [word for word in named if not re.search(rf"(?<![\w]){word.lstrip('-')}(?![\w])", text)]
    assert all(f"nvidia-driver {' '.join(words)}".strip() in manual for words, _ in verbs(make_parser()))


def test_readme_names_every_verb() -> None:
    table = re.findall(r"^\| `(.*?) \|", README, re.MULTILINE)
    told = {word for row in table for word in re.findall(r"[a-z_]+", row)}
    assert not {word for words, _ in verbs(make_parser()) for word in words} - told


@pytest.mark.allow_process("bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nvidia-driver", "sta"), {"status"}),
        (("driverctr", "store", "ver"), {"verify"}),
        (("driverctr", "plan", "--js"), {"--json"}),
    ],
)
def test_bash_completes_under_both_names(words: tuple[str, ...], expected: set[str]) -> None:
    script = (
        'source "$1"; shift; spec=($(complete -p "$1")); function=${spec[-2]}; '
        'COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); "$function" "$1" "${@: -1}" "${@: -2:1}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    file = REPOSITORY / "completions/nvidia-driver.bash"
    done = subprocess.run(["bash", "-c", script, "bash", file, *words], capture_output=True, text=True, check=False)
    assert {line.strip() for line in done.stdout.splitlines()} == expected, done.stderr


def test_zsh_and_fish_know_both_names() -> None:
    assert completion.zsh().startswith(f"#compdef nvidia-driver {completion.OTHER_NAME}\n")
    assert f"complete -c {completion.OTHER_NAME} -w nvidia-driver" in completion.fish()


def test_images_get_them_where_they_are_looked_for(tmp_path: Path) -> None:
    share.lay_out(tmp_path)
    for place in (*share.FILES.values(), *share.LINKS):
        assert (tmp_path / place).resolve().is_file() and (tmp_path / place).read_text()
    assert {page.path for page in PAGES if not page.path.endswith(".md")} == set(share.FILES)


def test_every_room_has_a_place_in_the_picture() -> None:
    picture = architecture.picture(architecture.rooms())
    assert all(re.search(rf"\b{module}\b", picture) for room in architecture.rooms() for module in room.modules)
    widths = {len(line) for line in picture.splitlines() if line[:1] in "┌│├└"}
    assert len(widths) == 1


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if target.startswith(("http://", "https://")):
            continue
        if not path.exists() or (anchor and anchor not in anchors(path.read_text())):
            broken.append(target)
    assert not broken


def test_readme_leads_to_every_page() -> None:
    assert not [page.name for page in DOCS.iterdir() if f"(docs/{page.name})" not in README]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_codes_that_are_named_exist(page: Path) -> None:
    """A code in a table of stories, `exit status` and the like."""
    named = re.findall(r"code=([a-z-]+)", page.read_text())
    assert set(named) <= {code.value for code in Code}


def test_stories_are_recorded() -> None:
    assert not [name for page in stories.PAGES for name in blocks.unfilled(page.read_text())]
    assert not blocks.unfilled(README, [demo.BLOCK])


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_no_output_is_missing(page: Path) -> None:
    text = page.read_text()
    assert "@@" not in text and not re.search(r"^```[a-z]*\n\s*```$", text, re.MULTILINE)


def test_every_story_has_a_case_that_tells_it() -> None:
    scripts = [(standin.GUEST / f"scenario_{name}.sh").read_text() for name, _ in stories.SCENARIOS]
    told = {name for script in scripts for name in re.findall(r"^ *story (\S+)$", script, re.MULTILINE)}
    assert told == {name for page in stories.PAGES for name in blocks.names(page.read_text())}
    assert all(any(re.search(cases, title) for title in stories.titles(name)) for name, cases in stories.SCENARIOS)


def test_what_a_guest_tells_becomes_a_block() -> None:
    output = "noise\n@@@ in-use\n$ one\nsaid " + "word " * 40 + "\n@@@\nok: x\n@@@ other\n$ two\n\n@@@\n"
    told = stories.told(output)
    assert list(told) == ["in-use", "other"] and told["other"] == "```text\n$ two\n\n```\n"
    assert all(len(line) <= blocks.WIDTH for line in told["in-use"].splitlines())
    page = "<!-- in-use -->\n<!-- /in-use -->\nby hand\n<!-- kept -->\nx\n<!-- /kept -->\n"
    filled = blocks.fill(page, told)
    assert "$ one" in filled and "by hand" in filled and "\nx\n" in filled and blocks.fill(filled, told) == filled
    assert blocks.unfilled(page, ["absent"]) == ["in-use", "absent"]


def test_the_demo_is_recorded_without_colours_and_preparations() -> None:
    assert demo.told("boot\n\x1b[1m== 1. A host\x1b[0m\n$ x\n").startswith("```text\n== 1. A host\n$ x\n")
