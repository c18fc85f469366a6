"""A download is the right file or one sentence, whatever the server does; what has arrived is used again."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
from dataclasses import replace

import pytest
from serve import Behaviour, serving

from fewshot.data.catalogue import Download
from fewshot.data.download import download
from fewshot.errors import FewshotError

CONTENT = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(10_000))  # 320 kB, no two pieces alike
SHA = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
FAST = dict(timeout=(2, 0.5), tries=3, wait=0.0)


@pytest.fixture
def server():
    with serving() as it:
        yield it


@pytest.fixture
def get(server, tmp_path):
    """get(behaviour) serves it as /a.bin and downloads it; the server is the argument's, or another if it is a path."""

    def get(behaviour, **change):
        server["/a.bin"] = behaviour
        file = replace(Download("a.bin", sha256=SHA, addresses=(server.url("/a.bin"),)), **change)
        return download(file, tmp_path / "into", **FAST)

    return get


def left(tmp_path) -> set[str]:
    return set(os.listdir(tmp_path / "into"))


def refused(get, tmp_path, *arguments, **change) -> str:
    with pytest.raises(FewshotError) as caught:
        get(*arguments, **change)
    assert "a.bin" not in left(tmp_path), "a file that is not the right one was put in place"
    sentence = str(caught.value)
    assert "\n" not in sentence and sentence.endswith(".")
    return sentence


# -- the right file


@pytest.mark.parametrize("change", [{}, {"sha256": None, "md5": MD5}, {"sha256": None}, {"bytes": len(CONTENT)}])
def test_a_complete_download_is_the_file_and_nothing_else(get, tmp_path, change):
    assert get(Behaviour(CONTENT), **change).read_bytes() == CONTENT
    assert left(tmp_path) == {"a.bin"}


def test_what_is_there_with_the_right_hash_is_not_asked_for_again(get, server):
    get(Behaviour(CONTENT))
    get(Behaviour(status=500))
    assert len(server.asked) == 1


def test_what_is_there_with_another_hash_is_replaced(get, tmp_path):
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "a.bin").write_bytes(b"old")
    assert get(Behaviour(CONTENT)).read_bytes() == CONTENT


def test_a_broken_connection_goes_on_where_it_broke(get, server):
    assert get(Behaviour(CONTENT, cut=[100_000, 150_000])).read_bytes() == CONTENT
    starts = [int((wanted or "bytes=0-")[6:-1]) for _, wanted, _ in server.asked]
    assert len(starts) == 3 and starts[0] == 0 < starts[1] <= 100_000 < starts[2] <= 250_000
    assert [mark for _, _, mark in server.asked] == [None, '"1"', '"1"']


def test_a_later_call_goes_on_where_an_earlier_one_stopped(get, server, tmp_path):
    refused(get, tmp_path, Behaviour(CONTENT, cut=[100_000, 0, 0, 0]))
    size = (tmp_path / "into" / "a.bin.part").stat().st_size
    assert 0 < size <= 100_000
    server.asked.clear()
    assert get(Behaviour(CONTENT)).read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.asked] == [f"bytes={size}-"]
    assert left(tmp_path) == {"a.bin"}


def test_a_server_without_ranges_sends_everything_again(get):
    assert get(Behaviour(CONTENT, cut=[100_000], ranges=False)).read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_fetched_anew(get, server, tmp_path):
    """The part comes from another version of the file: the server's mark tells, and where there is none the hash does."""
    refused(get, tmp_path, Behaviour(b"x" * 200_000, cut=[100_000, 0, 0, 0]))
    assert get(Behaviour(CONTENT, tag='"2"')).read_bytes() == CONTENT
    (tmp_path / "into" / "a.bin").unlink()
    (tmp_path / "into" / "a.bin.part").write_bytes(b"x" * 100_000)
    assert get(Behaviour(CONTENT, tag=None)).read_bytes() == CONTENT


def test_without_hash_or_mark_a_part_is_not_trusted(get, server, tmp_path):
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "a.bin.part").write_bytes(b"x" * 100_000)
    assert get(Behaviour(CONTENT), sha256=None).read_bytes() == CONTENT
    assert server.asked[0][1] is None


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"])
def test_a_part_that_is_complete_or_too_long_is_noticed(get, tmp_path, part):
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "a.bin.part").write_bytes(part)
    assert get(Behaviour(CONTENT)).read_bytes() == CONTENT


def test_a_range_that_begins_elsewhere_is_not_glued_on(get, server):
    found = get(Behaviour(CONTENT, cut=[100_000], shift=10), sha256=None)
    assert found.read_bytes() == CONTENT and [bool(wanted) for _, wanted, _ in server.asked] == [False, True, False]


def test_an_end_that_nobody_reports_is_noticed_by_the_length(get, server, monkeypatch):
    """Older urllib3 ends such a download without a word."""
    from requests import Response

    real, calls = Response.iter_content, []

    def short(self, size):
        calls.append(self)
        for i, chunk in enumerate(real(self, size)):
            if len(calls) == 1 and i == 1:
                return
            yield chunk

    monkeypatch.setattr(Response, "iter_content", short)
    assert get(Behaviour(CONTENT), sha256=None).read_bytes() == CONTENT and len(server.asked) == 2


def test_redirects_are_followed_and_ranges_with_them(get, server):
    server["/real"] = Behaviour(CONTENT, cut=[50_000])
    assert get(Behaviour(to=server.url("/real"))).read_bytes() == CONTENT
    assert [path for path, _, _ in server.asked] == ["/a.bin", "/real", "/a.bin", "/real"]


def test_a_slow_server_is_waited_for(get):
    assert get(Behaviour(CONTENT[:40_000], pause=0.05), sha256=hashlib.sha256(CONTENT[:40_000]).hexdigest())


def test_a_server_that_does_not_say_how_long_the_file_is(get):
    assert get(Behaviour(CONTENT, length=False)).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(get, server):
    assert get(Behaviour(CONTENT, busy=2)).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_the_second_address_helps_when_the_first_does_not(get, server):
    server["/b.bin"] = Behaviour(CONTENT)
    found = get(Behaviour(status=404), addresses=(server.url("/a.bin"), server.url("/nothing"), server.url("/b.bin")))
    assert found.read_bytes() == CONTENT and [path for path, _, _ in server.asked] == ["/a.bin", "/nothing", "/b.bin"]


def test_a_part_from_one_address_goes_on_at_another_if_the_hash_will_tell(get, server):
    server["/b.bin"] = Behaviour(CONTENT)
    get(Behaviour(CONTENT, cut=[100_000, 0, 0, 0]), addresses=(server.url("/a.bin"), server.url("/b.bin")))
    assert server.asked[-1][:2][0] == "/b.bin" and server.asked[-1][1].startswith("bytes=")


# -- or one sentence


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_error_of_the_server_is_said(get, tmp_path, status):
    assert f"/a.bin: {status} " in refused(get, tmp_path, Behaviour(status=status))


def test_a_server_that_stays_busy(get, server, tmp_path):
    assert "/a.bin: 503 Service Unavailable" in refused(get, tmp_path, Behaviour(status=503))
    assert len(server.asked) == FAST["tries"]


def test_a_truncated_file_is_never_taken_for_the_whole(get, tmp_path):
    sentence = refused(get, tmp_path, Behaviour(CONTENT, always_cut=100_000, ranges=False))
    assert "the connection broke after" in sentence and "what has arrived is kept" in sentence


def test_a_shorter_file_without_length_has_the_wrong_hash(get, tmp_path):
    sentence = refused(get, tmp_path, Behaviour(CONTENT, always_cut=100_000, length=False))
    assert "its content has changed or was damaged (another sha256)" in sentence


@pytest.mark.parametrize(("change", "kind"), [({}, "sha256"), ({"sha256": None, "md5": MD5}, "md5")])
def test_another_content_is_refused_and_thrown_away(get, tmp_path, change, kind):
    assert f"(another {kind})" in refused(get, tmp_path, Behaviour(CONTENT[::-1]), **change)
    assert left(tmp_path) == set()


def test_another_size_is_refused_before_it_is_downloaded(get, tmp_path):
    sentence = refused(get, tmp_path, Behaviour(CONTENT), bytes=94_280_567)
    assert "it has 320,000 bytes, not 94,280,567, so it is another file" in sentence
    assert left(tmp_path) == set()


def test_a_web_page_instead_of_a_file_is_recognised(get, tmp_path):
    sentence = refused(get, tmp_path, Behaviour(b"<html>quota", type="text/html; charset=utf-8"))
    assert "a web page came instead of the file" in sentence


def test_a_server_that_falls_silent(get, tmp_path):
    sentence = refused(get, tmp_path, Behaviour(CONTENT, stall=100_000))
    assert "no more bytes came" in sentence or "no answer within" in sentence
    assert (tmp_path / "into" / "a.bin.part").stat().st_size > 50_000


def test_endless_redirects(get, server, tmp_path):
    assert "redirects" in refused(get, tmp_path, Behaviour(to=server.url("/a.bin")))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.bin", "http://no-such-host.invalid/a.bin"])
def test_no_server_at_all(get, tmp_path, address):
    sentence = refused(get, tmp_path, Behaviour(), addresses=(address,))
    assert address in sentence and "Traceback" not in sentence and "Max retries" not in sentence


def test_every_address_is_named_with_its_fault(get, server, tmp_path):
    server["/b.bin"] = Behaviour(CONTENT[::-1])
    addresses = (server.url("/a.bin"), server.url("/b.bin"))
    sentence = refused(get, tmp_path, Behaviour(status=404), addresses=addresses)
    assert "/a.bin: 404 Not Found; http" in sentence and "/b.bin: its content has changed" in sentence


def test_a_file_without_a_working_address(tmp_path):
    with pytest.raises(FewshotError, match="no address of a.bin is known to work; download it by hand"):
        download(Download("a.bin"), tmp_path)


def test_a_full_disk_is_said_and_the_download_goes_on_later(get, server, tmp_path, monkeypatch):
    from requests import Response

    real = Response.iter_content

    def filling(self, size):
        for i, chunk in enumerate(real(self, size)):
            if i == 2:
                raise OSError(28, "No space left on device")
            yield chunk

    monkeypatch.setattr(Response, "iter_content", filling)
    sentence = refused(get, tmp_path, Behaviour(CONTENT))
    assert "(No space left on device); free some space" in sentence and "goes on where it stopped" in sentence
    monkeypatch.undo()
    server.asked.clear()
    assert get(Behaviour(CONTENT)).read_bytes() == CONTENT
    assert server.asked[0][1] == f"bytes={2 * 65536}-"


def test_ctrl_c_keeps_what_has_arrived(get, server, tmp_path, monkeypatch):
    from requests import Response

    real = Response.iter_content

    def interrupted(self, size):
        yield next(iter(real(self, size)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Response, "iter_content", interrupted)
    with pytest.raises(KeyboardInterrupt):
        get(Behaviour(CONTENT))
    assert left(tmp_path) == {"a.bin.part", "a.bin.part.json"}
    monkeypatch.undo()
    assert get(Behaviour(CONTENT)).read_bytes() == CONTENT and server.asked[-1][1] == "bytes=65536-"


def _limited(url: str, folder: str, queue) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
    try:
        download(Download("a.bin", sha256=SHA, addresses=(url,)), folder, **FAST)
        queue.put("no error")
    except FewshotError as error:
        queue.put(str(error))


def test_a_limit_of_the_operating_system_is_said_too(server, tmp_path):
    server["/a.bin"] = Behaviour(CONTENT)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_limited, args=(server.url("/a.bin"), str(tmp_path / "into"), queue))
    process.start()
    sentence = queue.get(timeout=120)
    process.join()
    assert "File too large" in sentence and "\n" not in sentence
    assert left(tmp_path) == {"a.bin.part", "a.bin.part.json"}


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "into").write_text("a file")
    with pytest.raises(FewshotError, match="writing to .* failed .*; see that it can be written to and run"):
        download(Download("a.bin", addresses=(server.url("/a.bin"),)), tmp_path / "into", **FAST)
