"""The labels file in the service: rules, reload by clock and by signal, refusal as a whole."""

import asyncio
import os
import signal

import httpx
import pytest

from classifier.configuration import SettingsError
from classifier.labels_file import read_labels_file
from classifier.labels_watch import LabelsWatch
from tests import processes

RULE = '[[rules]]\nname = "{name}"\nlabel = "{label}"\npath = "/ruled/*"\n'


class Watched:
    """A watch over one file, and what it told."""

    def __init__(self, path, text):
        self.path = path
        path.write_text(text)
        self.adopted = []
        self.told = []
        self._watch = LabelsWatch(
            str(path), read_labels_file(str(path)), self.adopted.append, self.told.append
        )

    async def __aenter__(self):
        self._task = asyncio.create_task(self._watch.run(0.01))
        await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *exc):
        self._task.cancel()

    async def until(self, number):
        async with asyncio.timeout(10):
            while len(self.told) < number:  # noqa: ASYNC110 - threads have no event of ours
                await asyncio.sleep(0.01)


async def test_a_changed_file_is_adopted_once(tmp_path) -> None:
    text = RULE.format(name="a", label="general")
    async with Watched(tmp_path / "labels.toml", text) as watched:
        assert watched.told == []
        watched.path.write_text(RULE.format(name="b", label="fast-path"))
        await watched.until(1)
        await asyncio.sleep(0.05)

    assert watched.told == ["adopted"]
    assert watched.adopted[0].file.rules[0].name == "b"


@pytest.mark.parametrize("bad", ["not toml", RULE.format(name="b", label="unknown"), None])
async def test_a_bad_file_is_refused_with_one_line_and_the_next_good_one_is_taken(
    tmp_path, caplog, bad
) -> None:
    text = RULE.format(name="a", label="general")
    async with Watched(tmp_path / "labels.toml", text) as watched:
        if bad is None:
            watched.path.unlink()
        else:
            watched.path.write_text(bad)
        await watched.until(1)
        await asyncio.sleep(0.1)
        assert watched.told == ["refused"]
        assert caplog.text.count("the labels in force stay") == 1
        watched.path.write_text(RULE.format(name="c", label="fast-path"))
        await watched.until(2)

    assert watched.adopted[0].file.rules[0].name == "c"


async def test_a_file_that_says_the_same_again_changes_nothing(tmp_path) -> None:
    text = RULE.format(name="a", label="general")
    async with Watched(tmp_path / "labels.toml", text) as watched:
        os.utime(watched.path, (1, 1))
        await asyncio.sleep(0.1)

    assert watched.told == []


def test_a_bad_file_at_the_start_is_refused(tmp_path) -> None:
    from classifier.app import build
    from classifier.settings import ClassifierSettings

    (tmp_path / "labels.toml").write_text("[labels.X]\n")

    with pytest.raises(SettingsError, match="LABELS_FILE: labels"):
        build(ClassifierSettings(labels_file=str(tmp_path / "labels.toml")))


@pytest.mark.integration
def test_the_service_applies_rules_and_reads_the_file_again_on_sighup(tmp_path) -> None:
    file, port = tmp_path / "labels.toml", processes.free_port()
    file.write_text(RULE.format(name="first", label="high-compute"))
    with processes.classifier(tmp_path, port, LABELS_FILE=file) as service:

        def ask(path="/ruled/x"):
            question = {"method": "GET", "path": path}
            url = f"http://127.0.0.1:{port}/classify"
            return httpx.post(url, json=question, trust_env=False).json()

        answer = ask()
        assert (answer["label"], answer["source"], answer["reason_code"]) == (
            "high-compute",
            "rule",
            "rule",
        )
        assert answer["reasoning"] == "first"
        assert ask("/other/x")["source"] == "local"

        file.write_text(RULE.format(name="second", label="fast-path"))
        service.process.send_signal(signal.SIGHUP)
        assert processes.until(lambda: ask()["reasoning"] == "second", 10)
        assert ask()["label"] == "fast-path"

        file.write_text("nonsense")
        service.process.send_signal(signal.SIGHUP)
        assert processes.until(lambda: "the labels in force stay" in service.output(), 10)
        assert ask()["reasoning"] == "second"
        assert service.process.poll() is None


@pytest.mark.integration
def test_a_service_with_a_bad_labels_file_ends_with_one_line(tmp_path) -> None:
    (tmp_path / "labels.toml").write_text("[[rules]]\nname = 'a'\nlabel = 'b'\n")

    with (
        pytest.raises(AssertionError, match="error: LABELS_FILE: rules"),
        processes.classifier(tmp_path, processes.free_port(), LABELS_FILE="labels.toml"),
    ):
        pass
