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


def head(*columns):
    line(columns)
    print("|" + "---|" * len(columns), flush=True)
