"""The command line as tests use it: in this process, in a workspace of theirs."""

from pathlib import Path

from click.testing import CliRunner, Result

from allcnn.workspace.paths import Workspace
from flows.cli.main import main


def run(*arguments: object, workspace: Workspace, answer: str | None = None) -> Result:
    """Run a command, which reads ``answer`` where it asks."""
    words = [*map(str, arguments), "--workspace", str(workspace.root)]
    return CliRunner().invoke(main, words, prog_name="allcnn", input=answer)


def succeed(*arguments: object, workspace: Workspace, answer: str | None = None) -> str:
    """Run a command that must succeed, and return what it prints."""
    result = run(*arguments, workspace=workspace, answer=answer)
    assert result.exit_code == 0, result.output
    return result.stdout


def contents(root: Path) -> dict[str, bytes]:
    """Return every file's content, by its path below a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
