"""Pulls a model into Ollama and shows the progress."""

import argparse
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from stack_services import ROOT
from stack_settings import SettingsError, address_of, is_loopback, read_settings

EXAMPLE_URL = "http://localhost:11434"
# Between two lines of progress; a large layer is verified in silence.
SILENCE_S = 600.0
BAR_WIDTH = 30
MAX_ERROR_CHARS = 200
MAX_ERROR_BYTES = 65_536


class PullError(Exception):
    """The model is not there; the message says why."""


def main() -> int:
    """Pull OLLAMA_MODEL, or the model named on the command line."""
    parser = argparse.ArgumentParser(prog="scripts/pull-model.sh", description=__doc__)
    parser.add_argument("model", nargs="?", help="model to pull (default: OLLAMA_MODEL)")
    asked: str | None = parser.parse_args().model
    try:
        settings = read_settings(ROOT)
        base_url = _base_url(settings)
        host, _ = address_of("OLLAMA_BASE_URL", base_url, like=EXAMPLE_URL)
        model = asked or settings.get("OLLAMA_MODEL", "mistral")
        # A proxy of the environment is not meant for what runs on this machine.
        proxies = urllib.request.ProxyHandler({} if is_loopback(host) else None)
        pull(urllib.request.build_opener(proxies), base_url, model)
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    except PullError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1
    print(f"{model} is ready at {base_url}")
    return 0


def _base_url(settings: Mapping[str, str]) -> str:
    base_url = settings.get("OLLAMA_BASE_URL", EXAMPLE_URL).strip().rstrip("/")
    if base_url:
        return base_url
    msg = f"OLLAMA_BASE_URL is empty, so there is no Ollama; set it, like {EXAMPLE_URL}"
    raise SettingsError(msg)


def pull(opener: urllib.request.OpenerDirector, base_url: str, model: str) -> None:
    """Ask Ollama to pull, and follow it to the end.

    Raises:
        PullError: If Ollama does not answer, or cannot get the model.
    """
    request = urllib.request.Request(  # noqa: S310 - http(s), checked above
        f"{base_url}/api/pull",
        data=json.dumps({"model": model, "stream": True}).encode(),
        headers={"content-type": "application/json"},
    )
    last: Mapping[str, object] = {}
    try:
        with opener.open(request, timeout=SILENCE_S) as response:
            for line in response:
                last = _progress(line, model)
    except urllib.error.HTTPError as exc:
        msg = f"Ollama at {base_url} answered {exc.code} to the pull of {model}: {_text_of(exc)}"
        raise PullError(msg) from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        msg = (
            f"no Ollama answers at {base_url} ({exc}); install it from https://ollama.com, start "
            "it with `ollama serve`, or set OLLAMA_BASE_URL in .env; the stack works without it"
        )
        raise PullError(msg) from exc
    finally:
        if sys.stdout.isatty():
            print()
    if last.get("status") != "success":
        reason = _one_line(last.get("error", "no word of success"))
        msg = f"the pull of {model} ended early: {reason}"
        raise PullError(msg)


def _progress(line: bytes, model: str) -> Mapping[str, object]:
    event = json.loads(line)
    if not isinstance(event, dict):
        msg = "it sends no JSON objects"
        raise ValueError(msg)  # noqa: TRY004 - like a line that is not JSON at all
    status = str(event.get("status", event.get("error", "")))
    total, completed = event.get("total"), event.get("completed", 0)
    if not isinstance(total, int) or not isinstance(completed, int) or total <= 0:
        print(f"\r{model}: {status:<{BAR_WIDTH + 30}}", end=_line_end(), flush=True)
    elif sys.stdout.isatty():
        bar = "#" * (BAR_WIDTH * completed // total)
        print(
            f"\r{model}: {status[:24]:<24} [{bar:<{BAR_WIDTH}}] {completed / total:4.0%}",
            end="",
            flush=True,
        )
    return event


def _line_end() -> str:
    return "" if sys.stdout.isatty() else "\n"


def _text_of(exc: urllib.error.HTTPError) -> str:
    """What Ollama says is wrong; of another's answer, such as a page of HTML, the bare reason."""
    try:
        answer = json.loads(exc.read(MAX_ERROR_BYTES))
    except (OSError, http.client.HTTPException, ValueError):
        answer = None
    told = answer.get("error") if isinstance(answer, dict) else None
    return _one_line(told or exc.reason)


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_ERROR_CHARS else f"{line[:MAX_ERROR_CHARS]}…"


if __name__ == "__main__":
    sys.exit(main())
