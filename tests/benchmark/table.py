"""Tables in Markdown: medians, and in brackets the quartiles."""
import statistics


def cell(values, digits=1):
    low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else (values[0],) * 3
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def ratio(ours, theirs):
    """Of medians."""
    return f"{statistics.median(ours) / statistics.median(theirs):.2f}"


def line(cells):
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def pauses_head(first, peer):
    """Above lines of `pauses`."""
    head(*first, "pause, ms", "took, ms", *(["criu: frozen", "took", "pause, snapd/criu"] if peer else []))


def pauses(first, snapshots, dumps):
    """How long snapshots and the peer's dumps stopped a program, and took."""
    stood = [one["pause_ms"] for one in snapshots]
    cells = [*first, cell(stood), cell([one["took_ms"] for one in snapshots])]
    if dumps:
        frozen = [one.frozen for one in dumps]
        cells += [cell(frozen), cell([one.took for one in dumps]), ratio(stood, frozen)]
    line(cells)


def head(*columns):
    line(columns)
    print("|" + "---|" * len(columns), flush=True)
