"""What the commands print: matrices, accuracies and the contents of a store."""

from collections.abc import Mapping, Sequence

from allcnn.compare import SimilarityResult, network_of
from store import Summary


def matrix_table(result: SimilarityResult) -> str:
    """Return a CKA matrix as text, the first layer at the bottom as in the pictures."""
    width = max(6, *(len(key.tap) for key in (*result.rows, *result.columns))) + 1
    lines = [
        f"{key.tap:>{width}}" + "".join(f"{value:{width}.3f}" for value in values)
        for key, values in reversed(list(zip(result.rows, result.cka, strict=True)))
    ]
    lines.append(" " * width + "".join(f"{key.tap:>{width}}" for key in result.columns))
    kernel = result.kernel if result.sigma is None else f"{result.kernel}, sigma {result.sigma:g}"
    lines += [
        "",
        f"rows     {network_of(result.rows[0])}",
        f"columns  {network_of(result.columns[0])}",
        f"kernel   {kernel}; {result.estimator} HSIC, minibatches of {result.batch_size}",
        f"on       {result.rows[0].sample_set}, {result.n_examples} examples",
    ]
    return "\n".join(lines + [f"not defined: {why}" for why in _reasons(result)])


def accuracy_table(accuracies: Mapping[str, float]) -> str:
    """Return the test accuracies that runs ended with."""
    width = max(map(len, accuracies))
    return "\n".join(f"{run:<{width}}  test accuracy {a:6.1%}" for run, a in accuracies.items())


def store_table(summaries: Sequence[Summary]) -> str:
    """Return one line a run, checkpoint and sample set."""
    head = ("run@checkpoint", "sample set", "taps", "rows", "dtype", "MB", "state")
    rows = [
        (
            f"{s.run}@{s.checkpoint}",
            s.sample_set,
            str(s.n_taps),
            f"{s.n_committed} of {s.n_rows}",
            s.dtype,
            f"{s.n_bytes / 1e6:.1f}",
            "complete" if s.complete else "unfinished",
        )
        for s in summaries
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in (head, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _reasons(result: SimilarityResult) -> list[str]:
    return list(dict.fromkeys(reason for _, _, reason in result.reasons))
