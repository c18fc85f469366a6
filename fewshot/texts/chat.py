"""One question to a server that speaks the chat completions protocol, and every way in which that fails as one sentence.

The key is read from OPENAI_API_KEY by the client and by nothing else: no option, no attribute and no file holds it, and it
is struck out of whatever a server says before a sentence repeats it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from fewshot.errors import FewshotError
from fewshot.texts.clean import Unusable

HOME = "https://api.openai.com/v1"  # where the client goes without a base URL
TIMEOUT = 60.0  # seconds for one answer
CLIENT_RETRIES = 5  # the client's own, half a second to eight seconds apart or as the server's Retry-After says
ROUNDS = 3  # of those, with pauses of ours in between
PAUSE = 20.0  # seconds, twice as long each time


class Chat:
    """`Chat(model, base_url).ask(messages, temperature=1.0)` -> {text, finish_reason, model, usage}."""

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        timeout: float = TIMEOUT,
        retries: int = CLIENT_RETRIES,
        rounds: int = ROUNDS,
        pause: float = PAUSE,
        sleep: Callable[[float], None] = time.sleep,
    ):
        try:
            import openai
        except ImportError:
            openai = None
        if openai is None:
            raise FewshotError(
                "asking a model needs the openai package; install it with `pip install 'fewshot-clip-book[texts]'`."
            )
        url = base_url or os.environ.get("OPENAI_BASE_URL") or HOME
        self.model, self.host = model, _host(url)
        if not os.environ.get("OPENAI_API_KEY", "").strip():
            raise FewshotError(
                "there is no key in the environment; set OPENAI_API_KEY (for a local server any word will do)."
            )
        if not re.fullmatch(r"[!-~]+", os.environ["OPENAI_API_KEY"]):
            raise FewshotError("OPENAI_API_KEY holds a space, a line break or a character beyond ASCII; copy it again.")
        self.timeout, self.rounds, self.pause, self.sleep = timeout, rounds, pause, sleep
        self._openai = openai
        self._client = openai.OpenAI(base_url=url, timeout=timeout, max_retries=retries)

    def ask(self, messages: list[dict], **settings) -> dict:
        """One answer. Raises Unusable for one that is no chat completion, FewshotError when none is to be had."""
        for turn in range(self.rounds):
            answer, fault, again = self._try(messages, settings)
            if answer is not None:
                return answer
            if not again or turn == self.rounds - 1:
                break
            self.sleep(self.pause * 2**turn)
        raise fault  # here, where no exception of the client is being handled: its chain would show the request

    def _try(self, messages: list[dict], settings: dict) -> tuple[dict | None, FewshotError | None, bool]:
        """(answer, None, _) or (None, what went wrong, whether it may go better later)."""
        openai = self._openai
        try:
            reply = self._client.chat.completions.create(model=self.model, messages=messages, **settings)
            return self._answer(reply), None, False
        except openai.AuthenticationError:
            return None, FewshotError(f"{self.host} refuses the key; put a valid one into OPENAI_API_KEY."), False
        except openai.PermissionDeniedError as error:
            return None, self._refused("does not let this key in", error, "ask for access or take another model"), False
        except openai.NotFoundError as error:
            fault = self._refused(f"knows no model {self.model!r}", error, "check --model and --base-url")
            return None, fault, False
        except openai.RateLimitError as error:
            if getattr(error, "code", None) == "insufficient_quota":
                return None, self._refused("says that the quota is used up", error, "top it up and run again"), False
            return None, self._refused("keeps limiting the rate", error, "wait a while and run again"), True
        except openai.APITimeoutError:
            return None, FewshotError(f"{self.host} gave no answer within {self.timeout:g} s; run again later."), True
        except openai.APIConnectionError as error:
            cause = self._struck(str(error.__cause__ or error)).rstrip(".")
            return None, FewshotError(f"{self.host} cannot be reached ({cause}); check --base-url."), True
        except openai.InternalServerError as error:
            return None, self._refused("fails", error, "run again later"), True
        except openai.APIResponseValidationError:
            return None, Unusable("no chat completion"), False
        except openai.APIStatusError as error:
            fault = self._refused("refuses the request", error, "check --model, --temperature and --seed")
            return None, fault, False
        except (ValueError, TypeError, AttributeError, LookupError):  # JSON that is none, or something else in it
            return None, Unusable("no chat completion"), False

    def _answer(self, reply) -> dict:
        choice = reply.choices[0]
        text = choice.message.content or ""
        if not isinstance(text, str):
            raise TypeError("content")
        if getattr(choice.message, "refusal", None) or choice.finish_reason == "content_filter":
            text = ""
        usage = reply.usage
        return {
            "text": self._struck(text),
            "finish_reason": str(choice.finish_reason),
            "model": self._struck(str(reply.model or self.model)),
            "usage": {
                "prompt_tokens": int(getattr(usage, "prompt_tokens", 0) or 0),
                "completion_tokens": int(getattr(usage, "completion_tokens", 0) or 0),
            },
        }

    def _refused(self, what: str, error, remedy: str) -> FewshotError:
        body = error.body if isinstance(error.body, dict) else {}
        said = body.get("message") or ""
        if isinstance(body.get("error"), dict):
            said = body["error"].get("message") or said
        said = " ".join(str(said).split())[:160].rstrip(".")
        reason = f"{error.status_code}: {self._struck(said)}" if said else f"{error.status_code}"
        return FewshotError(f"{self.host} {what} ({reason}); {remedy}.")

    def _struck(self, text: str) -> str:
        key = os.environ.get("OPENAI_API_KEY", "").strip()
        return text.replace(key, "[key]") if len(key) >= 8 else text  # a dummy key may be any word


def _host(url: str) -> str:
    """The host and port of an address; an address that carries a secret is refused without being repeated."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FewshotError("the base URL is no web address; give one such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise FewshotError("the base URL carries a password or a query; give the plain address and set OPENAI_API_KEY.")
    return f"{parts.hostname}:{port}" if port else parts.hostname
