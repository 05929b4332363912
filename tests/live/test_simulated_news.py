"""The simulated news stream as a command, and its scripts. Its faults are tried by the clients."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from deadlines import DEADLINE_S
from websockets.asyncio.client import connect

import simulator.news
from simulator.news import (
    SAMPLE,
    NewsServer,
    ScriptedArticle,
    ScriptError,
    news_message,
    read_script,
)

ROOT = Path(__file__).resolve().parents[2]


async def test_a_script_is_published_in_its_order_and_again_as_new_articles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulator.news, "REPEAT_PAUSE_S", 0.2)
    script = [ScriptedArticle(0.4, "Second", ["EFGH"]), ScriptedArticle(0.3, "First", ["ABCD"])]
    async with NewsServer(script, repeat=True) as server, connect(server.url) as client:
        async with asyncio.timeout(DEADLINE_S):
            contents = [json.loads(await client.recv())["data"]["content"] for _ in range(4)]
    assert [content["title"] for content in contents] == ["First", "Second"] * 2
    assert len({content["url"] for content in contents}) == 4


def test_the_older_spelling_differs_from_the_current_one_where_the_documents_do() -> None:
    current = news_message("Up", ["NYSE:ABCD"])
    older = news_message("Up", ["NYSE:ABCD"], older=True)
    assert (current["kind"], current["data"]["action"]) == ("news", "created")
    assert (older["kind"], older["data"]["action"]) == ("News/v1", "Created")
    assert current["data"]["content"]["securities"] == [{"symbol": "ABCD", "exchange": "NYSE"}]
    assert older["data"]["content"]["stocks"] == [{"name": "ABCD", "exchange": "NYSE"}]
    assert current["data"]["content"].keys() - older["data"]["content"].keys() == {
        "created",
        "updated",
        "securities",
    }


def test_a_script_is_read_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    lines = [json.dumps(article._asdict()) for article in SAMPLE]
    path.write_text("\n\n".join(lines))
    assert read_script(path) == list(SAMPLE)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x", "no JSON object with seconds, title and tickers"),
        ("[]", "no JSON object with seconds, title and tickers"),
        ('{"seconds": 1, "title": "Up"}', "no JSON object with seconds, title and tickers"),
        ('{"seconds": -1, "title": "Up", "tickers": []}', "seconds must be 0 or more, not -1"),
        ('{"seconds": "1", "title": "Up", "tickers": []}', "seconds must be a number, not '1'"),
        ('{"seconds": 1, "title": "Up", "tickers": "A"}', "tickers must be a list of texts"),
        ('{"seconds": 1, "title": 2, "tickers": []}', "title, teaser, body and action must be"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"seconds": 1, "title": "Up", "tickers": []}\n' + line)
    with pytest.raises(ScriptError, match=f"line 2: .*{told}".replace("[", r"\[")):
        read_script(path)


async def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    async with NewsServer() as server:
        for options, reason in [
            (["--port", str(server.port)], f"cannot listen on port {server.port}: "),
            (["--script", str(tmp_path / "none")], f"{tmp_path / 'none'} cannot be read: "),
            (["--bogus"], "unrecognized arguments: --bogus"),
        ]:
            ended = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", "simulator.news", *options],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
            )
            assert ended.returncode == 2
            assert ended.stderr.startswith(f"python -m simulator.news: {reason}")
            assert ended.stderr.count("\n") == 1
