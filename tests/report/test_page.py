from __future__ import annotations

import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from esc_ensemble.__main__ import main
from esc_ensemble.blend.ensemble import blend_runs
from esc_ensemble.config import BlendConfig
from esc_ensemble.report import load, write_report
from esc_ensemble.report.commands import commands
from esc_ensemble.report.shell import safe_json
from tests.blend import test_fixed_split as fixed_split
from tests.conftest import Made
from tests.report.blends import blend_real, made_up, write_made_up
from tests.report.conftest import Reported

NASTY = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }} & <b>"]


class Page(HTMLParser):
    """Tags, visible text, and the JSON blocks of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.blocks: dict[str, str] = {}
        self._block: str | None = None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._block = dict(attrs).get("id") or ""

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._block = None

    def handle_data(self, data):
        if self._block is None:
            self.words.append(data)
        elif self._block:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def payload(self):
        return json.loads(self.blocks["payload"])


def test_the_page_says_what_was_chosen_and_why(reported: Reported) -> None:
    page = Page(reported.page)
    blend = json.loads((reported.blend / "blend.json").read_text())
    chosen = next(row for row in blend["scores"] if row["name"] == "chosen")
    assert f"{100 * chosen['metrics']['top1']:.2f} %" in page.text
    for words in (
        "cross-fitted",
        blend["reason"],
        "Folds differ much.",
        "McNemar",
        "esc-ens train-a",
    ):
        assert words in page.text
    assert "spec_cnn_reference" in page.text  # the settings of each run
    assert "cannot show" not in page.text


def test_the_payload_is_what_the_blend_predicted(reported: Reported) -> None:
    payload, evidence = Page(reported.page).payload, load(reported.blend)
    assert len(payload["clips"]) == len(evidence.clip_ids)
    for place in (0, 7):
        clip_id, fold, label, top, votes, of_true = payload["clips"][place]
        assert (clip_id, fold, label) == (evidence.clip_ids[place], evidence.folds[place], evidence.labels[place])
        assert top[0][0] == evidence.predicted[place]
        assert top[0][1] == pytest.approx(evidence.probabilities[place].max(), abs=1e-4)
        assert votes == evidence.member_probabilities[:, place].argmax(axis=1).tolist()
        assert of_true == pytest.approx(evidence.probabilities[place, label], abs=1e-4)
    assert len(payload["media"]) == reported.n_clips == 12


def test_every_chart_has_its_figure(reported: Reported) -> None:
    page = Page(reported.page)
    named = {attrs[key] for _, attrs in page.tags for key in ("data-chart", "data-show") if key in attrs}
    assert {f"chart-{name}" for name in named} <= set(page.blocks)
    for name in named:
        assert json.loads(page.blocks[f"chart-{name}"])["layout"]["height"] > 0
    assert {"embedding-all", "embedding-1", "embedding-2", "curves-1", "calibration-1", "per_class-recall"} <= named


def test_the_page_asks_for_nothing(reported: Reported) -> None:
    for tag, attrs in Page(reported.page).tags:
        for key in ("src", "href", "action", "srcset", "poster"):
            value = attrs.get(key)
            assert value is None or value.startswith(("#", "data:")), f"<{tag} {key}={value}>"
    policy = next(attrs for tag, attrs in Page(reported.page).tags if attrs.get("http-equiv"))["content"]
    assert policy and policy.startswith("default-src 'none'") and "http" not in policy


def test_names_with_markup_stay_names(tmp_path: Path) -> None:
    made = made_up(n_classes=3, n_clips=30)
    made["class_names"] = NASTY
    clip_ids = [f"{NASTY[n % 3]}-{n}.wav" for n in range(30)]
    members = {NASTY[0]: "gone", NASTY[1]: "gone-too"}
    folder = write_made_up(
        tmp_path / "mix",
        **made,
        clip_ids=clip_ids,
        members=members,
        reason=NASTY[0],
        warnings=[NASTY[1]],
        name=NASTY[2],
        method=NASTY[0],
    )
    page = Page(write_report(load(folder)).path)
    plain = Page(write_report(load(write_made_up(tmp_path / "plain", **made_up(n_classes=3, n_clips=30)))).path)
    assert sorted(tag for tag, _ in page.tags if tag in ("script", "img", "b")) == sorted(
        tag for tag, _ in plain.tags if tag in ("script", "img", "b")
    )
    assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
    assert page.payload["classes"] == NASTY
    assert "{{ 7 * 7 }} & <b>" in page.text and "49" not in page.payload["classes"][2]


@pytest.mark.parametrize("text", ["</script>", "<!--", "a & b", "line\u2028end", '"\\"'])
def test_safe_json_parses_to_the_same(text: str) -> None:
    safe = safe_json(json.dumps({text: text}, ensure_ascii=False))
    assert json.loads(safe) == {text: text}
    assert not set("<>&\u2028") & set(safe)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ({"n_members": 1}, "The run folder of run 0 is gone"),
        ({"n_members": 2, "n_folds": 1}, "There is one fold"),
        ({"n_classes": 2, "n_clips": 8, "n_folds": 2}, "No member has its models here"),
        ({"n_classes": 200, "n_clips": 600}, "No clip can be heard here"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, shape: dict[str, int], sentence: str) -> None:
    written = write_report(load(write_made_up(tmp_path / "mix", **made_up(**shape))))
    page = Page(written.path)
    assert sentence in page.text
    assert "No history.csv is left of this run" in page.text
    assert "no config.yaml" in page.text
    assert written.missing and written.n_clips == 0
    assert written.n_bytes < 8e6


def test_unlabelled_clips_are_counted_apart(tmp_path: Path) -> None:
    made = made_up()
    made["labels"][[3, 4]] = -1
    page = Page(write_report(load(write_made_up(tmp_path / "mix", **made))).path)
    assert "2 clips without a label: counted in no score." in page.text
    assert page.payload["clips"][3][2] == -1 and page.payload["clips"][3][5] is None
    assert not {3, 4} & {place for places in page.payload["lists"].values() for place in places}


def test_parts_that_blend_json_lacks_are_done_without(tmp_path: Path) -> None:
    folder = write_made_up(tmp_path / "mix", **made_up())
    content = json.loads((folder / "blend.json").read_text())
    for key in ("comparisons", "contributions", "error_correlation", "front", "fold_weights", "warnings"):
        del content[key]
    for row in content["scores"]:
        for key in ("uncalibrated", "over_folds", "top1_interval", "by_fold"):
            del row[key]
    for entry in content["members"]:
        for key in ("cost", "temperature_from", "stored_shifts", "config_hash"):
            del entry[key]
    (folder / "blend.json").write_text(json.dumps(content))
    assert "blend.json tells no comparisons." in Page(write_report(load(folder)).path).text


def test_audio_that_is_gone_is_said_and_the_rest_stays(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "one"
    shutil.copytree(made.runs[0], run)
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"dataset_path": "/nowhere/at/all"}))
    page = Page(write_report(load(run)).path)
    assert "The audio is no longer at /nowhere/at/all. Say where it is with --data DIR" in page.text
    assert "The clips cannot be heard, so there are no embeddings" in page.text


def test_a_damaged_model_is_said_and_the_rest_stays(made: Made, tmp_path: Path) -> None:
    run = tmp_path / "one"
    shutil.copytree(made.runs[0], run)
    (run / "fold-2" / "model.safetensors").write_bytes(b"cut short")
    written = write_report(load(run), n_clips=100)
    assert "Fold 2:" in Page(written.path).text and "model.safetensors" in Page(written.path).text
    assert written.n_clips > 0


def test_the_command_writes_a_runs_page(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "page.html"
    assert main(["report", str(made.runs[0]), "--out", str(out), "--no-audio", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["path"] == str(out) and said["n_bytes"] == out.stat().st_size and said["n_clips"] == 0
    assert said["missing"] == ["The report was made with --no-audio."]
    assert not list(out.parent.glob(".*"))


def test_the_command_finds_blends_before_runs_and_tells_people(
    made: Made, tmp_path: Path, synthetic_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blend_real(tmp_path / "submissions" / "mix", made.runs)
    folders = ["--submissions", str(tmp_path / "submissions"), "--runs", str(made.root / "runs")]
    assert main(["report", "mix", *folders, "--clips", "2", "--data", str(synthetic_dir)]) == 0
    assert "2 clips to hear" in capsys.readouterr().out
    assert (tmp_path / "submissions" / "mix" / "report.html").stat().st_size > 1e6


def test_a_large_page_is_told(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("esc_ensemble.report.shell.LARGE_BYTES", 1_000_000)
    write_report(load(made.runs[0]), tmp_path / "page.html", n_clips=1)
    assert "fewer clips make it smaller (--clips)" in capsys.readouterr().err


def test_a_wrong_name_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "no-such", "--runs", str(tmp_path)]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_probabilities_beyond_float32_are_no_trouble(tmp_path: Path) -> None:
    made = made_up()
    made["member_probabilities"] = np.eye(4, dtype=np.float32)[made["labels"]][None].repeat(2, axis=0)
    assert write_report(load(write_made_up(tmp_path / "mix", **made))).n_bytes > 0


def test_commands_make_the_blend_again(tmp_path: Path) -> None:
    config = BlendConfig(
        method="lbfgs", combiner="rank", tta=True, max_ms=20.0, shifts=(-0.1, 0.0), member_shifts={"run 1": (0.0, 0.1)}
    )
    settings = config.model_dump(mode="json")
    command = commands(load(write_made_up(tmp_path / "mix", **made_up(), settings=settings)))[-2]
    words = shlex.split(command)
    assert words[:2] == ["esc-ens", "blend"] and words[-2:] == ["--out", "mix"]
    for flag in ("--tta", "--shifts=-0.1", "--shifts=0.0", "--member-shifts.run 1=0.0,0.1"):
        assert flag in words
    assert " --method lbfgs" in command and " --combiner rank" in command and " --max-ms 20.0" in command
    assert "--trials" not in words and "--seed" not in words  # as by default
    plain = commands(load(write_made_up(tmp_path / "plain", **made_up())))[-2]
    assert not [word for word in shlex.split(plain) if word.startswith("--") and word != "--out"]


def test_a_page_of_one_fixed_split_says_what_was_fitted_where(tmp_path: Path) -> None:
    runs = [fixed_split.write(tmp_path / "runs" / name) for name in "ab"]
    blend_runs(runs, fixed_split.CONFIG, tmp_path / "submissions" / "one")
    for folder, title in (
        (tmp_path / "submissions" / "one", "Chosen weights, fitted on selection, scored on test"),
        (runs[0], "Calibrated on selection, scored on test"),
    ):
        evidence = load(folder)
        page = write_report(evidence, tmp_path / "page.html").path.read_text(encoding="utf-8")
        scores = page[page.index('<section id="scores">') : page.index('<section id="members">')]
        assert (
            title in scores and "selection (optimistic)" in scores and "Selection</i> scores are optimistic" in scores
        )
        assert "<b>top-1 on the test fold</b>" in page and "on the selection split" in scores
        for untrue in ("weights, cross-fitted", "Cross-fitted", "in-sample (too good)", "selection split are 1"):
            assert untrue not in scores and untrue not in page[: page.index('<section id="scores">')]
        selection = evidence.chosen["selection"]
        assert f"<td>{100 * selection['selection_top1']:.2f}</td>" in scores
        assert f"<td>{selection['selection_log_loss']:.3f}</td>" in scores


def test_blends_without_selection_scores_have_no_such_columns(reported: Reported) -> None:
    page = reported.page.read_text(encoding="utf-8")
    assert "selection (optimistic)" not in page and "top-1, cross-fitted" in page
