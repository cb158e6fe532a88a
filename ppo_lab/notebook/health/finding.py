"""A finding of the health rules, and its text as Markdown and HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

PAGE = "../docs/troubleshooting.md"  # relative to the folder of the notebooks
ALL_WELL = "Nothing looks wrong."
LOOKED_AT = "Looked at: KL, clip fraction, entropy, explained variance, value loss, gradients, learning rates, returns."


@dataclass(frozen=True)
class Finding:
    """A problem that a rule found in a run."""

    rule: str
    severity: str  # "warning": something is wrong; "note": worth knowing, may be harmless
    what: str  # one sentence, with the value and the threshold
    since: int  # global_step since which it holds without interruption
    advice: str  # which setting to change, and in which direction

    @property
    def link(self) -> str:
        """The link to the section of this rule, relative to a notebook."""
        return f"{PAGE}#{self.rule}"


def as_markdown(findings: Sequence[Finding]) -> str:
    """Format the findings as a Markdown list, for a cell of a notebook or a file."""
    looked = f" {LOOKED_AT}" if not _warnings(findings) else ""
    items = "".join(
        f"\n- **{_title(found)}** since step {found.since:,}. {_plain(found.what)} "
        f"*Try:* {_plain(found.advice)} [More]({found.link})"
        for found in findings
    )
    return f"**{_headline(findings)}**{looked}" + (f"\n{items}" if items else "")


def as_html(findings: Sequence[Finding]) -> str:
    """Format the findings as HTML, for a widget. Links open a new tab."""
    looked = f" {LOOKED_AT}" if not _warnings(findings) else ""
    items = "".join(
        f"<li><b>{html.escape(_title(found))}</b> since step {found.since:,}. {_coded(found.what)} "
        f'<i>Try:</i> {_coded(found.advice)} <a href="{html.escape(found.link)}" target="_blank">More</a></li>'
        for found in findings
    )
    return f"<p><b>{_headline(findings)}</b>{looked}</p>" + (f"<ul>{items}</ul>" if items else "")


def _warnings(findings: Sequence[Finding]) -> int:
    return sum(found.severity == "warning" for found in findings)


def _headline(findings: Sequence[Finding]) -> str:
    count = _warnings(findings)
    return f"{count} thing{'s look' if count > 1 else ' looks'} wrong." if count else ALL_WELL


def _title(found: Finding) -> str:
    return f"{found.severity.capitalize()}: {found.rule.replace('-', ' ')}"


def _plain(text: str) -> str:
    """Escape the special characters of Markdown outside of `code`."""
    pieces = text.split("`")
    pieces[::2] = [re.sub(r"([\\*_\[\]<>|#])", r"\\\1", piece) for piece in pieces[::2]]
    return "`".join(pieces)


def _coded(text: str) -> str:
    """Escape HTML, and convert `code` to a <code> element."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))
