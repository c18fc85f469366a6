"""`fewshot texts generate` against a server on this machine: what it writes, what it survives, and what it never tells."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback

import pytest
from chat_server import ChatServer, Reply, ten_lines

from fewshot.__main__ import main
from fewshot.errors import FewshotError
from fewshot.texts.chat import Chat
from fewshot.texts.generate import Classes, Request, classes_of, generate

KEY = "sk-planted-0123456789abcdef"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server():
    made = ChatServer()
    yield made
    made.close()


class Asking:
    """One run with short waits, and what it said."""

    def __init__(self, server, folder):
        self.server, self.output, self.said, self.slept = server, folder / "out.json", [], []

    def __call__(self, names=("heron",), *, retries=2, rounds=2, timeout=5.0, prices=(None, None), **request):
        chat = Chat(
            "tiny", self.server.url, timeout=timeout, retries=retries, rounds=rounds, pause=7.0, sleep=self.slept.append
        )
        request = Request(**({"calls": 1} | request))
        generate(Classes(tuple(names)), request, chat, self.output, self.said.append, prices)
        return json.loads(self.output.read_text())

    @property
    def meta(self):
        return json.loads(self.output.with_name("out.meta.json").read_text())


@pytest.fixture
def asking(server, tmp_path):
    return Asking(server, tmp_path)


def cached(tmp_path):
    return sorted((tmp_path / "cache" / "texts").glob("*.json"))


# -- success -----------------------------------------------------------------------------------------------------------


def test_sentences_are_cleaned_and_kept_in_label_order(asking, server):
    table = asking(["stork", "heron"], calls=2)
    assert list(table) == ["stork", "heron"] and all(len(lines) == 20 for lines in table.values())
    assert table["stork"][0] == "The bird number 1 has a red mark 0 on its bill."
    assert [call["path"] for call in server.asked] == ["/v1/chat/completions"] * 4
    message = {"role": "user", "content": "Describe the visual characteristics of a stork in 10 lines."}
    assert server.asked[0]["messages"] == [message]
    assert server.asked[0]["temperature"] == 1.0 and "seed" not in server.asked[0]


def test_meta_file_says_how_the_sentences_came_about(asking):
    asking(["heron"], prompt="visual10_domain", temperature=0.5, seed=3, calls=2)
    meta = asking.meta
    assert meta["model"] == ["tiny-2026"] and meta["model_asked"] == "tiny"
    assert meta["prompt_id"] == "visual10_domain" and meta["prompt"].startswith("Describe what {a} {name}")
    assert (meta["temperature"], meta["seed"], meta["calls"], meta["cleaner"]) == (0.5, 3, 2, 1)
    assert meta["sha256"] == hashlib.sha256(asking.output.read_bytes()).hexdigest()
    assert (meta["classes"], meta["sentences"]) == (1, 20) and len(meta["date"]) == 10


def test_seeds_count_up_with_the_answers(asking, server):
    asking(["heron"], seed=5, calls=3)
    assert [call["seed"] for call in server.asked] == [5, 6, 7]


def test_names_are_spelt_for_the_prompt_and_stay_keys(asking, server, tmp_path):
    chat = Chat("tiny", server.url)
    classes = Classes(("Artic_Tern",), "bird", {"Artic_Tern": "Arctic Tern"})
    generate(classes, Request(calls=1), chat, tmp_path / "out.json", lambda _: None)
    assert "of an Arctic Tern in" in server.asked[0]["messages"][0]["content"]
    assert list(json.loads((tmp_path / "out.json").read_text())) == ["Artic_Tern"]
    assert asking.meta["names"] == {"Artic_Tern": "Arctic Tern"}


def test_number_of_calls_is_told_before_the_first_and_tokens_and_cost_at_the_end(asking, server):
    asking(["heron", "stork"], calls=2, prices=(1.0, 10.0))
    assert asking.said[0].startswith("4 calls (2 classes x 2) to tiny at 127.0.0.1")
    assert "0 are answered, 4 to make" in asking.said[0]
    assert asking.said[1] == "4 calls, 80 tokens in, 400 tokens out (0 answers from the cache), cost 0.0041"


def test_max_calls_stops_before_the_first_call(asking, server):
    with pytest.raises(FewshotError, match="4 calls are to be made and --max-calls allows 3"):
        asking(["heron", "stork"], calls=2, max_calls=3)
    assert not server.asked and not asking.output.exists()


def test_max_calls_counts_repeated_questions(asking, server):
    server.replies = [Reply("")]
    with pytest.raises(FewshotError, match="--max-calls 2 is used up at class 'stork'"):
        asking(["heron", "stork"], max_calls=2)
    assert len(server.asked) == 2


def test_so_many_sentences_as_wanted_and_more_calls_where_answers_repeat(asking, server):
    server.replies = [Reply(ten_lines(1)), Reply(ten_lines(1))]
    assert len(asking(["heron"], calls=2, sentences=15)["heron"]) == 15
    assert len(server.asked) == 3


def test_a_model_that_repeats_itself_is_one_sentence(asking, server):
    server.replies = [Reply(ten_lines(1)) for _ in range(9)]
    with pytest.raises(FewshotError, match="wrote 10 different sentences about class 'heron' and 15 are wanted"):
        asking(["heron"], calls=1, sentences=15)
    assert len(server.asked) == 4


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_rate_limit_waits_as_long_as_the_server_says_and_goes_on(asking, server):
    server.replies = [Reply(status=429, headers={"Retry-After": "1"})]
    started = time.monotonic()
    assert len(asking()["heron"]) == 10
    assert time.monotonic() - started >= 1 and len(server.asked) == 2 and not asking.slept


def test_server_failure_is_asked_again(asking, server):
    server.replies = [
        Reply(status=503, headers={"Retry-After": "0.01"}),
        Reply(status=500, headers={"Retry-After": "0.01"}),
    ]
    assert len(asking()["heron"]) == 10 and len(server.asked) == 3


def test_pauses_of_our_own_follow_those_of_the_client_and_double(asking, server):
    server.replies = [Reply(status=429) for _ in range(2)]
    assert len(asking(retries=0, rounds=3)["heron"]) == 10
    assert asking.slept == [7.0, 14.0]


@pytest.mark.parametrize("status, words", [(429, "keeps limiting the rate"), (500, "fails")])
def test_persistent_trouble_ends_after_a_bounded_number_of_calls(asking, server, status, words):
    server.replies = [Reply(status=status, headers={"Retry-After": "0.01"}) for _ in range(50)]
    with pytest.raises(FewshotError, match=rf"127\.0\.0\.1:\d+ {words} \({status}: no\); .*run again"):
        asking(retries=1, rounds=2)
    assert len(server.asked) == 4 and asking.slept == [7.0]


def test_used_up_quota_is_not_asked_again(asking, server):
    server.replies = [Reply(status=429, error={"message": "none left", "code": "insufficient_quota"})]
    with pytest.raises(FewshotError, match="the quota is used up"):
        asking(retries=0)
    assert len(server.asked) == 1


def test_an_answer_that_comes_too_late_is_asked_for_again(asking, server):
    server.replies = [Reply(ten_lines(1), pause=1.5)]
    assert len(asking(timeout=0.5, retries=0)["heron"]) == 10
    assert len(server.asked) == 2


def test_no_answer_in_time_is_one_sentence(asking, server):
    server.replies = [Reply(ten_lines(1), pause=1.0) for _ in range(2)]
    with pytest.raises(FewshotError, match="gave no answer within 0.2 s"):
        asking(timeout=0.2, retries=0)


def test_an_answer_that_breaks_off_is_asked_for_again(asking, server, tmp_path):
    server.replies = [Reply(ten_lines(1), sent=80)]
    assert len(asking(retries=0)["heron"]) == 10
    assert len(server.asked) == 2 and len(cached(tmp_path)) == 1


def test_no_server_is_one_sentence(asking, server):
    server.close()
    with pytest.raises(FewshotError, match="cannot be reached .*check --base-url"):
        asking(retries=0, rounds=1)


UNUSABLE = {
    "broken JSON": Reply(body=b'{"choices": [{"mess'),
    "not JSON": Reply(body=b"<html>hello</html>", headers={"Content-Type": "text/html"}),
    "another JSON": Reply(body=b'{"hello": 1}'),
    "no choices": Reply(body=b'{"choices": []}'),
    "a list": Reply(body=b"[1]"),
    "no content": Reply(None),
    "empty": Reply("  \n"),
    "refusal": Reply("I'm sorry, but I can't help with that."),
    "filtered": Reply(ten_lines(1), finish_reason="content_filter"),
    "too few lines": Reply("The bill is red.\nThe eye is black."),
    "cut": Reply("\n".join(ten_lines(1).splitlines()[:8]), finish_reason="length"),
}


@pytest.mark.parametrize("reply", UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_answer_is_asked_for_again_and_never_stored(asking, server, tmp_path, reply):
    server.replies = [reply]
    assert len(asking()["heron"]) == 10
    assert len(server.asked) == 2 and len(cached(tmp_path)) == 1


@pytest.mark.parametrize(
    "reply, fault",
    [(Reply(body=b"{"), "no chat completion"), (Reply(""), "an empty answer"), (UNUSABLE["refusal"], "a refusal"),
     (UNUSABLE["too few lines"], "2 lines where 10 are asked for")],
)  # fmt: skip
def test_always_unusable_answers_are_one_sentence_with_the_class(asking, server, tmp_path, reply, fault):
    server.replies = [Reply(ten_lines(1))] + [reply] * 10
    with pytest.raises(FewshotError, match=rf"no usable answer about class 'stork' in 3 calls \(the last: {fault}\)"):
        asking(["heron", "stork"])
    assert len(server.asked) == 4 and len(cached(tmp_path)) == 1 and not asking.output.exists()


def test_repeated_question_has_another_seed(asking, server):
    server.replies = [Reply("")]
    asking(seed=1)
    assert [call["seed"] for call in server.asked] == [1, 1001]


def test_tokens_of_unusable_answers_are_counted(asking, server):
    server.replies = [Reply("")]
    asking()
    assert asking.said[1].startswith("2 calls, 40 tokens in, 200 tokens out")


def test_unknown_model_is_one_sentence(asking, server):
    server.replies = [
        Reply(status=404, error={"message": "The model `tiny` does not exist.", "code": "model_not_found"})
    ]
    with pytest.raises(
        FewshotError, match=r"knows no model 'tiny' \(404: The model `tiny` does not exist\); check --mod"
    ):
        asking()
    assert len(server.asked) == 1


def test_refused_request_is_one_sentence(asking, server):
    server.replies = [Reply(status=400, error={"message": "temperature must be 1", "code": None})]
    with pytest.raises(FewshotError, match=r"refuses the request \(400: temperature must be 1\); check"):
        asking()


# -- stop and go on ----------------------------------------------------------------------------------------------------


def test_stopped_run_goes_on_without_a_repeated_call(asking, server, tmp_path):
    names = ["heron", "stork", "crane"]
    server.replies = [Reply(ten_lines(1)), Reply(ten_lines(2)), Reply(ten_lines(3)), Reply(status=400)]
    with pytest.raises(FewshotError):
        asking(names, calls=2)
    assert not asking.output.exists() and len(cached(tmp_path)) == 3
    table = asking(names, calls=2)
    assert "3 are answered, 3 to make" in asking.said[2]
    messages = [call["messages"][0]["content"].split()[6] for call in server.asked]
    assert messages == ["heron", "heron", "stork", "stork", "stork", "crane", "crane"]  # the fourth failed
    assert table["heron"][0].startswith("The bird number 1 ") and len(table["crane"]) == 20
    asking(names, calls=2)
    assert len(server.asked) == 7 and "(6 answers from the cache)" in asking.said[-2]


def test_interrupt_keeps_what_is_answered(asking, server, monkeypatch):
    ask = Chat.ask
    calls = []

    def interrupted(self, *args, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ask(self, *args, **settings)

    monkeypatch.setattr(Chat, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt, match="2 answers are kept, and the same command goes on"):
        asking(["heron", "stork", "crane"])
    asking(["heron", "stork", "crane"])
    assert len(server.asked) == 3


def test_killed_process_goes_on_without_a_repeated_call(server, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("heron\nstork\ncrane\nibis\n")
    output = tmp_path / "out.json"
    arguments = ["texts", "generate", "--classes", str(names), "--model", "tiny", "--base-url", server.url]
    arguments += ["--calls", "1", "-o", str(output)]
    process = subprocess.Popen([sys.executable, "-m", "fewshot", *arguments], stdout=subprocess.PIPE)

    def kill(number):
        if number == 3:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()

    server.hook = kill
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL and not output.exists()
    assert len(server.asked) == 3 and len(cached(tmp_path)) == 2
    server.hook = None
    assert main(arguments) == 0
    assert len(server.asked) == 5 and len(json.loads(output.read_text())) == 4


def test_damaged_answer_in_the_cache_is_asked_for_again(asking, server, tmp_path):
    asking()
    cached(tmp_path)[0].write_text("{")
    asking()
    assert len(server.asked) == 2


def test_another_temperature_prompt_or_model_is_another_question(asking, server):
    asking()
    asking(temperature=0.5)
    asking(prompt="contrast")
    assert len(server.asked) == 3


# -- the key -----------------------------------------------------------------------------------------------------------


def test_key_is_sent_and_is_in_no_file_and_no_output(server, tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("OPENAI_LOG", "debug")
    (tmp_path / "names.txt").write_text("heron\n")
    server.replies = [Reply(f"{ten_lines(1)}\nYour key is {KEY} as you know")]
    arguments = ["texts", "generate", "--classes", str(tmp_path / "names.txt"), "--model", "tiny", "--calls", "1"]
    assert main([*arguments, "--base-url", server.url, "-o", str(tmp_path / "out.json")]) == 0
    assert server.keys == [f"Bearer {KEY}"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4 and not [path for path in files if KEY in path.read_text()]
    assert KEY not in "".join(capfd.readouterr())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_key_is_in_no_message_and_no_traceback_even_if_the_server_repeats_it(asking, server, status):
    server.replies = [Reply(status=status, error={"message": f"the key {KEY} is bad", "code": None})] * 9
    with pytest.raises(FewshotError) as caught:
        asking(retries=0, rounds=2)
    error = caught.value
    assert KEY not in "".join(traceback.format_exception(error)) and error.__context__ is None
    assert KEY not in "".join(asking.said)


def test_refused_key_is_one_sentence(asking, server):
    server.replies = [Reply(status=401)]
    with pytest.raises(FewshotError, match="refuses the key; put a valid one into OPENAI_API_KEY"):
        asking()


@pytest.mark.parametrize("key", [None, "", "  "])
def test_missing_key_is_one_sentence(server, tmp_path, monkeypatch, capsys, key):
    monkeypatch.setenv("OPENAI_API_KEY", key) if key is not None else monkeypatch.delenv("OPENAI_API_KEY")
    arguments = ["texts", "generate", "--classes", "cub", "--model", "tiny", "-o", str(tmp_path / "x.json")]
    assert main([*arguments, "--base-url", server.url]) == 2
    assert capsys.readouterr().err == (
        "fewshot: there is no key in the environment; set OPENAI_API_KEY (for a local server any word will do).\n"
    )


@pytest.mark.parametrize("key", [KEY + "\n", "sk planted 0123", "sk-plantéd-0123"])
def test_key_that_no_header_can_carry_is_one_sentence_without_it(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(FewshotError, match="copy it again") as caught:
        Chat("tiny", "http://127.0.0.1:9/v1")
    assert key.strip() not in str(caught.value)


def test_missing_package_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openai", None)
    assert main(["texts", "generate", "--classes", "cub", "--model", "tiny", "-o", str(tmp_path / "x.json")]) == 2
    assert "needs the openai package; install it with `pip install" in capsys.readouterr().err


def test_key_is_no_option(capsys):
    with pytest.raises(SystemExit):
        main(["texts", "generate", "--help"])
    assert "key" not in capsys.readouterr().out.replace("the key comes from OPENAI_API_KEY alone", "")


@pytest.mark.parametrize("url", ["https://me:hunter22@host/v1", "https://host/v1?api-key=hunter22"])
def test_address_with_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(FewshotError, match="carries a password or a query") as caught:
        Chat("tiny", url)
    assert "hunter22" not in str(caught.value)


def test_base_url_may_come_from_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    generate(Classes(("heron",)), Request(calls=1), Chat("tiny"), tmp_path / "out.json", lambda _: None)
    assert len(server.asked) == 1


# -- what to ask about, and settings -----------------------------------------------------------------------------------


def test_classes_of_a_data_set_come_with_their_domain_and_spelling():
    cub = classes_of("cub")
    assert len(cub.names) == 200 and cub.domain == "bird" and cub.asked("Artic Tern") == "Arctic Tern"
    assert len(classes_of("pets").names) == 37 and classes_of("pets", "beast").domain == "beast"


@pytest.mark.parametrize(
    "name, text", [("n.txt", "a b\n\n c \n"), ("n.json", '["a b", "c"]'), ("n.json", '{"a b": 1, "c": 2}')]
)
def test_classes_of_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert classes_of(str(tmp_path / name)).names == ("a b", "c")


@pytest.mark.parametrize(
    "name, text, fault",
    [("n.txt", "\n", "holds no class name"), ("n.txt", "a\na\n", "'a' twice"), ("n.json", "{", "cannot be read as class names"),
     ("n.json", "[1]", "should be a list of class names")],
)  # fmt: skip
def test_bad_files_of_classes_are_one_sentence(tmp_path, name, text, fault):
    (tmp_path / name).write_text(text)
    with pytest.raises(FewshotError, match=fault):
        classes_of(str(tmp_path / name))


def test_unknown_data_set_is_one_sentence():
    with pytest.raises(FewshotError, match="unknown data set or file of class names 'cubb'; did you mean 'cub'"):
        classes_of("cubb")


@pytest.mark.parametrize(
    "settings, fault",
    [({"prompt": "visual11"}, "did you mean 'visual10'"), ({"calls": 0}, "--calls is 0"), ({"max_calls": 0}, "--max-calls"),
     ({"sentences": 0}, "--sentences"), ({"temperature": 3.0}, "between 0 and 2"), ({"temperature": float("nan")}, "between")],
)  # fmt: skip
def test_impossible_settings_are_one_sentence(settings, fault):
    with pytest.raises(FewshotError, match=fault):
        Request(**settings)


@pytest.mark.parametrize(
    "name, fault", [("x.txt", "ends in .json"), ("x.meta.json", "ends in .json"), ("d.json", "is a folder")]
)
def test_output_is_checked_before_anything_is_asked(server, tmp_path, name, fault):
    (tmp_path / "d.json").mkdir()
    with pytest.raises(FewshotError, match=fault):
        generate(Classes(("heron",)), Request(), Chat("tiny", server.url), tmp_path / name, lambda _: None)
    assert not server.asked
