"""Standard streams that are closed, full, or cannot show every letter."""

import errno
import io
import os
import sys

import pytest
from click.testing import CliRunner

from flows.cli.main import main
from flows.views import removal, terminal
from flows.views.terminal import is_terminal, prepare


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
@pytest.mark.parametrize("command", [["extract"], ["train"], ["store", "gc"], ["figure", "curves"]])
def test_help_is_shown_in_any_encoding(command, encoding):
    result = CliRunner(charset=encoding).invoke(main, [*command, "--help"])
    assert (result.exit_code, result.exception) == (0, None)
    assert "--workspace" in result.output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_a_terminal_lacks_are_written_in_ascii(monkeypatch, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare()
    stream.write("3 \u2192 4 \u2026 \u2013 \udcff \u4f60")
    stream.flush()
    assert stream.buffer.getvalue() == rb"3 -> 4 ... - \udcff \u4f60"


def test_what_a_command_writes_is_spelt_as_its_help_is(tmp_path):
    place = tmp_path / "a\u2026b \u4f60"
    result = CliRunner(charset="latin-1").invoke(main, ["run", "ls", "--workspace", str(place)])
    assert r"a...b \u4f60" in result.stderr


def test_other_errors_of_encodings_are_raised():
    prepare()
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", "allcnn-plain")


def test_closed_streams_are_opened(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare()
    opened = sys.stdin, sys.stdout, sys.stderr
    assert sys.stdin.read() == ""
    sys.stdout.write("nowhere")
    sys.stderr.write("nowhere")
    for stream in opened:
        stream.close()


@pytest.mark.parametrize("closed", [True, False])
def test_a_closed_input_is_no_terminal(monkeypatch, closed):
    stream = io.StringIO()
    if closed:
        stream.close()
    assert not is_terminal(stream)
    assert not is_terminal(None)
    monkeypatch.setattr(sys, "stdin", stream)
    with pytest.raises(Exception, match="there is no terminal to ask on; add --yes"):
        removal.ask(as_json=False)


class Full(io.RawIOBase):
    """A disk without room."""

    def writable(self):
        return True

    def write(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_a_full_output_is_one_sentence(monkeypatch, capsys, arguments):
    full = io.TextIOWrapper(io.BufferedWriter(Full()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as ended:
        main(arguments, prog_name="allcnn")
    assert ended.value.code == 1
    assert capsys.readouterr().err == "Error: No space left on device\n"
    monkeypatch.setattr(full, "flush", lambda: None, raising=False)


def test_a_long_value_does_not_hide_the_sentence():
    result = CliRunner().invoke(main, ["run", "ls", "--workspace", "x" * 10**5])
    assert result.exit_code == 1
    assert len(result.stderr) < 2100
    assert "..." in result.stderr
    assert result.stderr.endswith("\n")


def test_a_limit_on_threads_is_one_sentence(monkeypatch, tmp_path):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    silenced = []
    monkeypatch.setattr("flows.cli.commands.end_in_silence", lambda: silenced.append(True))
    monkeypatch.setattr("allcnn.workspace.run_listing.list_runs", refuse)
    result = CliRunner().invoke(main, ["run", "ls", "--workspace", str(tmp_path)])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no more threads can be started; end other programs")
    assert len(result.stderr.splitlines()) == 1
    assert silenced == [True]


def test_of_two_files_the_one_that_cannot_be_replaced_is_named(monkeypatch, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page.partial").touch()
    monkeypatch.setattr(
        "allcnn.workspace.run_listing.list_runs",
        lambda *_: os.replace(tmp_path / "page.partial", tmp_path / "page"),
    )
    result = CliRunner().invoke(main, ["run", "ls", "--workspace", str(tmp_path)])
    assert result.stderr == f"Error: Is a directory: {tmp_path / 'page'}\n"


def test_the_end_is_silent_by_a_stream_to_nowhere(monkeypatch):
    registered, copied = [], []
    monkeypatch.setattr(terminal.atexit, "register", registered.append)
    monkeypatch.setattr(terminal.os, "dup2", lambda *numbers: copied.append(numbers[1]))
    terminal.end_in_silence()
    (at_end,) = registered
    at_end()
    assert copied == [2]
