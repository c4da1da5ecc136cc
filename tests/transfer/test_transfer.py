"""Runs are exported from one store and imported into another."""

import json
import shutil
import zipfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from regbench import __main__
from regbench import plan as planning
from regbench.commands import exit_code
from regbench.engines import select
from regbench.errors import UserError
from regbench.regularizers import cells
from regbench.report import build
from regbench.report.inputs import gather
from regbench.run import run_plan
from regbench.tracking import schema
from regbench.tracking.store import Store
from regbench.transfer import archive, collect, deliver
from regbench.trial import Recipe, grid
from tests.conftest import TINY
from tests.report.conftest import quick  # noqa: F401

FRESH = range(2, 5)


@pytest.fixture
def recipe(images) -> Recipe:
    return Recipe(images.name, images.fingerprint, 120, 40, TINY, epochs=2, batch_size=40)


@pytest.fixture
def stores(empty_database, tmp_path, monkeypatch):
    """A function that changes to the store of this name, in a folder of its own, and returns its experiment."""

    def change(name: str, experiment: str = "e") -> Store:
        folder = tmp_path / name
        if not folder.exists():
            folder.mkdir()
            shutil.copy(empty_database, folder)
        monkeypatch.chdir(folder)
        return Store(experiment)

    return change


def train(store: Store, sweep, images, rerun: bool = False) -> Store:
    plan = planning.make(sweep, store, rerun)
    run_plan(plan, images, store, select.sequential("cpu"), Console(quiet=True), "a sweep")
    return Store(store.experiment)


def move(store: Store, path: Path, other: Store, **options: str) -> deliver.Imported:
    collect.export(store, path, **options)
    found = archive.Archive(path)
    done = deliver.deliver(other, found, lambda _: None)
    found.close()
    return done


def report(store: Store, folder: Path) -> dict[str, bytes]:
    build.write(gather(store), folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def by_token(store: Store) -> dict[str, dict]:
    """Return token -> what is to be the same in every store, of all runs."""
    found = {}
    for run in store.search(""):
        info, data = run.info, run.data
        tags = {name: value for name, value in data.tags.items() if archive.is_exported(name)}
        for name in (schema.PARENT, schema.KEPT, *collect.LEFT_OUT):
            tags.pop(name, None)
        inputs = [dict(one.dataset) for one in run.inputs.dataset_inputs]
        histories = {name: store.client.get_metric_history(info.run_id, name) for name in data.metrics}
        points = {name: [(repr(m.value), m.timestamp, m.step) for m in found] for name, found in histories.items()}
        found[schema.token(run)] = {
            "info": (info.run_name, info.status, info.start_time, info.end_time), "params": dict(data.params),
            "tags": tags, "inputs": inputs, "metrics": points,
        }  # fmt: skip
    return found


def test_another_store_has_the_same_runs_and_the_same_report(recipe, images, stores, tmp_path, quick):  # noqa: F811
    sweep = grid(recipe, cells(["l1", "l2"], [1e-3, 1e30]), [0, 1], confirm=FRESH, looks=(3,))
    first = train(stores("a"), sweep, images)
    expected, runs, (material,) = report(first, tmp_path / "first"), by_token(first), gather(first)
    assert move(first, tmp_path / "a.zip", second := stores("b")) == (len(runs) - 1, 0, 0)
    second = Store("e")
    assert by_token(second) == runs
    assert report(second, tmp_path / "second") == expected
    # what its figures, which take long to draw, are made of
    (brought,) = gather(second)
    for name in ("histograms", "layers", "epochs"):
        table, other = (getattr(found, name).drop(columns="run_id", errors="ignore") for found in (material, brought))
        assert len(table) and table.equals(other)
    assert material.outputs.keys() == {"none", "l1", "l2"} == brought.outputs.keys()
    for method, (name, w) in material.outputs.items():
        assert brought.outputs[method][0] == name and (brought.outputs[method][1] == w).all()
    assert {"report.md", "report.html", "trials.csv", "layers.csv"} < expected.keys()
    (parent,) = second.search(schema.where(schema.KIND, "sweep"))
    trials = second.search(schema.where(schema.KIND, "trial"))
    assert {run.data.tags[schema.PARENT] for run in trials} == {parent.info.run_id}
    assert "regbench report --experiment e" in parent.data.tags[schema.NOTE]
    # once more changes nothing, nor does an export of what was imported
    assert move(first, tmp_path / "a.zip", second) == (0, len(trials), 0)
    assert move(second, tmp_path / "b.zip", Store("e")) == (0, len(trials), 0)
    assert by_token(Store("e")) == runs
    # there are no networks, which the models would be made of; nothing is to be trained
    assert planning.make(sweep, Store("e"), rerun=False).todo == ()
    assert not list((tmp_path / "b").rglob("model.safetensors"))


def test_the_same_runs_give_the_same_bytes_and_one_sweep_can_be_taken_alone(recipe, images, stores, tmp_path):
    one, two = (grid(recipe, cells([name], [1e-3]), [0]) for name in ("l1", "l2"))
    store = train(train(stores("a"), one, images), two, images)
    for name in ("first.zip", "second.zip"):
        assert collect.export(store, tmp_path / name) == (2, 3, 0, 0)
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()
    assert move(store, tmp_path / "two.zip", stores("b"), sweep=two.id).brought == 2
    found = Store("e").search(schema.where(schema.KIND, "trial"))
    # `none` was trained for the other sweep
    assert sorted(run.info.run_name for run in found) == ["l2 lam=1e-3 seed=0", "none seed=0"]
    assert move(store, tmp_path / "all.zip", Store("e")) == (1, 2, 0)
    assert len(Store("e").search(schema.in_sweep(one.id))) == 2


def test_a_sweep_goes_on_elsewhere_and_comes_back(recipe, images, stores, tmp_path, quick):  # noqa: F811
    """Also its choice, which is not made again, and the status of what was running when it was exported."""
    sweep = grid(recipe, cells(["l1"], [1e-3, 1e30]), [0, 1], confirm=FRESH, looks=(3,))
    whole = report(train(stores("whole"), sweep, images), tmp_path / "whole-report")["comparisons.csv"]
    begun = train(stores("a"), grid(recipe, cells(["l1"], [1e-3, 1e30]), [0, 1]), images)
    (parent,) = begun.search(schema.where(schema.KIND, "sweep"))
    trial = begun.search(schema.where(schema.KIND, "trial"))[-1]
    begun.client.update_run(parent.info.run_id, "RUNNING")
    begun.client.update_run(trial.info.run_id, "RUNNING")
    collect.export(begun, tmp_path / "a.zip")
    assert collect.export(begun, tmp_path / "a.zip") == (1, 5, 1, 0)
    there = stores("b")
    assert deliver.deliver(there, archive.Archive(tmp_path / "a.zip"), lambda _: None) == (5, 0, 0)
    (brought,) = there.search(schema.where(schema.KIND, "sweep"))
    assert brought.info.status == "KILLED"
    assert len(planning.make(sweep, Store("e"), rerun=False).todo) == 1
    gone_on = train(there, sweep, images)
    assert report(gone_on, tmp_path / "b-report")["comparisons.csv"] == whole
    # and back: what is at work here is left alone
    home = stores("a")
    assert move(gone_on, tmp_path / "b.zip", home).known == 5
    assert home.client.get_run(parent.info.run_id).info.status == "RUNNING"
    begun.client.set_terminated(trial.info.run_id)
    begun.client.set_terminated(parent.info.run_id)
    assert report(Store("e"), tmp_path / "a-report")["comparisons.csv"] == whole


def test_a_sweep_that_has_gone_on_is_brought_up_to_date(recipe, images, stores, tmp_path):
    sweep = grid(recipe, cells(["l1"], [1e-3, 1e30]), [0, 1], confirm=FRESH, looks=(3,))
    store = train(stores("a"), sweep, images)
    (parent,) = store.search(schema.where(schema.KIND, "sweep"))
    tags = parent.data.tags
    store.client.delete_tag(parent.info.run_id, schema.CHOICE)
    store.client.update_run(parent.info.run_id, "RUNNING")
    other = stores("b")
    move(store, tmp_path / "early.zip", other)
    store.client.set_tag(parent.info.run_id, schema.CHOICE, tags[schema.CHOICE])
    store.client.set_terminated(parent.info.run_id, "FINISHED", parent.info.end_time + 10_000)
    for name in ("late.zip", "early.zip"):  # an older file changes nothing back
        if name == "late.zip":
            collect.export(store, tmp_path / name)
        deliver.deliver(Store("e"), archive.Archive(tmp_path / name), lambda _: None)
        (found,) = Store("e").search(schema.where(schema.KIND, "sweep"))
        assert found.info.status == "FINISHED" and found.data.tags[schema.CHOICE] == tags[schema.CHOICE]


def test_the_commands(recipe, images, stores, tmp_path):
    train(stores("a"), grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    code, text = call("export", "--out", str(tmp_path / "x.zip"))
    assert code == 0
    assert f"written: {tmp_path / 'x.zip'}, 2 trials of the experiment 'e' (" in text
    assert f"into another store: regbench import {tmp_path / 'x.zip'}" in text
    stores("b")
    assert call("import", str(tmp_path / "x.zip")) == (0, (
        "1 result of another store brought to the tracking store\n"
        "2 results of another store brought to the tracking store\n"
        f"{tmp_path / 'x.zip'}: 2 trials brought into the experiment 'e'\n"
    ))  # fmt: skip
    code, text = call("import", str(tmp_path / "x.zip"), "--experiment=pool")
    assert code == 0 and "2 trials brought into the experiment 'pool'" in text
    code, text = call("import", str(tmp_path / "x.zip"))
    assert code == 0 and "0 trials brought into the experiment 'e', 2 were there" in text
    assert call("import")[0] == 2
    for words, message in (
        (("import", "nowhere.zip"), "nowhere.zip cannot be read (No such file or directory)"),
        (("export", "--experiment=none-such"), "the experiment 'none-such' in sqlite"),
        (("export", "--experiment=e", f"--out={tmp_path}"), "is a folder; give a file"),
        (
            ("export", "--experiment=e", "--sweep=0123456789ab"),
            "holds no trial of the sweep 0123456789ab that has ended",
        ),
        (("export", "--experiment=e", "--out=mlflow.db"), "is there and no export of regbench's"),
        (("export", "--experiment=e", f"--out={tmp_path}/x.zip/y"), "cannot be written (File exists): give a file"),
    ):
        code, text = call(*words)
        assert code == 2 and message in text, words


def call(*words: str) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed."""

    @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
    @click.argument("given", nargs=-1, type=click.UNPROCESSED)
    def main(given: tuple[str, ...]) -> None:
        exit_code.run(__main__.main, list(given))

    found = CliRunner().invoke(main, words)
    return found.exit_code, found.output


@pytest.fixture
def good(recipe, images, stores, tmp_path) -> Path:
    collect.export(train(stores("a"), grid(recipe, cells(["l1"], [1e-3]), [0]), images), tmp_path / "good.zip")
    return tmp_path / "good.zip"


def changed(good: Path, **members: bytes) -> Path:
    """Return an archive like the good one, in which some members have another content."""
    path = good.with_name("changed.zip")
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, members.get(name.replace(".", "_"), old.read(name)))
    return path


def test_what_is_no_export_is_refused_before_anything_is_written(good, stores, tmp_path):
    with zipfile.ZipFile(good) as found:
        lines = found.read("runs.jsonl").decode().splitlines()
        description = json.loads(found.read("regbench.json"))

    def with_first(**fields: object) -> dict[str, bytes]:
        return {"runs_jsonl": "\n".join([json.dumps(json.loads(lines[0]) | fields), *lines[1:]]).encode()}

    tags = json.loads(lines[0])["tags"]
    trial = json.loads(lines[1])

    def with_second(**fields: object) -> dict[str, bytes]:
        return {"runs_jsonl": "\n".join([lines[0], json.dumps(trial | fields), *lines[2:]]).encode()}

    broken = [
        with_second(dataset={"name": "x"}), with_second(params=[1]), with_second(params={"lam": 1}),
        with_second(start=10**30), with_second(name="a\0b"), with_second(result={"a": "b"}),
        {"runs_jsonl": b"[" * 100_000},
        {"runs_jsonl": b"{}"}, {"runs_jsonl": b"\xff"}, {"regbench_json": b"[]"}, with_first(token="../../etc"),
        with_first(run_id="0" * 32), with_first(status="RUNNING"), with_first(more=1), with_first(files="elsewhere"),
        with_first(tags=tags | {"mlflow.note.content": "<script>"}), with_first(tags={}), with_first(metrics=[["a", 1]]),
    ]  # fmt: skip
    for members in broken:
        with pytest.raises(UserError, match="is not a file that `regbench export` wrote, or is damaged"):
            archive.Archive(changed(good, **members))
    newer = json.dumps(description | {"format": 2}).encode()
    with pytest.raises(UserError, match="is of format 2, which this version of regbench does not know: update it"):
        archive.Archive(changed(good, regbench_json=newer))
    for content in (b"", b"not a zip", good.read_bytes()[:-100]):
        (tmp_path / "half.zip").write_bytes(content)
        with pytest.raises(UserError, match="is not a file that `regbench export` wrote"):
            archive.Archive(tmp_path / "half.zip")
    content = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as found:
        entry = next(one for one in found.infolist() if one.filename.endswith("layers.csv"))
    for place in range(entry.header_offset + 30 + len(entry.filename), entry.header_offset + 130, 7):
        (tmp_path / "bits.zip").write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with pytest.raises(UserError, match="or is damaged"):
            archive.Archive(tmp_path / "bits.zip")
    store = stores("b")
    code, text = call("import", str(good), str(tmp_path / "half.zip"))
    assert code == 2 and "half.zip is not a file" in text
    assert not store.search("") and Store("e").experiment_id is None


def test_members_that_are_not_expected_are_left_alone(good, stores, tmp_path):
    with zipfile.ZipFile(good, "a") as found:
        token = next(name for name in found.namelist() if name.endswith("layers.csv")).split("/")[1]
        found.writestr(f"files/{token}/../../../escaped.txt", "x")
        found.writestr(f"files/{token}/model.pkl", "x")
    stores("b")
    assert deliver.deliver(Store("e"), archive.Archive(good), lambda _: None).brought == 2
    names = {path.name for path in tmp_path.rglob("*")}
    assert "layers.csv" in names and not names & {"escaped.txt", "model.pkl"}


def test_a_file_that_is_too_large_is_refused(good, stores, monkeypatch):
    stores("b")
    found = archive.Archive(good)
    monkeypatch.setattr(archive, "LARGEST", 100)
    with pytest.raises(UserError, match=r"or is damaged \(files/.*is larger than 0 MiB"):
        deliver.deliver(Store("e"), found, lambda _: None)


def test_an_import_that_was_cut_off_is_gone_on_with(good, stores, monkeypatch):
    """What is on disk is brought by the next call, and what is there is not brought twice."""
    store, extract, calls = stores("b"), archive.Archive.extract, iter(range(100))

    def cut_off(self, record, folder) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        extract(self, record, folder)

    monkeypatch.setattr(archive.Archive, "extract", cut_off)
    with pytest.raises(KeyboardInterrupt):
        deliver.deliver(store, archive.Archive(good), lambda _: None)
    store.outbox.close()
    told: list[str] = []
    assert sum(deliver.deliver(Store("e"), archive.Archive(good), told.append)) == 2
    found = Store("e").search("")
    assert len(found) == 3 and {run.info.status for run in found} == {"FINISHED"}
    assert told[0] == "1 result of an earlier start brought to the tracking store"


def test_a_run_that_was_half_written_is_completed_from_another_machine(good, stores, monkeypatch, tmp_path):
    found = archive.Archive(good)
    store = stores("b")
    for record in found.records:
        store.client.create_run(store.create(), tags=record.tags | {schema.TOKEN: record.token}, run_name=record.name)
    monkeypatch.setenv("REGBENCH_CACHE", str(tmp_path / "elsewhere"))
    assert deliver.deliver(Store("e"), found, lambda _: None) == (2, 0, 0)
    runs = by_token(Store("e"))
    stores("a")
    for token, run in by_token(Store("e")).items():
        own = runs[token]
        assert own["metrics"] == run["metrics"] and own["params"] == run["params"]
        assert own["info"][1::2] == run["info"][1::2]  # but for the start, which a run has from the beginning
    stores("b")
    assert deliver.deliver(Store("e"), found, lambda _: None) == (0, 2, 0)


def test_what_the_store_refuses_is_counted(good, stores):
    with zipfile.ZipFile(good) as found:
        lines = found.read("runs.jsonl").decode().splitlines()
    trial = json.loads(lines[-1])
    trial["metrics"].append(["not/a:name?", 0.5, 1, 1])
    stores("b")
    code, text = call("import", str(changed(good, runs_jsonl="\n".join([*lines[:-1], json.dumps(trial)]).encode())))
    assert code == 1 and f"the result of {trial['name']} is refused" in text
    assert "set aside in" in text


def test_a_sweep_goes_on_although_its_first_run_was_deleted(recipe, images, stores, tmp_path):
    sweep = grid(recipe, cells(["l1"], [1e-3]), [0, 1])
    store = train(stores("a"), grid(recipe, cells(["l1"], [1e-3]), [0]), images)
    (parent,) = store.search(schema.where(schema.KIND, "sweep"))
    store.client.delete_run(parent.info.run_id)
    assert move(store, tmp_path / "a.zip", stores("b")) == (2, 0, 0)
    there = train(Store("e"), sweep, images)
    assert len(there.search(schema.in_sweep(sweep.id))) == 4


def test_fresh_seeds_that_were_shared_out_are_judged_together(recipe, images, stores, tmp_path):
    """Each list once, after all of its seeds: and so all lists together."""
    shares = [
        grid(recipe, cells(["l1"], [1e-3]), [0, 1], confirm=confirm, looks=(len(confirm),))
        for confirm in (range(2, 4), range(4, 6))
    ]
    for name, sweep in zip("ab", shares, strict=True):
        collect.export(train(stores(name), sweep, images), tmp_path / f"{name}.zip")
    stores("pool")
    for name in "ab":
        deliver.deliver(Store("e"), archive.Archive(tmp_path / f"{name}.zip"), lambda _: None)
    (material,) = gather(Store("e"))
    assert material.analysis.comparisons["l1"].looked == 4
    assert material.analysis.shown["l1"] == tuple(range(2, 6))
